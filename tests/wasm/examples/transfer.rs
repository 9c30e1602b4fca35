//! `transfer(source_branch INT, source INT, target_branch INT, target INT, amount BIGINT, OUT balance BIGINT)`: moves money
//! from one account to another. With PARTITION ON TABLE accounts COLUMN branch it does so within one partition.

use volt_procedure::{emit, procedure, statements, Error, Row};

statements! {
    BALANCE = "SELECT balance FROM accounts WHERE branch = $1 AND id = $2";
    BOOK = "UPDATE accounts SET balance = balance + $3 WHERE branch = $1 AND id = $2";
}

fn transfer(arguments: Row) -> Result<(), Error> {
    let (source_branch, source): (i32, i32) = (arguments.get(0)?, arguments.get(1)?);
    let (target_branch, target): (i32, i32) = (arguments.get(2)?, arguments.get(3)?);
    let amount: i64 = arguments.get(4)?;
    let balance: i64 = match BALANCE.first(&[source_branch.into(), source.into()]) {
        Some(row) => row.get(0)?,
        None => return Err(no_account(source_branch, source)),
    };
    if balance < amount {
        return Err(Error {
            hint: Some("Transfer less.".to_owned()),
            ..Error::new(
                "P0001",
                format!("account {}/{} has {}, not {}", source_branch, source, balance, amount),
            )
        });
    }
    BOOK.execute(&[source_branch.into(), source.into(), (-amount).into()]);
    if BOOK.execute(&[target_branch.into(), target.into(), amount.into()]) == 0 {
        return Err(no_account(target_branch, target));
    }
    emit(&[(balance - amount).into()]);
    Ok(())
}

fn no_account(branch: i32, id: i32) -> Error {
    Error::new("P0002", format!("there is no account {}/{}", branch, id))
}

procedure!(transfer);
