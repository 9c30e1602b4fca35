//! What the clients do: registers and a ledger, from several sessions at once, on whichever node answers.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;
use volt_tests::history::{Action, Answer, Operation};

use crate::accounts::{self, ACCOUNTS};
use crate::counters::{self, COUNTERS, Count};
use crate::determinism::mix;
use crate::movers;
use crate::shared::{Phase, Shared};
use crate::sql::{Failure, Session};
use crate::voter;

/// Registers, from 1.
pub const REGISTERS: u64 = 6;
/// Sessions at a time.
pub const CLIENTS: u32 = 4;

/// One client, until the workload is over.
pub async fn client(shared: Shared, number: u32, seed: u64) {
    let random = StdRng::seed_from_u64(mix(seed ^ (u64::from(number) << 32)));
    let mut client = Worker {
        shared,
        number,
        random,
        last_seen: [(0, 0); REGISTERS as usize + 1],
        counting: None,
        rows_move: movers::moves_tables(seed),
        in_blocks: movers::moves_all(seed),
    };
    while client.is_on() {
        let node = client.shared.a_member(&mut client.random);
        match Session::open(node).await {
            Some(session) => client.work(&session).await,
            None => client.think(50).await,
        }
    }
    let mut run = client.shared.run();
    run.unanswered.extend(client.counting);
}

struct Worker {
    shared: Shared,
    number: u32,
    random: StdRng,
    /// What each register held when this client last read it, and its version.
    last_seen: [(u64, i64); REGISTERS as usize + 1],
    /// A request to count that nobody has answered: it is repeated until somebody does.
    counting: Option<Count>,
    /// The registers get other partitions meanwhile.
    rows_move: bool,
    /// Money is moved by blocks rather than by procedures.
    in_blocks: bool,
}

impl Worker {
    fn is_on(&self) -> bool {
        self.shared.run().phase == Phase::Work
    }

    async fn think(&mut self, max_millis: u64) {
        sleep(Duration::from_millis(self.random.random_range(1..=max_millis))).await;
    }

    /// Uses the session until it is of no more use; now and then leaves a good one for another node.
    async fn work(&mut self, session: &Session) {
        while self.is_on() && self.random.random_range(0..200) != 0 {
            let went_on = match self.random.random_range(0..20) {
                0..8 => self.on_register(session).await,
                18 => self.vote(session).await,
                8..10 => self.on_accounts(session).await,
                10..13 => self.count(session).await,
                13 => self.read_all(session).await,
                14..18 => self.add(session).await,
                _ => self.add_pair(session).await,
            };
            if !went_on {
                return;
            }
            self.think(25).await;
        }
    }

    async fn on_register(&mut self, session: &Session) -> bool {
        let register = self.random.random_range(1..=REGISTERS);
        let action = match self.random.random_range(0..10) {
            0..5 => Action::Read,
            5..8 => Action::Write(self.shared.unique()),
            _ => Action::Exchange {
                from: self.last_seen[register as usize].0,
                to: self.shared.unique(),
            },
        };
        let mut operation = self.send(action);
        let (_, version) = self.last_seen[register as usize];
        let result = match action {
            Action::Read => self.look_at(session, register).await,
            Action::Exchange { to, .. } if version > 0 && self.random.random_range(0..2) == 0 => {
                match session.exchange_version(register, version, to).await {
                    // A row that has moved has another version, and the value that it had.
                    Ok(Answer::Nothing) if self.rows_move => Ok(Answer::Refused),
                    answer => answer,
                }
            }
            _ => session.run(register, action).await,
        };
        operation.answer = match &result {
            Ok(answer) => *answer,
            Err(Failure::Refused(_)) => Answer::Refused,
            Err(Failure::Unknown) => Answer::Unknown,
        };
        self.shared.answered(register, operation);
        self.goes_on(result).await
    }

    async fn look_at(&mut self, session: &Session, register: u64) -> Result<Answer, Failure> {
        let found = session.read(register).await?;
        if let Some(seen) = found {
            self.last_seen[register as usize] = seen;
        }
        Ok(Answer::Found(found.map(|(value, _)| value)))
    }

