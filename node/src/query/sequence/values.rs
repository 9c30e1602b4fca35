//! The values of a statement's calls, which follow its client's parameters.

use std::borrow::Cow;
use std::collections::BTreeMap;

use volt_engine::SequenceId;
use volt_engine::plan::eval::cast_value;
use volt_engine::value::{DataType, Value};

use super::Call;
use crate::error::SqlError;
use crate::query::SqlEngine;
use crate::query::planned::Planned;
use crate::statement::SessionValues;
use crate::txn::Taken;

/// All parameters of a statement, at hand without waiting.
pub(in crate::query) struct AtHand<'a> {
    pub(in crate::query) parameters: Cow<'a, [Value]>,
    taken: Vec<(SequenceId, Taken)>,
}

impl SqlEngine {
    /// All parameters of a statement. It waits for values if there are none at hand.
    pub(in crate::query) async fn with_values<'a>(
        &self,
        planned: &Planned,
        parameters: &'a [Value],
        session: &SessionValues,
    ) -> Result<Cow<'a, [Value]>, SqlError> {
        let (calls, types) = planned.calls();
        if calls.is_empty() {
            return Ok(Cow::Borrowed(parameters));
        }
        let mut wanted: BTreeMap<SequenceId, u32> = BTreeMap::new();
        for call in calls {
            if let Call::Next(sequence) = call {
                *wanted.entry(*sequence).or_default() += 1;
            }
        }
        let mut all = parameters.to_vec();
        for (call, data_type) in calls.iter().zip(types) {
            let value = match *call {
                Call::Next(sequence) => {
                    let wanted = wanted.get_mut(&sequence);
                    let left = wanted.map_or(1, |left| std::mem::replace(left, *left - 1));
                    let value = self.coordinator.participant.sequences.take(sequence, left).await?;
                    session.note(sequence, value);
                    value
                }
                Call::Current(sequence) => self.current(session, sequence)?,
                Call::Last => last(session)?,
            };
            all.push(as_type(value, *data_type)?);
        }
        Ok(Cow::Owned(all))
    }

    /// The same without waiting; None: not all values are at hand.
    pub(in crate::query) fn values_at_hand<'a>(
        &self,
        planned: &Planned,
        parameters: &'a [Value],
        session: &SessionValues,
    ) -> Option<Result<AtHand<'a>, SqlError>> {
        let (calls, types) = planned.calls();
        let mut at_hand = AtHand {
            parameters: Cow::Borrowed(parameters),
            taken: Vec::new(),
        };
        if calls.is_empty() {
            return Some(Ok(at_hand));
        }
        let mut all = parameters.to_vec();
        let mut last_taken = None;
        for (call, data_type) in calls.iter().zip(types) {
            let value = match *call {
                Call::Next(sequence) => {
                    let Some(taken) = self.coordinator.participant.sequences.try_take(sequence) else {
                        self.give_back(at_hand);
                        return None;
                    };
                    at_hand.taken.push((sequence, taken));
                    last_taken = Some(taken.value);
                    Ok(taken.value)
                }
                Call::Current(sequence) => {
                    let mut taken = at_hand.taken.iter().rev();
                    match taken.find(|(of, _)| *of == sequence) {
                        Some((_, taken)) => Ok(taken.value),
                        None => self.current(session, sequence),
                    }
                }
                Call::Last => last_taken.map_or_else(|| last(session), Ok),
            };
            match value.and_then(|value| as_type(value, *data_type)) {
                Ok(value) => all.push(value),
                Err(error) => return Some(Err(error)),
            }
        }
        at_hand.parameters = Cow::Owned(all);
        Some(Ok(at_hand))
    }

    /// The statement has run: the session has taken these.
    pub(in crate::query) fn note_taken(&self, at_hand: AtHand<'_>, session: &SessionValues) {
        for (sequence, taken) in at_hand.taken {
            session.note(sequence, taken.value);
        }
    }

    /// The statement has not run.
    pub(in crate::query) fn give_back(&self, at_hand: AtHand<'_>) {
        // In the order in which they will be taken again.
        for (sequence, taken) in at_hand.taken.into_iter().rev() {
            self.coordinator.participant.sequences.give_back(sequence, taken);
        }
    }

    fn current(&self, session: &SessionValues, sequence: SequenceId) -> Result<i64, SqlError> {
        session.current(sequence).ok_or_else(|| {
            let map = self.metadata.map();
            let name = map
                .sequences
                .get(&sequence)
                .map_or("?", |sequence| sequence.name.as_str());
            let message = format!("currval of sequence \"{name}\" is not yet defined in this session");
            SqlError::new("55000", message)
        })
    }
}

fn last(session: &SessionValues) -> Result<i64, SqlError> {
    let undefined = || SqlError::new("55000", "lastval is not yet defined in this session");
    session.last().ok_or_else(undefined)
}

/// A value as its place in the statement wants it.
fn as_type(value: i64, data_type: DataType) -> Result<Value, SqlError> {
    Ok(cast_value(Value::BigInt(value), data_type)?)
}
