//! Single statements: each is a transaction by itself, or a part of a block.

use rand::Rng;
use rand::rngs::StdRng;
use tokio_postgres::Row;

use super::schema::Calls;
use super::{BUCKET, BUCKETS, ERAS, FIRST_OF_ROWS, OBJECTS_OF_AN_ERA, Session, Told, outcome};
use crate::serializable::history::{Step, Transaction};

impl Session {
    /// One statement, or a call, committed by itself.
    pub(super) async fn single(&self, random: &mut StdRng, transaction: &mut Transaction) -> Told<()> {
        let steps = &mut transaction.steps;
        let told = match (random.random_range(0..16), &self.statements.calls) {
            (0, _) => self.append_texts(random, steps).await,
            (1, _) => self.insert_pair(random, steps).await,
            (2..4, Some(calls)) => self.push(calls, random, steps).await,
            (4..6, Some(calls)) => self.look(calls, random, steps).await,
            (6..8, Some(calls)) => self.both(calls, random, steps).await,
            (8, _) => self.append_text(random, steps).await,
            _ => self.statement(random, steps).await,
        };
        transaction.outcome = outcome(&told);
        told
    }

    /// A statement of one partition, or a scan of several. Not one that must know what was there.
    pub(super) async fn statement(&self, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        match random.random_range(0..10) {
            0..3 => self.read_text(self.text(random), steps).await,
            3..5 => self.read_rows(self.rows(random), steps).await,
            5 => self.read_texts(steps).await,
            6 => self.insert(random, steps).await,
            7..9 => self.scan(random, steps).await,
            _ => self.scan_several(random, steps).await,
        }
    }

    // ---- Lists

    pub(super) async fn read_text(&self, list: u64, steps: &mut Vec<Step>) -> Told<()> {
        let row = self.query_one(&self.statements.read_text, &[&(list as i64)]).await?;
        let values = numbers(row.get(0));
        steps.push(Step::Read { list, values });
        Ok(())
    }

    /// All of the era.
    async fn read_texts(&self, steps: &mut Vec<Step>) -> Told<()> {
        let from = self.recorder.era() * OBJECTS_OF_AN_ERA;
        let (from, to) = (from as i64, (from + OBJECTS_OF_AN_ERA) as i64);
        let rows = self.query(&self.statements.read_texts, &[&from, &to]).await?;
        assert_eq!(
            rows.len(),
            OBJECTS_OF_AN_ERA as usize,
            "invariant 1: texts are never removed"
        );
        steps.extend(rows.iter().map(text_read));
        Ok(())
    }

    pub(super) async fn read_rows(&self, list: u64, steps: &mut Vec<Step>) -> Told<()> {
        let rows = self.query(&self.statements.read_rows, &[&(list as i64)]).await?;
        let values = rows.iter().map(|row| number(row, 0)).collect();
        steps.push(Step::Read { list, values });
        Ok(())
    }

    /// Whatever is there.
    pub(super) async fn append_text(&self, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        let (list, value) = (self.text(random), self.recorder.unique());
        steps.push(Step::Append { list, value });
        let append = &self.statements.append_text;
        let changed = self.execute(append, &[&(list as i64), &item(value)]).await?;
        assert_eq!(changed, 1, "invariant 1: texts are never removed");
        Ok(())
    }

    async fn append_texts(&self, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        let (one, other) = self.two_texts(random);
        let value = self.recorder.unique();
        steps.extend([one, other].map(|list| Step::Append { list, value }));
        let append = &self.statements.append_texts;
        let (one, other) = (one as i64, other as i64);
        let changed = self.execute(append, &[&one, &other, &item(value)]).await?;
        assert_eq!(changed, 2, "invariant 1: texts are never removed");
        Ok(())
    }

    fn two_texts(&self, random: &mut StdRng) -> (u64, u64) {
        let one = self.text(random);
        let first = one - one % OBJECTS_OF_AN_ERA;
        let other = first + (one + random.random_range(1..OBJECTS_OF_AN_ERA)) % OBJECTS_OF_AN_ERA;
        (one, other)
    }

    // ---- Procedures

    async fn push(&self, calls: &Calls, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        let (list, value) = (self.rows(random), self.recorder.unique());
        steps.push(Step::Append { list, value });
        self.execute(&calls.push, &[&(list as i64), &(value as i64)]).await?;
        Ok(())
    }

    async fn look(&self, calls: &Calls, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        let (one, other) = self.two_texts(random);
        let value = self.recorder.unique();
        steps.push(Step::Append { list: other, value });
        let parameters = (one as i64, other as i64, item(value));
        let row = self
            .query_one(&calls.look, &[&parameters.0, &parameters.1, &parameters.2])
            .await?;
        let read = |list, place| Step::Read {
            list,
            values: numbers(row.get(place)),
        };
        // It read before it wrote.
        steps.splice(0..0, [read(one, 0), read(other, 1)]);
        Ok(())
    }

