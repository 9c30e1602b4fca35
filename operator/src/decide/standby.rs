//! A cluster that follows an archive, until it is promoted.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use volt_proto::v1;

use super::initialise::{RESTORING, Restoration, is_initialised, restoration};
use super::{Action, Scene, Work};
use crate::crd::{StandbyStatus, VoltClusterStatus};
use crate::resources::RESTORE as MOUNTED;

/// The condition of a cluster that is a standby, or was one.
pub(super) const CONDITION: &str = "Standby";
/// Reasons of it.
const FOLLOWING: &str = "Following";
const CATCHING_UP: &str = "CatchingUp";
pub(crate) const NOT_FOLLOWING: &str = "NotFollowing";
const PROMOTING: &str = "Promoting";
pub(crate) const PROMOTED: &str = "Promoted";

/// How long what is said of a standby stays as it is while nothing turns, seconds: it would be otherwise at each look, and each change of
/// the status asks for another one.
const STAYS_S: i64 = 10;

/// Whether a cluster is a standby.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Standing<'a> {
    /// It never was one.
    None,
    /// It is to be one, or nobody says whether it still is.
    Unknown,
    /// It is one.
    Is(&'a v1::Standby),
    /// It was one, up to this moment of the archived cluster, in microseconds since 1970.
    Was(i64),
}

pub(super) fn standing<'a>(scene: &Scene<'a>) -> Standing<'a> {
    if let Some(standby) = scene.database.and_then(|database| database.standby.as_ref()) {
        return Standing::Is(standby);
    }
    if scene.cluster.spec.standby.is_none() && known(scene).is_none() {
        return Standing::None;
    }
    let began = scene.database.filter(|database| !database.awaits_restoration);
    match began.map_or(0, |database| database.restored_micros) {
        0 => Standing::Unknown,
        moment => Standing::Was(moment),
    }
}

/// What was said of it.
fn known<'a>(scene: &'a Scene<'_>) -> Option<&'a Condition> {
    let mut before = scene.before.conditions.iter();
    before.find(|condition| condition.type_ == CONDITION)
}

/// How far it is, by who knows; of two who think that they lead, by who has seen more.
fn following<'a>(scene: &Scene<'a>) -> Option<&'a v1::Following> {
    let database = scene.database.filter(|database| database.standby.is_some())?;
    let answers = scene.world.answers.values();
    let answers = answers.filter(|answer| answer.cluster_uuid == database.cluster_uuid);
    let told = answers.filter_map(|answer| answer.standby.as_ref()?.following.as_ref());
    told.max_by_key(|following| (following.newest_micros, following.as_of_micros))
}

/// The request to promote it, as long as it is not on record.
pub(super) fn promotion(scene: &Scene<'_>) -> Option<Action> {
    let wanted = scene.cluster.spec.standby.as_ref().filter(|standby| standby.promote)?;
    let Standing::Is(standby) = standing(scene) else {
        return None;
    };
    let is_asked = standby.is_promoting && (standby.is_immediate || !wanted.immediate);
    let is_immediate = wanted.immediate;
    (!is_asked).then_some(Action::PromoteStandby { is_immediate })
}

/// Why nobody can read a standby whose nodes and partitions are all there: it is between two moments.
pub(super) fn unreadable(scene: &Scene<'_>) -> Option<String> {
    let following = following(scene).filter(|following| following.as_of_micros == 0)?;
    Some(match following.problem.as_str() {
        "" => "the standby takes over more than one transaction may change, and can't be read meanwhile".to_owned(),
        why => format!("the standby is between two moments, and does not get on: {why}"),
    })
}

/// Nothing is wrong with it, and nothing is about to come.
pub(super) fn is_calm(scene: &Scene<'_>) -> bool {
    match standing(scene) {
        Standing::None | Standing::Was(_) => true,
        Standing::Unknown => false,
        Standing::Is(standby) => {
            let goes_on = |following: &v1::Following| following.problem.is_empty() && following.as_of_micros != 0;
            !standby.is_promoting && following(scene).is_some_and(goes_on)
        }
    }
}

/// What is said of it.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    pub(super) is_standby: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Said {
    fn new(is_standby: bool, reason: &str, message: String) -> Self {
        let reason = reason.to_owned();
        Self {
            is_standby,
            reason,
            message,
        }
    }
}

