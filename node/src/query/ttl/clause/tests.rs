//! The clause, read and refused.

use super::*;
use crate::query::syntax::{Parsed, TableClauses, parse};

fn clauses(behind: &str) -> Result<TableClauses, SqlError> {
    match parse(&format!("CREATE TABLE t (id INT PRIMARY KEY, at TIMESTAMP) {behind}"))? {
        Parsed::CreateTable(_, clauses) => Ok(clauses),
        _ => panic!("another statement"),
    }
}

fn altered(sql: &str) -> Result<Option<TtlPlan>, SqlError> {
    match parse(sql)? {
        Parsed::Ttl(plan) => Ok(Some(plan)),
        _ => Ok(None),
    }
}

fn ttl(seconds: i64, column: &str, batch_size: u32, max_frequency: u32) -> TtlClause {
    TtlClause {
        lifetime_micros: seconds * SECOND,
        column: column.to_owned(),
        batch_size,
        max_frequency,
    }
}

#[test]
fn a_clause_is_read_in_any_order_with_its_defaults() {
    for (behind, expected) in [
        ("USING TTL 10 ON COLUMN at", ttl(10, "at", 1_000, 10)),
        ("using ttl 10 seconds on column AT", ttl(10, "at", 1_000, 10)),
        ("USING TTL 2 MINUTES ON COLUMN \"At\"", ttl(120, "At", 1_000, 10)),
        ("USING TTL 1 HOUR ON COLUMN at BATCH_SIZE 5", ttl(3_600, "at", 5, 10)),
        (
            "USING TTL 36500 DAYS ON COLUMN at",
            ttl(36_500 * 86_400, "at", 1_000, 10),
        ),
        (
            "USING TTL 3 ON COLUMN at MAX_FREQUENCY 100 BATCH_SIZE 10000",
            ttl(3, "at", 10_000, 100),
        ),
    ] {
        assert_eq!(clauses(behind).expect(behind).ttl, Some(expected), "{behind}");
    }
    for behind in [
        "WITH REPLICATION = 2 PARTITION BY (id) USING TTL 10 ON COLUMN at",
        "USING TTL 10 ON COLUMN at WITH REPLICATION = 2 PARTITION BY (id)",
        "PARTITION BY (id) USING TTL 10 ON COLUMN at BATCH_SIZE 1000 WITH REPLICATION = 2",
    ] {
        let clauses = clauses(behind).expect(behind);
        assert_eq!(clauses.ttl, Some(ttl(10, "at", 1_000, 10)), "{behind}");
        assert_eq!(
            (clauses.replication, clauses.partition_by.as_deref()),
            (Some(2), Some("id"))
        );
    }
}

#[test]
fn what_is_no_clause_is_refused_where_it_goes_wrong() {
    let near = |word: &str| format!("syntax error at or near \"{word}\"");
    let end = "syntax error at end of input".to_owned();
    let bounds = "TTL must be between 1 second and 36500 days".to_owned();
    for (behind, code, message) in [
        ("USING TTL", "42601", end.clone()),
        ("USING TTL x", "42601", near("x")),
        ("USING TTL -5 ON COLUMN at", "42601", near("-")),
        ("USING TTL 1.5 ON COLUMN at", "42601", near("1.5")),
        ("USING TTL 5 WEEKS ON COLUMN at", "42601", near("WEEKS")),
        ("USING TTL 5 ON at", "42601", near("at")),
        ("USING TTL 5 ON COLUMN", "42601", end),
        (
            "USING TTL 5 ON COLUMN at BATCH_SIZE 1 BATCH_SIZE 2",
            "42601",
            near("BATCH_SIZE"),
        ),
        (
            "USING TTL 5 ON COLUMN at USING TTL 5 ON COLUMN at",
            "42601",
            near("USING"),
        ),
        ("USING TTL 0 ON COLUMN at", "22023", bounds.clone()),
        ("USING TTL 36501 DAYS ON COLUMN at", "22023", bounds.clone()),
        ("USING TTL 99999999999999999999 ON COLUMN at", "22023", bounds),
        (
            "USING TTL 5 ON COLUMN at BATCH_SIZE 0",
            "22023",
            "BATCH_SIZE must be between 1 and 10000".to_owned(),
        ),
        (
            "USING TTL 5 ON COLUMN at MAX_FREQUENCY 101",
            "22023",
            "MAX_FREQUENCY must be between 1 and 100".to_owned(),
        ),
    ] {
        let error = clauses(behind).expect_err(behind);
        assert_eq!((error.sqlstate.as_str(), error.message), (code, message), "{behind}");
        assert!(error.position.is_some(), "{behind}");
    }
}

#[test]
fn alter_table_is_ours_only_if_it_is_about_a_ttl() {
    let plan = |sql: &str| altered(sql).expect(sql).expect(sql);
    let set = plan("ALTER TABLE IF EXISTS ONLY public.T USING TTL 5 ON COLUMN at");
    assert_eq!((set.table.as_str(), set.if_exists), ("t", true));
    assert_eq!(set.ttl, Some(ttl(5, "at", 1_000, 10)));
    let dropped = plan("alter table \"T\" drop ttl;");
    assert_eq!(
        (dropped.table.as_str(), dropped.if_exists, dropped.ttl),
        ("T", false, None)
    );
    for other in [
        "ALTER TABLE t ADD COLUMN ttl INT",
        "ALTER TABLE t DROP COLUMN ttl",
        "ALTER TABLE t DROP COLUMN \"ttl\"",
    ] {
        assert!(altered(other).expect(other).is_none(), "{other}");
    }
    let schema = altered("ALTER TABLE other.t DROP TTL")
        .err()
        .map(|error| error.sqlstate);
    assert_eq!(schema.as_deref(), Some("3F000"));
    for wrong in [
        "ALTER TABLE t DROP TTL CASCADE",
        "ALTER TABLE t USING TTL 5",
        "ALTER TABLE t USING",
    ] {
        assert_eq!(
            altered(wrong).err().map(|error| error.sqlstate).as_deref(),
            Some("42601"),
            "{wrong}"
        );
    }
}
