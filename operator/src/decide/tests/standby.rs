//! A cluster that follows another one's archive, and its promotion.

use k8s_openapi::jiff::Timestamp;
use volt_proto::v1::{Following, GetStatusResponse, Restoration, Standby};

use super::founding::{named, of, say};
use super::{START, Story, condition};
use crate::crd::Phase;
use crate::decide::{Action, Decision, LATER, RestoreFrom, decide};

const SPEC: &str = "{partitions: 4, standby: {url: 's3://backups/shop'}}";
const URL: &str = "s3://backups/shop/1c5f8c0e-4a0c-4f9b-9b46-8f0a9d2f5a11";
const AS_OF: i64 = 1_769_860_800_000_000;

fn following() -> Following {
    Following {
        as_of_micros: AS_OF,
        lag_micros: 2_400_000,
        newest_micros: AS_OF + 1,
        behind_records: 5,
        problem: String::new(),
    }
}

fn standby() -> Standby {
    Standby {
        url: URL.to_owned(),
        ..Standby::default()
    }
}

/// A running standby, of whose nodes the second one sees to it.
fn standing_by(spec: &str) -> Story {
    let mut story = Story::running("{}");
    story.cluster.spec = serde_yaml::from_str(spec).expect("a spec");
    story.database(|database| {
        database.restored_micros = 5;
        database.standby = Some(standby());
    });
    tell(&mut story, |told| *told = following());
    story
}

fn tell(story: &mut Story, change: impl Fn(&mut Following)) {
    let second = story.world.answers.get_mut(&1).expect("a node");
    let standby = second.standby.as_mut().expect("it is one");
    change(standby.following.get_or_insert_with(following));
}

fn promotes(story: &mut Story, is_immediate: bool) {
    story.database(|database| {
        let standby = database.standby.as_mut().expect("it is one");
        (standby.is_promoting, standby.is_immediate) = (true, is_immediate);
    });
}

fn has(decision: &Decision, type_: &str) -> bool {
    let mut conditions = decision.status.conditions.iter();
    conditions.any(|condition| condition.type_ == type_)
}

#[test]
fn a_standby_is_founded_as_one() {
    let mut story = named(SPEC);
    let initialise = Action::Initialise {
        ordinal: 0,
        cluster_uuid: "fresh".to_owned(),
        partitions: 4,
        restore: Some(RestoreFrom {
            url: "s3://backups/shop".to_owned(),
            until_micros: 0,
            is_standby: true,
        }),
    };
    let decision = story.goes_on();
    assert_eq!(decision.actions, std::slice::from_ref(&initialise));
    assert!(!has(&decision, "Restored"), "{:?}", decision.status.conditions);
    // From the beginning, so that nobody takes it for promoted.
    assert_eq!(
        decision.status.standby.as_ref().expect("it is to be one").url,
        "s3://backups/shop"
    );

    // What can't be followed says so.
    story.world.refused.action = Some("there is no archive".to_owned());
    let (word, why) = condition(&story.goes_on(), "Standby");
    assert_eq!(word, "False/Restoring");
    assert!(why.contains("there is no archive"), "{why}");
    story.world.refused.action = None;

    let mut answer = of("fresh");
    answer.nodes = vec![super::node(1)];
    answer.awaits_restoration = true;
    say(&mut story, &answer);
    assert_eq!(story.goes_on().actions, [initialise], "a crash may lie between the two");

    (answer.awaits_restoration, answer.restored_micros) = (false, 5);
    answer.standby = Some(standby());
    answer.restoration = Some(Restoration {
        partitions: 4,
        left: 3,
        problem: String::new(),
    });
    say(&mut story, &answer);
    let decision = story.goes_on();
    assert_eq!(decision.actions, []);
    assert_eq!(decision.status.phase, Phase::Restoring);
    let why = "3 of 4 partitions are not restored yet".to_owned();
    assert_eq!(condition(&decision, "Standby"), ("False/Restoring".to_owned(), why));

    answer.restoration = None;
    say(&mut story, &answer);
    let decision = story.goes_on();
    assert_eq!(condition(&decision, "Initialised").0, "True/AsWanted");
    assert_eq!(condition(&decision, "Standby").0, "True/Following");
    assert!(!has(&decision, "Restored"), "it says more of itself");
}

#[test]
fn how_far_it_is_is_said_and_why_it_does_not_get_on() {
    let mut story = standing_by(SPEC);
    let decision = story.decision();
    assert_eq!((&decision.actions[..], decision.again_after), (&[][..], LATER));
    assert_eq!(decision.status.phase, Phase::Standby);
    assert_eq!(condition(&decision, "Ready").0, "True/AsWanted");
    let (word, why) = condition(&decision, "Standby");
    assert_eq!(word, "True/Following");
    assert_eq!(why, format!("it follows {URL}: as of 2026-01-31T12:00:00Z, 2 s ago"));
    let standby = decision.status.standby.expect("it is one");
    assert_eq!((standby.lag_seconds, standby.lag_records), (Some(2), Some(5)));
    assert_eq!(standby.as_of.expect("a moment").0.as_microsecond(), AS_OF);

    tell(&mut story, |told| told.problem = "no answer".to_owned());
    let decision = story.decision();
    let (word, why) = condition(&decision, "Standby");
    assert_eq!(word, "True/NotFollowing");
    assert!(why.contains("as of 2026-01-31T12:00:00Z, 2 s ago: no answer"), "{why}");
    assert_eq!(condition(&decision, "Ready").0, "True/AsWanted", "it can be read");
    assert!(decision.again_after < LATER);

    // A long step, during which nobody reads.
    tell(&mut story, |told| {
        (told.as_of_micros, told.lag_micros, told.problem) = (0, 0, String::new())
    });
    let decision = story.decision();
    assert_eq!(condition(&decision, "Standby").0, "True/CatchingUp");
    assert_eq!(condition(&decision, "Ready").0, "False/StandbyUnreadable");
    assert_eq!(decision.status.phase, Phase::Unavailable);
    let standby = decision.status.standby.expect("it is one");
    assert_eq!((standby.as_of, standby.lag_records), (None, Some(5)));
}