/// Writes how far it is into the status; what its condition says. None: nothing.
pub(super) fn write(scene: &Scene<'_>, status: &mut VoltClusterStatus, founding: &Work) -> Option<Said> {
    let (said, figures) = match standing(scene) {
        Standing::None => return None,
        Standing::Was(moment) => {
            let message = format!(
                "it is promoted: a cluster of its own since it was as of {}",
                time(moment)?
            );
            return Some(Said::new(false, PROMOTED, message));
        }
        Standing::Unknown => unknown(scene, founding),
        Standing::Is(standby) => (said(scene, standby), Some(figures(scene, &standby.url))),
    };
    let before = known(scene).zip(scene.before.standby.as_ref());
    let stays = before.filter(|(condition, standby)| {
        let age_s = scene.now.as_second() - standby.observed_at.0.as_second();
        let has_figures = standby.lag_records.is_some() || following(scene).is_none();
        has_figures && condition.reason == said.reason && (0..STAYS_S).contains(&age_s)
    });
    match stays {
        Some((condition, standby)) => {
            status.standby = Some(standby.clone());
            let message = match said.reason == RESTORING {
                true => said.message,
                false => condition.message.clone(),
            };
            Some(Said { message, ..said })
        }
        None => {
            status.standby = figures;
            Some(said)
        }
    }
}

/// Of one that is to be founded. Who does not answer is what it was.
fn unknown(scene: &Scene<'_>, founding: &Work) -> (Said, Option<StandbyStatus>) {
    if let Some(known) = known(scene).filter(|_| is_initialised(&scene.before)) {
        let said = Said::new(known.status == "True", &known.reason, known.message.clone());
        return (said, scene.before.standby.clone());
    }
    let remark = founding.remark.as_ref().map(|(_, why)| why.as_str());
    let why = remark.unwrap_or("what it follows is not on record yet");
    let spec = scene.cluster.spec.standby.as_ref();
    let figures = spec.map(|standby| figures(scene, &standby.url(MOUNTED)));
    (Said::new(false, RESTORING, scene.with_refusal(why)), figures)
}

fn said(scene: &Scene<'_>, standby: &v1::Standby) -> Said {
    if let Restoration::Runs(why) = restoration(scene) {
        return Said::new(false, RESTORING, why);
    }
    let following = following(scene);
    let problem = following.map_or("", |following| following.problem.as_str());
    let how_far = following.and_then(how_far);
    if promotion(scene).is_some() {
        let message = scene.with_refusal("its promotion is being asked for");
        return Said::new(true, PROMOTING, message);
    }
    if standby.is_promoting {
        let message = "it is becoming a cluster of its own".to_owned();
        let parts = [Some(message), how_far, some(problem)];
        return Said::new(true, PROMOTING, joined(parts));
    }
    let url = &standby.url;
    match (following, how_far) {
        (None, _) => match known(scene).filter(|known| known.status == "True") {
            Some(known) => Said::new(true, &known.reason, known.message.clone()),
            None => Said::new(true, FOLLOWING, format!("it follows {url}; no node says yet how far")),
        },
        (Some(_), how_far) if !problem.is_empty() => {
            let parts = [Some(format!("it does not get on with {url}")), how_far, some(problem)];
            Said::new(true, NOT_FOLLOWING, joined(parts))
        }
        (Some(_), Some(how_far)) => Said::new(true, FOLLOWING, format!("it follows {url}: {how_far}")),
        (Some(following), None) => {
            let records = following.behind_records;
            let message = format!("it takes over {records} records of {url}, and can't be read meanwhile");
            Said::new(true, CATCHING_UP, message)
        }
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn joined(parts: [Option<String>; 3]) -> String {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(": ")
}

/// `as of 2026-11-29T06:31:07Z, 2 s ago`.
fn how_far(following: &v1::Following) -> Option<String> {
    let moment = Some(following.as_of_micros).filter(|moment| *moment != 0)?;
    let lag_s = following.lag_micros / 1_000_000;
    Some(format!("as of {}, {lag_s} s ago", time(moment)?))
}

/// A moment, to the second.
fn time(micros: i64) -> Option<Timestamp> {
    Timestamp::from_second(micros.div_euclid(1_000_000)).ok()
}

/// What is known now; while nobody says so, what was known.
fn figures(scene: &Scene<'_>, url: &str) -> StandbyStatus {
    match (following(scene), scene.before.standby.as_ref()) {
        (None, Some(before)) if before.url == url => before.clone(),
        (following, _) => figures_of(scene, url, following),
    }
}

fn figures_of(scene: &Scene<'_>, url: &str, following: Option<&v1::Following>) -> StandbyStatus {
    let readable = following.filter(|following| following.as_of_micros != 0);
    StandbyStatus {
        url: url.to_owned(),
        as_of: readable.and_then(|following| time(following.as_of_micros)).map(Time),
        lag_seconds: readable.map(|following| whole(following.lag_micros / 1_000_000)),
        lag_records: following.map(|following| whole(following.behind_records)),
        observed_at: Time(scene.now),
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
