//! `trap(branch INT, id INT, how TEXT)`: writes, and then does what a module must not.

use volt_procedure::{procedure, statements, Error, Row};

statements! {
    TAKE_ALL = "UPDATE accounts SET balance = 0 WHERE branch = $1 AND id = $2";
}

fn trap(arguments: Row) -> Result<(), Error> {
    TAKE_ALL.execute(&arguments[..2]);
    let how: String = arguments.get(2)?;
    match how.as_str() {
        "panic" => panic!("something went wrong"),
        "stack" => drop(deeper(1)),
        "memory" => drop(Row(vec![volt_procedure::Value::Bytea(vec![1; 64 << 20]); 2]).get::<i32>(1)),
        "address" => drop(unsafe { std::ptr::read_volatile(usize::MAX as *const u8) }),
        _ => core::arch::wasm32::unreachable(),
    }
    Ok(())
}

/// No number of those below is 0, which the compiler doesn't know: else it would make a loop of it.
static STOP: u32 = 0;

fn deeper(n: u32) -> u32 {
    if unsafe { std::ptr::read_volatile(&STOP) } == n {
        return n;
    }
    deeper(n.wrapping_add(2)).rotate_left(3) ^ n
}

procedure!(trap);
