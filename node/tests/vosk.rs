//! vosk-server's protocol over real sockets: how many replies, which, and when.

mod common;

use std::time::Duration;

use common::events::{a_final, done, partial, progress};
use common::*;
use futures_util::{SinkExt, StreamExt};
use starling_node::config::GatewaySettings;
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::vosk::partial_reply;
use starling_protocol::{CutCause, Segment};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

const EMPTY_FINAL: &str = "{\n  \"text\" : \"\"\n}";

/// 100 ms at the dialect's default rate.
const STEP: usize = 1_600;

#[tokio::test]
async fn each_message_gets_one_reply_and_settings_get_none() {
    let mut node = FakeNode::start().await;
    let mut socket = node.vosk().await;
    send_text(&mut socket, r#"{"config":{"sample_rate":"16000","words":1,"max_alternatives":0}}"#).await;
    assert!(node.no_session(), "a session is opened at the first audio");
    // Two steps of 100 ms, so that the one in the resampler's view is whole.
    send_audio(&mut socket, 6_400).await;
    let mut session = node.session().await;
    assert_eq!(session.request().sample_rate, 16_000);
    assert!(session.request().options.words && session.request().linger.is_zero());
    session.expect(Seen::Audio(6_400)).await;
    session.say(partial("one"));
    session.say(progress(3_200, false));
    assert_eq!(text(&mut socket).await, partial_reply("one"));

    send_audio(&mut socket, 0).await;
    assert_eq!(text(&mut socket).await, partial_reply("one"), "no audio");
    send_text(&mut socket, "nonsense").await;
    assert_eq!(text(&mut socket).await, partial_reply("one"), "nonsense");
    send_text(&mut socket, r#"{"config":{"sample_rate":8000}}"#).await;

    send_audio(&mut socket, 3_200).await;
    session.expect(Seen::Audio(3_200)).await;
    session.say(a_final(0, 4_800, "one two", CutCause::Endpoint));
    assert!(text(&mut socket).await.contains("\"one two\""));
    session.expect(Seen::Confirm(Segment(0))).await;

    send_text(&mut socket, r#"{"reset":1}"#).await;
    session.expect(Seen::Finalize).await;
    session.say(a_final(1, 4_800, "", CutCause::Finalize));
    assert_eq!(text(&mut socket).await, EMPTY_FINAL);
    session.expect(Seen::Confirm(Segment(1))).await;

    send_text(&mut socket, r#"{"eof" : 1}"#).await;
    session.expect(Seen::End).await;
    session.say(a_final(2, 4_800, "three", CutCause::Endpoint));
    session.say(a_final(3, 4_800, "four", CutCause::End));
    session.say(done(4, 4_800));
    assert!(text(&mut socket).await.contains("\"three four\""));
    assert_eq!(closed(&mut socket).await.0, 1000);
    session.expect(Seen::Confirm(Segment(3))).await;
    session.expect(Seen::Abandoned).await;
}

#[tokio::test]
async fn the_rate_is_8000_when_nothing_is_said_and_eof_before_audio_is_an_empty_final() {
    let mut node = FakeNode::start().await;
    let mut socket = node.vosk().await;
    send_audio(&mut socket, 100).await;
    let session = node.session().await;
    assert_eq!(session.request().sample_rate, 8_000);
    assert!(session.request().options.words, "as the original has it");
    assert_eq!(text(&mut socket).await, partial_reply(""), "under 100 ms is not waited for");

    let mut socket = node.vosk().await;
    for eof in ["{\"reset\":1}", "{\"eof\":1}"] {
        send_text(&mut socket, eof).await;
        assert_eq!(text(&mut socket).await, EMPTY_FINAL);
    }
    assert_eq!(closed(&mut socket).await.0, 1000);
    assert!(node.no_session());
}

#[tokio::test]
async fn words_are_there_unless_nobody_wants_them_or_the_model_has_none() {
    let mut node = FakeNode::start().await;
    for (config, words) in [
        (r#"{"config":{"words":0}}"#, false),
        (r#"{"config":{"words":1}}"#, true),
        (r#"{"config":{"model":"other"}}"#, false),
        // Whoever asks is told, if only in the log, that there are none.
        (r#"{"config":{"model":"other","words":true}}"#, true),
    ] {
        let mut socket = node.vosk().await;
        send_text(&mut socket, config).await;
        send_audio(&mut socket, 100).await;
        assert_eq!(node.session().await.request().options.words, words, "{config}");
    }
}

#[tokio::test]
async fn a_client_that_writes_without_reading_gets_every_reply_in_the_end() {
    let mut node = FakeNode::start().await;
    let (mut writing, mut reading) = node.vosk().await.split();
    let messages = 200;
    let sender = tokio::spawn(async move {
        for _ in 0..messages {
            writing.send(Message::binary(vec![0; STEP])).await.expect("sent");
        }
        writing.send(Message::text("{\"eof\":1}")).await.expect("sent");
        writing
    });
    let mut session = node.session().await;
    let player = tokio::spawn(async move {
        let mut frames = 0;
        loop {
            match session.next().await {
                Seen::Audio(bytes) => {
                    frames += bytes as u64 / 2;
                    session.say(progress(frames, false));
                }
                Seen::End => {
                    session.say(a_final(0, frames, "all", CutCause::End));
                    session.say(done(1, frames));
                }
                Seen::Abandoned => return,
                _ => {}
            }
        }
    });
    let mut replies = 0;
    let last = loop {
        match in_time(reading.next()).await {
            Some(Ok(Message::Text(reply))) => {
                replies += 1;
                if reply.contains("\"text\"") {
                    break reply;
                }
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(replies, messages + 1);
    assert!(last.contains("all"));
    let _writing = sender.await.expect("sent all");
    in_time(player).await.expect("freed");
}

#[tokio::test]
async fn eof_and_a_shut_socket_are_served_and_freed() {
    let mut node = FakeNode::start().await;
    let mut socket = node.vosk().await;
    send_audio(&mut socket, STEP).await;
    let mut session = node.session().await;
    session.say(progress(800, false));
    text(&mut socket).await;
    send_text(&mut socket, "{\"eof\" : 1}").await;
    drop(socket);
    session.wait_for(&Seen::End).await;
    session.say(a_final(0, 800, "bye", CutCause::End));
    session.say(done(1, 800));
    session.wait_for(&Seen::Abandoned).await;
}

#[tokio::test]
async fn a_shut_writing_half_still_gets_the_final() {
    let mut node = FakeNode::start().await;
    let mut socket = node.vosk().await;
    send_audio(&mut socket, STEP).await;
    let mut session = node.session().await;
    session.say(progress(800, false));
    text(&mut socket).await;
    send_text(&mut socket, "{\"eof\" : 1}").await;
    let stream = socket.get_mut();
    stream.shutdown().await.expect("half closed");
    session.wait_for(&Seen::End).await;
    session.say(a_final(0, 800, "bye", CutCause::End));
    session.say(done(1, 800));
    assert!(text(&mut socket).await.contains("bye"));
    assert_eq!(closed(&mut socket).await.0, 1000);
    session.wait_for(&Seen::Abandoned).await;
}

#[tokio::test]
async fn a_failover_and_a_late_decoder_keep_nobody_waiting() {
    let settings =
        GatewaySettings { vosk_reply_timeout: Duration::from_millis(200), ..GatewaySettings::default() };
    let mut node = FakeNode::with(settings).await;
    let mut socket = node.vosk().await;
    send_audio(&mut socket, 100).await;
    let session = node.session().await;
    text(&mut socket).await;
    session.say(partial("heard"));
    send_audio(&mut socket, 10 * STEP).await;
    assert_eq!(text(&mut socket).await, partial_reply("heard"), "after the timeout");
    session.say(progress(0, true));
    send_audio(&mut socket, 10 * STEP).await;
    assert_eq!(text(&mut socket).await, partial_reply("heard"), "while recovering");
}

#[tokio::test]
async fn a_full_journal_does_not_stop_finals_from_being_confirmed() {
    let mut node = FakeNode::start().await;
    let mut socket = node.vosk().await;
    send_audio(&mut socket, 100).await;
    let mut session = node.session().await;
    session.expect(Seen::Audio(100)).await;
    text(&mut socket).await;
    let all = session.room.available_permits();
    session.room.forget_permits(all);
    send_audio(&mut socket, STEP).await;
    for segment in 0..9 {
        session.say(a_final(segment, 50, "w", CutCause::Endpoint));
    }
    session.expect(Seen::Confirm(Segment(8))).await;
    session.room.add_permits(STEP);
    session.expect(Seen::Audio(STEP)).await;
    assert!(text(&mut socket).await.contains("w w w w w w w w w"));
}

#[tokio::test]
async fn refusals_close_with_a_code_and_a_reason() {
    let node = FakeNode::start().await;
    let mut closings = Vec::new();
    for config in [
        r#"{"config":{"sample_rate":4000}}"#,
        r#"{"config":{"sample_rate":16000.5}}"#,
        r#"{"config":{"max_alternatives":-1}}"#,
        r#"{"config":{"phrase_list":["yes",""]}}"#,
    ] {
        let mut socket = node.vosk().await;
        send_text(&mut socket, config).await;
        send_audio(&mut socket, STEP).await;
        closings.push(closed(&mut socket).await);
    }
    let mut busy = ErrorBody::new(ErrorCode::Busy, "all 8 slots are in use");
    busy.retry_after_ms = Some(2_000);
    for error in [
        busy,
        ErrorBody::new(ErrorCode::UnknownModel, "no model is called \"x\""),
        ErrorBody::new(ErrorCode::ShuttingDown, "the node is stopping"),
    ] {
        node.refuse(error);
        let mut socket = node.vosk().await;
        send_audio(&mut socket, STEP).await;
        closings.push(closed(&mut socket).await);
    }
    let listing: Vec<String> = closings.iter().map(|(code, reason)| format!("{code} {reason}")).collect();
    insta::assert_snapshot!(listing.join("\n"));
}

#[tokio::test]
async fn a_session_that_fails_between_two_messages_is_told_at_once() {
    let mut node = FakeNode::start().await;
    let mut socket = node.vosk().await;
    send_audio(&mut socket, 100).await;
    let mut session = node.session().await;
    text(&mut socket).await;
    session.say(starling_actors::SessionEvent::Failed(ErrorBody::new(
        ErrorCode::IdleTimeout,
        "no audio for 600 s",
    )));
    assert_eq!(closed(&mut socket).await, (1008, "no audio for 600 s".to_owned()));
    session.wait_for(&Seen::Abandoned).await;
}

#[tokio::test]
async fn a_text_with_a_hole_in_it_does_not_end_as_one_without() {
    let mut node = FakeNode::start().await;
    let mut socket = node.vosk().await;
    send_audio(&mut socket, 100).await;
    let session = node.session().await;
    text(&mut socket).await;
    let starling_actors::SessionEvent::Final(mut last) = a_final(0, 50, "", CutCause::GivenUp) else {
        panic!("a final");
    };
    last.error = Some("three decoders died of it".to_owned());
    session.say(starling_actors::SessionEvent::Final(last));
    session.say(a_final(1, 100, "the rest", CutCause::End));
    session.say(done(2, 100));
    send_text(&mut socket, "{\"eof\" : 1}").await;
    assert!(text(&mut socket).await.contains("the rest"));
    assert_eq!(closed(&mut socket).await, (1011, "three decoders died of it".to_owned()));
}

#[tokio::test]
async fn a_message_over_1_mib_closes_1009_and_the_client_gets_to_know() {
    let mut node = FakeNode::start().await;
    let mut socket = node.vosk().await;
    send_audio(&mut socket, 1 << 20).await;
    let mut session = node.session().await;
    session.say(progress(1 << 19, false));
    text(&mut socket).await;
    // The server may stop reading in the middle of it.
    let _ = in_time(socket.send(Message::binary(vec![0; (1 << 20) + 1]))).await;
    assert_eq!(closed(&mut socket).await.0, 1009);
    session.wait_for(&Seen::Abandoned).await;
}

#[tokio::test]
async fn a_client_that_vanishes_frees_its_session() {
    let mut node = FakeNode::start().await;
    let mut socket = node.vosk().await;
    send_audio(&mut socket, 100).await;
    let mut session = node.session().await;
    text(&mut socket).await;
    drop(socket);
    session.wait_for(&Seen::Abandoned).await;
}

#[tokio::test]
async fn a_client_that_never_sends_audio_does_not_stay_for_ever() {
    let node = FakeNode::with_idle(GatewaySettings::default(), Duration::from_millis(100)).await;
    let mut socket = node.vosk().await;
    assert_eq!(closed(&mut socket).await, (1008, "no audio came for 0.1 s".to_owned()));
}
