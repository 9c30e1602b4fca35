//! The tables, the procedures and the statements.

use tokio_postgres::{Client, Error, Statement};

use super::{ERAS, OBJECTS_OF_AN_ERA};

const TABLES: [&str; 3] = [
    "CREATE TABLE texts (k BIGINT PRIMARY KEY, v VARCHAR NOT NULL) WITH REPLICATION = 2",
    "CREATE TABLE entries (k BIGINT, position BIGINT, value BIGINT NOT NULL, PRIMARY KEY (k, position)) WITH REPLICATION = 2",
    "CREATE TABLE members (s BIGINT, id BIGINT, PRIMARY KEY (s, id)) WITH REPLICATION = 2",
];

/// Inside one partition.
const PUSH: &str = "CREATE PROCEDURE push(list BIGINT, item BIGINT) PARTITION ON TABLE entries COLUMN k AS $$
DECLARE
  there BIGINT;
BEGIN
  SELECT count(*) INTO STRICT there FROM entries WHERE k = list;
  INSERT INTO entries VALUES (list, there + 1, item);
END $$";

/// Reads two texts, and writes one of them: two of these, crosswise, are a write skew.
const LOOK: &str = "CREATE PROCEDURE look(one BIGINT, other BIGINT, item VARCHAR, OUT a VARCHAR, OUT b VARCHAR) AS $$
BEGIN
  SELECT v INTO STRICT a FROM texts WHERE k = one;
  SELECT v INTO STRICT b FROM texts WHERE k = other;
  UPDATE texts SET v = b || item WHERE k = other;
END $$";

/// A range and a key.
const BOTH: &str = "CREATE PROCEDURE both(list BIGINT, number BIGINT, item BIGINT, appended VARCHAR) AS $$
DECLARE
  there BIGINT;
BEGIN
  SELECT count(*) INTO STRICT there FROM entries WHERE k = list;
  INSERT INTO entries VALUES (list, there + 1, item);
  UPDATE texts SET v = v || appended WHERE k = number;
END $$";

/// Whether clients call procedures. A table that one uses can't get other partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Procedures {
    /// They are there, and are called.
    Called,
    /// There are none.
    Absent,
}

/// Makes tables, procedures and all texts that will be needed, empty.
pub async fn make(client: &Client, procedures: Procedures) -> Result<(), Error> {
    let called: &[&str] = match procedures {
        Procedures::Called => &[PUSH, LOOK, BOTH],
        Procedures::Absent => &[],
    };
    for statement in TABLES.iter().chain(called) {
        client.batch_execute(statement).await?;
    }
    let texts: Vec<String> = (0..ERAS * OBJECTS_OF_AN_ERA)
        .map(|text| format!("({text}, '')"))
        .collect();
    let insert = format!("INSERT INTO texts VALUES {}", texts.join(", "));
    client.batch_execute(&insert).await
}

/// What a session has prepared.
pub struct Statements {
    pub read_text: Statement,
    pub read_texts: Statement,
    pub append_text: Statement,
    pub append_texts: Statement,
    pub set_text: Statement,
    pub read_rows: Statement,
    pub add_row: Statement,
    pub insert: Statement,
    pub insert_pair: Statement,
    pub scan: Statement,
    pub scan_several: Statement,
    /// If there are procedures.
    pub calls: Option<Calls>,
}

/// The calls of the procedures.
pub struct Calls {
    pub push: Statement,
    pub look: Statement,
    pub both: Statement,
}

impl Calls {
    async fn prepare(client: &Client) -> Result<Self, Error> {
        Ok(Self {
            push: client.prepare("CALL push($1, $2)").await?,
            look: client.prepare("CALL look($1, $2, $3, NULL, NULL)").await?,
            both: client.prepare("CALL both($1, $2, $3, $4)").await?,
        })
    }
}

impl Statements {
    pub async fn prepare(client: &Client, procedures: Procedures) -> Result<Self, Error> {
        let prepare = |text| client.prepare(text);
        Ok(Self {
            read_text: prepare("SELECT v FROM texts WHERE k = $1").await?,
            read_texts: prepare("SELECT k, v FROM texts WHERE k >= $1 AND k < $2").await?,
            append_text: prepare("UPDATE texts SET v = v || $2 WHERE k = $1").await?,
            append_texts: prepare("UPDATE texts SET v = v || $3 WHERE k IN ($1, $2)").await?,
            set_text: prepare("UPDATE texts SET v = $2 WHERE k = $1").await?,
            read_rows: prepare("SELECT value FROM entries WHERE k = $1 ORDER BY position").await?,
            add_row: prepare("INSERT INTO entries VALUES ($1, $2, $3)").await?,
            insert: prepare("INSERT INTO members VALUES ($1, $2)").await?,
            insert_pair: prepare("INSERT INTO members VALUES ($1, $2), ($3, $4)").await?,
            scan: prepare("SELECT id FROM members WHERE s = $1 AND id >= $2 AND id < $3").await?,
            scan_several: prepare("SELECT id FROM members WHERE s >= $1 AND s < $2 AND id >= $3 AND id < $4").await?,
            calls: match procedures {
                Procedures::Called => Some(Calls::prepare(client).await?),
                Procedures::Absent => None,
            },
        })
    }
}