    async fn both(&self, calls: &Calls, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        let (list, text, value) = (self.rows(random), self.text(random), self.recorder.unique());
        steps.extend([list, text].map(|list| Step::Append { list, value }));
        let parameters = (list as i64, text as i64, value as i64, item(value));
        self.execute(
            &calls.both,
            &[&parameters.0, &parameters.1, &parameters.2, &parameters.3],
        )
        .await?;
        Ok(())
    }

    // ---- Sets

    async fn insert(&self, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        let (set, value) = (self.object(random), self.member(random));
        steps.push(Step::Insert { set, value });
        let insert = &self.statements.insert;
        self.execute(insert, &[&(set as i64), &(value as i64)]).await?;
        Ok(())
    }

    async fn insert_pair(&self, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        let pair = [(); 2].map(|()| (self.object(random), self.member(random)));
        steps.extend(pair.map(|(set, value)| Step::Insert { set, value }));
        let [one, other] = pair.map(|(set, value)| (set as i64, value as i64));
        let insert = &self.statements.insert_pair;
        self.execute(insert, &[&one.0, &one.1, &other.0, &other.1]).await?;
        Ok(())
    }

    async fn scan(&self, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        let (set, (from, to)) = (self.object(random), range(random));
        let scan = &self.statements.scan;
        let rows = self.query(scan, &[&(set as i64), &(from as i64), &(to as i64)]).await?;
        steps.push(Step::Scan {
            sets: set..set + 1,
            values: from..to,
            found: rows.iter().map(|row| number(row, 0)).collect(),
        });
        Ok(())
    }

    async fn scan_several(&self, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        let first = self.recorder.era() * OBJECTS_OF_AN_ERA;
        let (sets, (from, to)) = (first..first + OBJECTS_OF_AN_ERA, range(random));
        let bounds = (sets.start as i64, sets.end as i64, from as i64, to as i64);
        let scan = &self.statements.scan_several;
        let rows = self.query(scan, &[&bounds.0, &bounds.1, &bounds.2, &bounds.3]).await?;
        steps.push(Step::Scan {
            sets,
            values: from..to,
            found: rows.iter().map(|row| number(row, 0)).collect(),
        });
        Ok(())
    }

    // ---- At the end

    /// All objects of all eras, in one transaction.
    pub(super) async fn everything(&self, steps: &mut Vec<Step>) -> Told<()> {
        self.answer(self.client.batch_execute("BEGIN READ ONLY")).await?;
        let texts = self.answer(self.client.query("SELECT k, v FROM texts", &[])).await?;
        assert_eq!(
            texts.len() as u64,
            ERAS * OBJECTS_OF_AN_ERA,
            "invariant 1: texts are never removed"
        );
        steps.extend(texts.iter().map(text_read));
        let rows = "SELECT k, value FROM entries ORDER BY k, position";
        let rows = self.answer(self.client.query(rows, &[])).await?;
        for list in (0..ERAS * OBJECTS_OF_AN_ERA).map(|object| FIRST_OF_ROWS + object) {
            let of_list = rows.iter().filter(|row| number(row, 0) == list);
            let values = of_list.map(|row| number(row, 1)).collect();
            steps.push(Step::Read { list, values });
        }
        let members = self.answer(self.client.query("SELECT id FROM members", &[])).await?;
        steps.push(Step::Scan {
            sets: 0..u64::MAX,
            values: 0..u64::MAX,
            found: members.iter().map(|row| number(row, 0)).collect(),
        });
        self.answer(self.client.batch_execute("COMMIT")).await
    }
}

fn text_read(row: &Row) -> Step {
    Step::Read {
        list: number(row, 0),
        values: numbers(row.get(1)),
    }
}

fn number(row: &Row, place: usize) -> u64 {
    row.get::<_, i64>(place) as u64
}

/// As it is appended to a text.
pub fn item(value: u64) -> String {
    format!(",{value}")
}

fn numbers(text: &str) -> Vec<u64> {
    let items = text.split(',').filter(|item| !item.is_empty());
    items
        .map(|item| item.parse().unwrap_or_else(|_| panic!("{text:?} is no list")))
        .collect()
}

fn range(random: &mut StdRng) -> (u64, u64) {
    let from = random.random_range(0..BUCKETS);
    let to = random.random_range(from + 1..=BUCKETS);
    (from * BUCKET, to * BUCKET)
}
