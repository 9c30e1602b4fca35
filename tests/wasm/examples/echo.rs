//! Returns its arguments as they came, of whatever types; INOUT all of them.

use volt_procedure::{emit, procedure, Error, Row};

fn echo(arguments: Row) -> Result<(), Error> {
    emit(&arguments);
    Ok(())
}

procedure!(echo);
