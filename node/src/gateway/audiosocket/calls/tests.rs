use starling_protocol::SourceOffset;

use super::*;

const LINGER: Duration = Duration::from_secs(60);

fn dtmf(line: &mut Line, digits: &str) {
    digits.chars().for_each(|digit| line.tell(&CallEvent::Dtmf { digit }));
}

fn done(line: &mut Line) {
    line.tell(&CallEvent::Done { segments: 0, frames: SourceOffset(0) });
}

/// The digits that a reader from this number on gets, and whether that is all.
fn heard(call: &Call, mut from: u64) -> (u64, String, bool) {
    let (mut missed, mut digits) = (0, String::new());
    loop {
        let heard = call.read(from);
        missed += heard.missed;
        for event in &heard.events {
            let value: serde_json::Value = serde_json::from_str(event).expect("JSON");
            digits.push_str(value["digit"].as_str().unwrap_or("."));
        }
        from = heard.first + heard.events.len() as u64;
        if heard.last || heard.events.is_empty() {
            return (missed, digits, heard.last);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_reader_gets_all_events_in_order_and_the_end() {
    let calls = Calls::new(LINGER);
    let id = SessionId::random();
    let mut line = calls.begin("", id).expect("is free");
    let call = calls.find("", id).expect("goes on");
    let all = "0123456789#*0123456789";
    dtmf(&mut line, all);
    assert_eq!(heard(&call, 0), (0, all.to_owned(), false));
    assert_eq!(heard(&call, 20), (0, "89".to_owned(), false));
    done(&mut line);
    dtmf(&mut line, "7");
    assert_eq!(heard(&call, 20), (0, "89.".to_owned(), true), "nothing is told after the end");
    assert_eq!(heard(&call, 99), (0, String::new(), true));
}

#[tokio::test(start_paused = true)]
async fn a_call_is_kept_for_the_linger_and_its_id_is_free_when_it_is_over() {
    let calls = Calls::new(LINGER);
    let id = SessionId::random();
    let mut line = calls.begin("", id).expect("is free");
    assert!(calls.begin("", id).is_none(), "it goes on");
    assert!(calls.begin("other", id).is_some(), "another tenant's is another");
    done(&mut line);
    assert!(calls.begin("", id).is_none(), "its session is not gone yet");
    drop(line);
    let first = calls.find("", id).expect("is kept");
    tokio::time::advance(LINGER / 2).await;
    let mut again = calls.begin("", id).expect("is free again");
    dtmf(&mut again, "5");
    let second = calls.find("", id).expect("goes on");
    assert_ne!(first.run(), second.run());
    tokio::time::advance(LINGER).await;
    assert!(calls.find("", id).is_some(), "the first's time is over, not the second's");
    drop(again);
    tokio::time::advance(LINGER).await;
    assert!(calls.find("", id).is_none());
    assert_eq!(calls.directory().ended_bytes, 0);
    assert_eq!(heard(&second, 0), (0, "5.".to_owned(), true), "who reads it still can");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_and_what_is_missing_is_counted() {
    let calls = Calls::new(LINGER);
    let id = SessionId::random();
    let mut line = calls.begin("", id).expect("is free");
    let call = calls.find("", id).expect("goes on");
    dtmf(&mut line, "12");
    let long = ErrorBody::new(ErrorCode::Internal, "x".repeat(MOST_BYTES_OF_CALL));
    line.tell(&CallEvent::Error(&long));
    assert_eq!(heard(&call, 1), (1, ".".to_owned(), true));
    drop((line, call));
    for _ in 0..MOST_BYTES_OF_ENDED / MOST_BYTES_OF_CALL {
        let mut line = calls.begin("", SessionId::random()).expect("is free");
        line.tell(&CallEvent::Error(&long));
    }
    assert!(calls.find("", id).is_none(), "the oldest goes first");
    assert!(calls.directory().ended_bytes <= MOST_BYTES_OF_ENDED);
    for _ in 0..=MOST_ENDED {
        drop(calls.begin("", SessionId::random()));
    }
    let directory = calls.directory();
    assert_eq!((directory.ended.len(), directory.calls.len()), (MOST_ENDED, MOST_ENDED));
}

#[tokio::test(start_paused = true)]
async fn a_call_is_waited_for_and_not_for_ever() {
    let calls = Calls::new(LINGER);
    let id = SessionId::random();
    let until = Instant::now() + LINGER;
    let waiting = tokio::spawn({
        let calls = Arc::clone(&calls);
        async move { calls.wait("", id, until).await.map(|call| call.run()) }
    });
    tokio::time::sleep(LINGER / 2).await;
    let _other = calls.begin("", SessionId::random());
    let line = calls.begin("", id).expect("is free");
    assert_eq!(waiting.await.expect("no panic"), Some(line.call.run()));
    assert!(calls.wait("other", id, until).await.is_none());
    assert!(Instant::now() >= until);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_broken_off_is_over_for_its_readers_too() {
    let calls = Calls::new(LINGER);
    let id = SessionId::random();
    let line = calls.begin("", id).expect("is free");
    let call = calls.find("", id).expect("goes on");
    let mut changes = call.watch();
    drop(line);
    changes.changed().await.expect("is told");
    assert_eq!(heard(&call, 0), (0, ".".to_owned(), true));
}
