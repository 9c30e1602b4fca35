//! `endless(branch INT, id INT)`: writes, and then never ends by itself.

use volt_procedure::{procedure, statements, Error, Row};

statements! {
    TAKE_ALL = "UPDATE accounts SET balance = 0 WHERE branch = $1 AND id = $2";
}

fn endless(arguments: Row) -> Result<(), Error> {
    TAKE_ALL.execute(&arguments);
    loop {
        std::hint::spin_loop();
    }
}

procedure!(endless);
