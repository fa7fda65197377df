use super::super::caller::{Heard, Outcome};
use super::*;

fn setting() -> Setting {
    Setting {
        audio: "a.wav".to_owned(),
        audio_seconds: 1.0,
        clients: 2,
        requests: 3,
        servers: vec!["ws://a".to_owned()],
        elapsed: Duration::from_secs(4),
        interrupted: false,
    }
}

fn heard(text: &str, reconnects: u64) -> Outcome {
    Outcome::Done(Heard { text: text.to_owned(), reconnects, audio_seconds: 1.0, ..Heard::default() })
}

fn report(outcomes: Vec<Outcome>, expected: Option<&str>) -> Report {
    let mut tally = Tally::default();
    for outcome in outcomes {
        tally.add(outcome);
    }
    Report::new(setting(), &tally, expected)
}

fn exit(report: &Report) -> Exit {
    report.verdict().map_or_else(|(exit, _)| exit, |()| Exit::Ok)
}

#[test]
fn all_alike_is_well() {
    let report = report(vec![heard("a b c", 0), heard("a b c", 2)], None);
    assert_eq!(exit(&report), Exit::Ok);
    assert_eq!((report.reconnects, report.words.of_each, report.words.compared_with), (2, 3, "first_answer"));
}

#[test]
fn a_disturbed_answer_is_compared_with_the_undisturbed_one_that_came_later() {
    let report = report(vec![heard("a c c", 1), heard("a b c", 0), heard("a b c", 1)], None);
    let Words { lost, twice_or_wrong, differing_sessions, .. } = report.words;
    assert_eq!((lost, twice_or_wrong, differing_sessions), (1, 1, 1));
    assert_eq!(exit(&report), Exit::Partial);
}

#[test]
fn what_is_expected_wins_over_what_came() {
    let report = report(vec![heard("a b", 0)], Some("a b c\n"));
    assert_eq!((report.words.lost, exit(&report)), (1, Exit::Partial));
}

#[test]
fn each_way_to_fail_has_its_code() {
    let failed = || Outcome::Failed("gave_up".to_owned(), "it gave up".to_owned());
    let busy = || Outcome::Refused("busy".to_owned());
    for (outcomes, expected) in [
        (vec![heard("a", 0), failed()], Exit::Partial),
        (vec![failed()], Exit::Unavailable),
        (vec![heard("a", 0), busy()], Exit::TryAgain),
        (vec![busy()], Exit::TryAgain),
        (vec![heard("", 0)], Exit::Data),
        (
            vec![Outcome::Done(Heard { text: "a".to_owned(), gap_frames: 1, ..Heard::default() })],
            Exit::Partial,
        ),
        // Ended before anything was done: nothing was lost.
        (vec![], Exit::Ok),
    ] {
        assert_eq!(exit(&report(outcomes, None)), expected);
    }
}

#[test]
fn ever_new_transcripts_are_counted_and_not_kept() {
    let outcomes: Vec<_> = (0..500).map(|number| heard(&format!("word {number}"), 0)).collect();
    let mut tally = Tally::default();
    for outcome in outcomes {
        let _: Option<String> = tally.add(outcome);
    }
    assert!(tally.texts.len() < 100, "{}", tally.texts.len());
    let report = Report::new(setting(), &tally, None);
    // All but the first.
    assert_eq!(report.words.differing_sessions, 499);
}

#[test]
fn the_table_names_reasons() {
    let outcomes =
        vec![heard("a", 0), Outcome::Refused("over_quota".to_owned()), Outcome::Refused("busy".to_owned())];
    let table = report(outcomes, None).table();
    assert!(table.contains("sessions refused                  2 (busy 1, over_quota 1)"), "{table}");
    assert!(table.contains("first audio to first partial      -"), "{table}");
}
