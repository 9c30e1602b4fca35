//! `richest(branch INT, many INT) RETURNS TABLE (id INT, balance BIGINT)`: accounts of a branch, in an order of its own.

use volt_procedure::{emit, notice, procedure, statements, Error, Level, Row};

statements! {
    ACCOUNTS = "SELECT id, balance FROM accounts WHERE branch = $1";
}

fn richest(arguments: Row) -> Result<(), Error> {
    let many: i32 = arguments.get(1)?;
    let mut accounts = Vec::new();
    for row in ACCOUNTS.query(&arguments[..1]) {
        let (id, balance): (i32, i64) = (row.get(0)?, row.get(1)?);
        accounts.push((balance, id));
    }
    notice(Level::Notice, &format!("{} accounts", accounts.len()));
    accounts.sort_by(|a, b| b.cmp(a));
    for (balance, id) in accounts.into_iter().take(many.max(0) as usize) {
        emit(&[id.into(), balance.into()]);
    }
    Ok(())
}

procedure!(richest);
