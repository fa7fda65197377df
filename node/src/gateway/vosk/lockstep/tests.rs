use proptest::prelude::*;
use starling_protocol::native::ErrorCode;

use super::*;

fn lockstep(source: u32, decode: u32) -> Lockstep {
    Lockstep::new(RateMap::new(source, decode).expect("rates"), false, false)
}

fn progress(until: u64, recovering: bool) -> SessionEvent {
    SessionEvent::Progress { until: SourceOffset(until), recovering }
}

fn partial(text: &str) -> SessionEvent {
    SessionEvent::Partial {
        segment: Segment(0),
        from: SourceOffset(0),
        until: SourceOffset(0),
        text: text.to_owned(),
    }
}

fn a_final(segment: u64, to: u64, text: &str, cause: CutCause) -> SessionEvent {
    SessionEvent::Final(Final {
        segment: Segment(segment),
        from: SourceOffset(0),
        to: SourceOffset(to),
        start: 0.0,
        end: 0.0,
        cause,
        text: text.to_owned(),
        words: Vec::new(),
        confidence: None,
        alternatives: Vec::new(),
        error: None,
    })
}

#[test]
fn a_message_waits_for_its_last_whole_step() {
    let mut replies = lockstep(16_000, 16_000);
    let awaited = replies.sent(2 * 4_000);
    assert_eq!(awaited, Awaited::Decoded(SourceOffset(3_200)));
    assert!(!replies.is_due(awaited));
    replies.take_in(progress(1_600, false));
    assert!(!replies.is_due(awaited));
    replies.take_in(partial("so far"));
    replies.take_in(progress(3_200, false));
    assert!(replies.is_due(awaited));
    assert_eq!(replies.next_reply().text, partial_reply("so far"));
}

#[test]
fn the_resamplers_look_ahead_is_not_waited_for() {
    // 100 ms at 8 kHz: the filter needs 16 frames more before the first step at 16 kHz is whole.
    let mut replies = lockstep(8_000, 16_000);
    let awaited = replies.sent(2 * 800);
    assert_eq!(awaited, Awaited::Decoded(SourceOffset(0)));
    assert!(replies.is_due(awaited));
    assert_eq!(replies.sent(2 * 800), Awaited::Decoded(SourceOffset(800)));
}

#[test]
fn rates_that_a_step_does_not_divide_are_followed_to_the_frame() {
    let mut replies = lockstep(11_025, 16_000);
    assert_eq!(replies.sent(2 * 11_025 * 10), Awaited::Decoded(SourceOffset(109_147)));
}

#[test]
fn short_messages_and_failovers_get_the_text_so_far_at_once() {
    let mut replies = lockstep(8_000, 8_000);
    replies.take_in(partial("one"));
    assert_eq!(replies.sent(2 * 799), Awaited::Nothing);
    let awaited = replies.sent(2 * 8_000);
    assert!(!replies.is_due(awaited));
    replies.take_in(progress(0, true));
    assert!(replies.is_due(awaited));
    assert_eq!(replies.next_reply().text, partial_reply("one"));
    let awaited = replies.sent(2 * 8_000);
    assert!(replies.is_due(awaited), "still recovering");
    replies.take_in(progress(8_000, false));
    assert!(!replies.is_due(awaited), "recovered");
}

#[test]
fn a_second_final_waits_and_the_end_joins_the_rest() {
    let mut replies = lockstep(8_000, 8_000);
    for (segment, text) in ["one", "two", "", "three"].into_iter().enumerate() {
        replies.take_in(a_final(segment as u64, 800, text, CutCause::Endpoint));
    }
    let first = replies.next_reply();
    assert_eq!((first.text.contains("\"one\""), first.confirm), (true, Some(Segment(0))));
    let rest = replies.joined_reply();
    assert!(rest.text.contains("\"two three\""), "{}", rest.text);
    assert_eq!(rest.confirm, Some(Segment(3)));
    assert_eq!(replies.joined_reply().text, "{\n  \"text\" : \"\"\n}");
}

#[test]
fn an_empty_final_gives_way_to_one_with_text_but_not_to_nothing() {
    let mut replies = lockstep(8_000, 8_000);
    replies.take_in(a_final(0, 800, "", CutCause::NoSpeech));
    replies.take_in(a_final(1, 1_600, "word", CutCause::Endpoint));
    let reply = replies.next_reply();
    assert!(reply.text.contains("word") && reply.confirm == Some(Segment(1)));
    replies.take_in(a_final(2, 2_400, "", CutCause::NoSpeech));
    assert_eq!(replies.next_reply().text, "{\n  \"text\" : \"\"\n}");
}

#[test]
fn finals_that_pile_up_are_joined() {
    let mut replies = lockstep(8_000, 8_000);
    for segment in 0..=MAX_WAITING_FINALS as u64 {
        replies.take_in(a_final(segment, 800, "w", CutCause::Endpoint));
    }
    assert!(replies.next_reply().text.contains("w w w"));
    assert_eq!(replies.next_reply().confirm, None);
}

