use super::super::syntax::{Parsed, parse};
use super::*;

fn read(sql: &str) -> Result<LinkPlan, String> {
    match parse(sql) {
        Ok(Parsed::Link(plan)) => Ok(plan),
        Ok(_) => panic!("{sql} is another statement"),
        Err(error) => Err(format!("{} {}", error.sqlstate, error.message)),
    }
}

#[test]
fn statements_are_read() {
    let sql = "CREATE REPLICATION LINK Reports TO 'postgres://volt@there:5433/volt' FOR TABLE orders, \"Lines\" \
         WITH (conflict = 'column changed_at', password_file = '/etc/volt/password');";
    let plan = LinkPlan::Create {
        name: "reports".to_owned(),
        if_not_exists: false,
        target: LinkTarget {
            url: "postgres://volt@there:5433/volt".to_owned(),
            password_file: Some("/etc/volt/password".to_owned()),
        },
        tables: vec!["orders".to_owned(), "Lines".to_owned()],
        greatest: Some("changed_at".to_owned()),
    };
    assert_eq!(read(sql), Ok(plan));
    let sql =
        "create replication link if not exists a to 'postgres://u@h/d' for tables t with (conflict = last_writer)";
    assert!(matches!(
        read(sql),
        Ok(LinkPlan::Create {
            if_not_exists: true,
            greatest: None,
            ..
        })
    ));
    let (name, if_exists) = ("a".to_owned(), true);
    assert_eq!(
        read("DROP REPLICATION LINK IF EXISTS a"),
        Ok(LinkPlan::Drop { name, if_exists })
    );
    for (word, is_paused) in [("PAUSE", true), ("resume", false)] {
        let name = "a".to_owned();
        let sql = format!("ALTER REPLICATION LINK a {word}");
        assert_eq!(read(&sql), Ok(LinkPlan::Pause { name, is_paused }));
    }
    assert!(matches!(
        parse("APPLY REPLICATION CHANGES $1"),
        Ok(Parsed::ApplyChanges)
    ));
}

#[test]
fn whatever_else_is_refused() {
    let create = "CREATE REPLICATION LINK a TO";
    for (sql, why) in [
        ("CREATE REPLICATION LINK", "42601 syntax error at end of input"),
        (
            "CREATE REPLICATION LINK a FOR TABLE t",
            "42601 syntax error at or near \"FOR\"",
        ),
        (
            "DROP REPLICATION LINK a CASCADE",
            "42601 syntax error at or near \"CASCADE\"",
        ),
        (
            "ALTER REPLICATION LINK a STOP",
            "42601 syntax error at or near \"STOP\"",
        ),
        (
            &format!("{create} 'postgres://u@h/d' FOR TABLE t WITH (speed = 9)"),
            "42601 unrecognized option \"speed\"",
        ),
        (
            &format!("{create} 'postgres://u@h/d' FOR TABLE t WITH (conflict = 'coin')"),
            "22023 invalid value for option \"conflict\": \"coin\"",
        ),
        (
            &format!("{create} 'postgres://u@h/d' FOR TABLE t WITH (password_file = 'here')"),
            "22023 password_file: \"here\" is no absolute path",
        ),
        (
            &format!("{create} 'http://h' FOR TABLE t"),
            "22023 the link's address: it is no postgres:// URL",
        ),
        (
            &format!("{create} 'postgres://u:hush@h/d' FOR TABLE t"),
            "22023 the link's address: it has a password in it, which others can see; name a file that has it",
        ),
    ] {
        assert_eq!(read(sql), Err(why.to_owned()), "{sql}");
    }
}
