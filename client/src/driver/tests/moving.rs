//! From one server to another, before or after the first is gone.

use super::*;

fn client(servers: &[&Server], attempt_timeout: Duration) -> Client {
    let mut config = ClientConfig::new(servers.iter().map(|server| server.url.clone()));
    config.attempt_timeout = attempt_timeout;
    config.backoff_first = Duration::from_millis(5);
    Client::new(config).expect("is valid")
}

const LONG: Duration = Duration::from_secs(60);

/// Sends half of the audio, and the rest once `other` has been asked so often. Gives back the finals' texts; nothing else
/// may be told, as nothing is lost.
async fn transcribe_in_halves(client: &Client, audio: &[u8], other: &Server, asked: usize) -> Vec<String> {
    let (mut sender, mut events) = client.open(SessionConfig::default()).await.expect("opens").split();
    let (audio, other) = (audio.to_vec(), other.clone());
    let sending = tokio::spawn(async move {
        let (begin, rest) = audio.split_at(audio.len() / 2);
        for piece in begin.chunks(3_000) {
            sender.send(piece).await?;
        }
        while other.state().connections < asked {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sender.send(rest).await?;
        sender.end().await
    });
    let (mut texts, mut done) = (Vec::new(), false);
    while let Some(event) = events.next().await {
        match event.expect("the session lives") {
            Event::Final(last) => texts.push(last.text),
            Event::Done { .. } => done = true,
            Event::Durable(_) => {}
            other => panic!("not to be told: {other:?}"),
        }
    }
    sending.await.expect("does not panic").expect("was taken");
    assert!(done, "ended without done");
    texts
}

#[tokio::test]
async fn a_server_that_stops_is_left_for_another_without_a_break() {
    let first = Server::start([Fate::GoAwayAfter(5)]).await;
    let second = first.beside([]).await;
    let audio = recording(60_000);
    let texts = transcribe_in_halves(&client(&[&first, &second], LONG), &audio, &second, 1).await;
    assert_eq!(texts, expected(&audio));
    assert_eq!(first.state().connections, 1);
}

#[tokio::test]
async fn a_server_that_stops_is_left_for_a_node_that_it_named() {
    let first = Server::start([Fate::GoAwayAfter(5)]).await;
    let second = first.beside([]).await;
    first.state().resume_at = vec![second.address.clone()];
    let audio = recording(60_000);
    let texts = transcribe_in_halves(&client(&[&first], LONG), &audio, &second, 1).await;
    assert_eq!(texts, expected(&audio));
    assert_eq!(first.state().connections, 1);
}

#[tokio::test]
async fn a_server_that_stops_serves_on_while_no_other_takes_the_session() {
    let first = Server::start([Fate::GoAwayAfter(5)]).await;
    let refusals = [ErrorCode::Busy, ErrorCode::UnknownSession].map(Fate::Refuse);
    let second = first.beside(refusals.into_iter().chain(std::iter::repeat_n(Fate::Stall, 1_000))).await;
    // The first has to answer within it.
    let client = client(&[&first, &second], Duration::from_secs(1));
    let audio = recording(100_000);
    // Both refusals and a silence have been met before it goes on.
    let texts = transcribe_in_halves(&client, &audio, &second, 4).await;
    assert_eq!(texts, expected(&audio));
    assert_eq!(first.state().connections, 1);
}

#[tokio::test]
async fn a_lost_session_is_resumed_where_its_copies_are() {
    let first = Server::start([Fate::CutAfter(20)]).await;
    let second = first.beside([]).await;
    first.state().resume_at = vec!["nowhere".to_owned(), second.address.clone()];
    let audio = recording(40_000);
    let (texts, reconnects, id) = transcribe(&client(&[&first], LONG), audio.clone()).await;
    assert_eq!((texts, reconnects), (expected(&audio), 1));
    assert_eq!((first.state().connections, second.state().connections), (1, 1));
    second.with(id, |session| assert_eq!(session.audio, audio));
}

#[tokio::test]
async fn new_sessions_are_not_opened_where_copies_were() {
    let first = Server::start([Fate::CutAfter(20), Fate::Forget]).await;
    let second = first.beside([Fate::Refuse(ErrorCode::UnknownSession)]).await;
    first.state().resume_at = vec![second.address.clone()];
    let audio = recording(40_000);
    let (texts, reconnects, _) = transcribe(&client(&[&first], LONG), audio.clone()).await;
    assert_eq!((texts, reconnects), (expected(&audio), 1));
    assert_eq!((first.state().connections, second.state().connections), (3, 1));
}

#[tokio::test]
async fn events_are_a_stream_that_tells_of_durability_and_confirms_finals() {
    let server = Server::start([]).await;
    server.state().resume_at = vec![server.address.clone()];
    let session = server.client().open(SessionConfig::default()).await.expect("opens");
    assert!(!session.opened().durable);
    let id = session.opened().session;
    let (mut sender, mut events) = session.split();
    sender.send(&recording(2_500)).await.expect("is taken");
    let told: Vec<_> = events.by_ref().take(3).map(|event| event.expect("the session lives")).collect().await;
    assert!(matches!(told[..], [Event::Durable(true), Event::Final(_), Event::Final(_)]), "{told:?}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.with(id, |session| session.confirmed) < 2 {
        assert!(Instant::now() < deadline, "never confirmed");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