#[test]
fn figures_alone_are_not_written_at_each_look() {
    let mut story = standing_by(SPEC);
    let first = story.goes_on().status;
    tell(&mut story, |told| told.as_of_micros += 3_000_000);
    let at = |story: &Story, seconds: i64| {
        let now = Timestamp::from_second(START + 3600 + seconds).expect("a time");
        decide(&story.cluster, &story.world, now).status
    };
    assert_eq!(at(&story, 9), first, "each change of the status asks for a look");
    let later = at(&story, 10);
    assert_ne!(later.standby, first.standby);
    tell(&mut story, |told| told.problem = "no answer".to_owned());
    assert_ne!(at(&story, 1), first, "a turn is said at once");

    // Who sees to it died, and nobody answers for it yet.
    let mut story = standing_by(SPEC);
    let first = story.goes_on().status;
    story.database(|database| database.standby = Some(standby()));
    let decision = story.decision();
    assert_eq!(decision.status, first);
    assert!(decision.again_after < LATER);
    story.world.answers.clear();
    assert_eq!(condition(&story.decision(), "Standby").0, "True/Following");
    assert_eq!(story.decision().status.standby, first.standby);
}

#[test]
fn it_is_promoted_when_that_is_asked_for_until_it_is_on_record() {
    let promote = |is_immediate| [Action::PromoteStandby { is_immediate }];
    let mut story = standing_by("{standby: {url: 's3://backups/shop', promote: true}}");
    assert_eq!(story.goes_on().actions, promote(false));
    let decision = story.goes_on();
    assert_eq!(decision.actions, promote(false), "the answer may be lost");
    assert_eq!(condition(&decision, "Standby").0, "True/Promoting");

    promotes(&mut story, false);
    tell(&mut story, |told| told.problem = "no answer".to_owned());
    story.cluster.status.as_mut().expect("a status").standby = None;
    let decision = story.goes_on();
    assert_eq!(decision.actions, []);
    assert!(decision.again_after < LATER);
    let (word, why) = condition(&decision, "Standby");
    assert_eq!(word, "True/Promoting");
    assert!(why.ends_with("2 s ago: no answer"), "{why}");

    // The archive is lost: it need not be waited for.
    story.cluster.spec.standby.as_mut().expect("it is one").immediate = true;
    assert_eq!(story.goes_on().actions, promote(true));
    promotes(&mut story, true);
    assert_eq!(story.goes_on().actions, []);

    story.database(|database| {
        database.standby = None;
        database.restored_micros = AS_OF;
    });
    let decision = story.goes_on();
    assert_eq!(decision.actions, []);
    assert_eq!(
        (decision.status.phase, decision.status.standby.as_ref()),
        (Phase::Running, None)
    );
    let (word, why) = condition(&decision, "Standby");
    assert_eq!(word, "False/Promoted");
    assert!(why.contains("as of 2026-01-31T12:00:00Z"), "{why}");

    // It stays so, whoever answers, and when the spec says nothing of it any more.
    let answers = std::mem::take(&mut story.world.answers);
    let decision = story.goes_on();
    assert_eq!(condition(&decision, "Standby").0, "False/Promoted");
    assert_eq!(decision.status.standby, None);
    story.world.answers = answers;
    story.cluster.spec.standby = None;
    assert_eq!(condition(&story.goes_on(), "Standby").0, "False/Promoted");
    assert!(!has(&story.goes_on(), "Restored"));
}

#[test]
fn nobody_is_promoted_unasked_and_who_promotes_it_by_sql_is_seen() {
    let mut story = standing_by(SPEC);
    assert_eq!(story.goes_on().actions, []);
    promotes(&mut story, false);
    let decision = story.goes_on();
    assert_eq!(
        (&decision.actions[..], condition(&decision, "Standby").0.as_str()),
        (&[][..], "True/Promoting")
    );
    story.database(|database: &mut GetStatusResponse| database.standby = None);
    assert_eq!(condition(&story.goes_on(), "Standby").0, "False/Promoted");

    // Volumes of a standby that a VoltCluster left which is not there any more.
    let mut story = standing_by("{}");
    let decision = story.goes_on();
    assert_eq!(
        (&decision.actions[..], condition(&decision, "Standby").0.as_str()),
        (&[][..], "True/Following")
    );
    assert!(!has(&Story::running("{}").goes_on(), "Standby"), "it never was one");
}