#[test]
fn a_reset_waits_for_the_final_it_asked_for() {
    let mut replies = lockstep(8_000, 8_000);
    replies.take_in(a_final(0, 800, "before", CutCause::Endpoint));
    assert!(!replies.is_due(Awaited::Finalized));
    replies.take_in(a_final(1, 900, "", CutCause::Finalize));
    assert!(replies.is_due(Awaited::Finalized));
    assert_eq!(replies.joined_reply().confirm, Some(Segment(1)));
    // The grid now begins where the reset cut.
    assert_eq!(replies.sent(2 * 1_700), Awaited::Decoded(SourceOffset(1_700)));
}

#[test]
fn a_session_that_is_over_keeps_nobody_waiting() {
    let mut replies = lockstep(8_000, 8_000);
    let awaited = replies.sent(16_000);
    replies.take_in(SessionEvent::Failed(ErrorBody::new(ErrorCode::Internal, "broken")));
    replies.closed();
    assert!(replies.is_due(awaited) && replies.is_due(Awaited::Done));
    assert!(matches!(replies.ended(), Some(Ended::Failed(_))));
}

#[derive(Debug, Clone)]
enum Step {
    Sent(usize),
    Decoded { share: u64, recovering: bool },
    Partial(u8),
    Cut { share: u64, text: bool, cause: CutCause },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cause = prop::sample::select(vec![CutCause::Endpoint, CutCause::Pause, CutCause::Finalize]);
    let one = prop_oneof![
        5 => (0usize..40_000).prop_map(Step::Sent),
        4 => (0u64..=100, proptest::bool::weighted(0.1))
            .prop_map(|(share, recovering)| Step::Decoded { share, recovering }),
        2 => any::<u8>().prop_map(Step::Partial),
        3 => (0u64..=100, any::<bool>(), cause).prop_map(|(share, text, cause)| Step::Cut { share, text, cause }),
    ];
    proptest::collection::vec(one, 0..80)
}

proptest! {
    /// Whatever comes in whatever order: each final is told once and in order, what it confirms was told, none waits for ever, and
    /// a message is answered once everything before it is decoded.
    #[test]
    fn every_final_is_told_once_and_every_message_is_answered(
        source in prop::sample::select(vec![8_000u32, 11_025, 16_000, 44_100]),
        steps in steps(),
    ) {
        let mut replies = lockstep(source, 16_000);
        let (mut received, mut grid, mut segments) = (0u64, 0u64, 0u64);
        let (mut spoken, mut told, mut confirmed) = (Vec::new(), Vec::new(), None);
        let take = |reply: Reply, told: &mut Vec<String>, confirmed: &mut Option<Segment>| {
            if let Some(segment) = reply.confirm {
                assert!(*confirmed < Some(segment), "what was confirmed is not told again");
                *confirmed = Some(segment);
                let reply: serde_json::Value = serde_json::from_str(&reply.text).expect("JSON");
                let text = reply["text"].as_str().expect("a text");
                told.extend(text.split_whitespace().map(str::to_owned));
            }
        };
        for step in steps {
            match step {
                Step::Sent(bytes) => {
                    let bytes = bytes / 2 * 2;
                    received += bytes as u64 / 2;
                    let awaited = replies.sent(bytes);
                    if let Awaited::Decoded(until) = awaited {
                        prop_assert!(until.0 <= received.max(grid), "nothing is waited for that was not sent");
                    }
                    if replies.is_due(awaited) {
                        let waiting = replies.finals.len();
                        let reply = replies.next_reply();
                        prop_assert!(waiting == 0 || reply.confirm.is_some(), "a final that waits goes first");
                        take(reply, &mut told, &mut confirmed);
                    }
                    prop_assert!(replies.finals.len() <= MAX_WAITING_FINALS || replies.overflow().is_some());
                    // All of it decoded is enough, wherever the segment began.
                    let mut all = lockstep(source, 16_000);
                    (all.bytes, all.grid) = (replies.bytes, replies.grid);
                    all.take_in(progress(received, false));
                    prop_assert!(all.is_due(awaited), "{:?} of {}", awaited, received);
                }
                Step::Decoded { share, recovering } => {
                    replies.take_in(progress(received * share / 100, recovering));
                    prop_assert!(!recovering || replies.is_due(Awaited::Decoded(SourceOffset(u64::MAX))));
                }
                Step::Partial(n) => {
                    let text = n.to_string();
                    replies.take_in(partial(&text));
                    prop_assert_eq!(replies.text_so_far(), Reply { text: partial_reply(&text), confirm: None });
                }
                Step::Cut { share, text, cause } => {
                    let to = grid.max(received * share / 100);
                    let text = if text { format!("word{segments}") } else { String::new() };
                    spoken.extend((!text.is_empty()).then(|| text.clone()));
                    replies.take_in(a_final(segments, to, &text, cause));
                    prop_assert_eq!(replies.text_so_far().text, partial_reply(""), "what is open is another segment");
                    prop_assert!(cause != CutCause::Finalize || replies.is_due(Awaited::Finalized));
                    (grid, segments) = (to, segments + 1);
                }
            }
        }
        prop_assert!(!replies.is_due(Awaited::Done));
        replies.closed();
        prop_assert!(replies.is_due(Awaited::Done), "the end answers whoever waits");
        take(replies.joined_reply(), &mut told, &mut confirmed);
        prop_assert_eq!(told, spoken);
        prop_assert_eq!(confirmed, segments.checked_sub(1).map(Segment));
    }
}