    /// Counts, or asks again for what was not answered; now and then also for what was.
    async fn count(&mut self, session: &Session) -> bool {
        let count = match self.counting.take() {
            Some(count) => count,
            None => {
                let first = self.random.random_range(1..=COUNTERS);
                let second = self.random.random_range(1..=COUNTERS);
                let counters = if first == second {
                    vec![first]
                } else {
                    vec![first, second]
                };
                let key = self.shared.unique();
                Count { key, counters }
            }
        };
        self.counting = Some(count.clone());
        let result = match self.random.random_range(0..4) {
            0 => self.ask_twice(session, &count).await,
            _ => counters::ask(session, &count).await,
        };
        self.shared
            .note(&format!("client {} {count:?} -> {:?}", self.number, result.is_ok()));
        if let Ok(number) = result {
            self.shared.counted(&count, number);
            self.counting = None;
            if self.random.random_range(0..4) == 0 {
                let again = counters::ask(session, &count).await;
                assert!(
                    again.as_ref().map_or(true, |again| *again == number),
                    "{count:?} was number {number}, and is {again:?}"
                );
                return self.goes_on(again).await;
            }
        }
        self.goes_on(result).await
    }

    /// The same request by way of two nodes at a time, as if the network had delivered it twice.
    async fn ask_twice(&mut self, session: &Session, count: &Count) -> Result<i64, Failure> {
        let node = self.shared.a_member(&mut self.random);
        let Some(other) = Session::open(node).await else {
            return counters::ask(session, count).await;
        };
        let (first, second) = tokio::join!(counters::ask(session, count), counters::ask(&other, count));
        if let (Ok(first), Ok(second)) = (&first, &second) {
            assert_eq!(first, second, "invariant 7: {count:?} has two numbers");
        }
        match (first, second) {
            (Err(_), Ok(second)) => Ok(second),
            (first, _) => first,
        }
    }

    /// Moves money between accounts, or looks at all of them.
    async fn on_accounts(&mut self, session: &Session) -> bool {
        let source = self.random.random_range(1..=ACCOUNTS);
        let target = self.random.random_range(1..=ACCOUNTS);
        let result = match self.random.random_range(0..4) {
            0 => accounts::look(session.client()).await,
            _ => accounts::move_one(session.client(), &self.shared, (source, target), self.in_blocks).await,
        };
        self.shared.note(&format!(
            "client {} accounts {source} {target} -> {:?}",
            self.number,
            result.is_ok()
        ));
        self.goes_on(result).await
    }

    async fn vote(&mut self, session: &Session) -> bool {
        let result = voter::call(session.client(), &self.shared, &mut self.random).await;
        self.goes_on(result).await
    }

    async fn read_all(&mut self, session: &Session) -> bool {
        let operation = self.send(Action::Read);
        let result = session.read_all().await;
        if let Ok(rows) = &result {
            for register in 1..=REGISTERS {
                let found = rows.iter().find(|(id, _)| *id == register).map(|(_, value)| *value);
                self.shared.answered(
                    register,
                    Operation {
                        answer: Answer::Found(found),
                        ..operation
                    },
                );
            }
        }
        self.goes_on(result).await
    }

    async fn add(&mut self, session: &Session) -> bool {
        let id = self.shared.unique();
        self.shared.run().ledger.attempt(id);
        let result = session.add(id).await;
        if result.is_ok() {
            self.shared.run().ledger.acknowledge(id);
        }
        self.shared
            .note(&format!("client {} adds {id} -> {}", self.number, result.is_ok()));
        self.inserted(result).await
    }

    async fn add_pair(&mut self, session: &Session) -> bool {
        let (first, second) = (self.shared.unique(), self.shared.unique());
        {
            let mut run = self.shared.run();
            run.pairs.push((first, second));
            run.ledger.attempt(first);
            run.ledger.attempt(second);
        }
        let result = session.add_pair(first, second).await;
        if result.is_ok() {
            let mut run = self.shared.run();
            run.ledger.acknowledge(first);
            run.ledger.acknowledge(second);
            self.shared.pairs_acknowledged.send_replace((first, second));
        }
        self.shared.note(&format!(
            "client {} adds {first} and {second} -> {}",
            self.number,
            result.is_ok()
        ));
        self.inserted(result).await
    }

    fn send(&self, action: Action) -> Operation {
        let sent = self.shared.moment();
        Operation {
            client: self.number,
            sent,
            answered: sent,
            action,
            answer: Answer::Unknown,
        }
    }

    /// Whether the session is still of use after an INSERT into the ledger, whose ids nobody else has.
    async fn inserted(&mut self, result: Result<(), Failure>) -> bool {
        if let Err(Failure::Refused(state)) = &result {
            assert_ne!(state, "23505", "a statement was carried out twice");
        }
        self.goes_on(result).await
    }

    /// Whether the session is still of use.
    async fn goes_on<T>(&mut self, result: Result<T, Failure>) -> bool {
        match result {
            Ok(_) => true,
            Err(Failure::Unknown) => false,
            Err(Failure::Refused(_)) => {
                self.think(100).await;
                self.random.random_range(0..3) != 0
            }
        }
    }
}
