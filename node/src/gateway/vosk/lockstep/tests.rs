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
