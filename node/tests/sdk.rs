//! The SDK over every transport, against a node that the test plays: the same events, and a resume at another node.

mod common;

use std::time::Duration;

use common::events::{a_final, done, partial};
use common::quic::Authority;
use common::*;
use starling_actors::SessionEvent;
use starling_client::{ApiKey, Client, ClientConfig, ErrorCode, Event, OpenError, SessionConfig};
use starling_core::tenant::TenantLimits;
use starling_node::config::GatewaySettings;
use starling_node::tenants::{KeyHash, TenantFacts, Tenants};
use starling_protocol::{CutCause, Segment, SourceOffset};

async fn node(authority: &Authority) -> FakeNode {
    let settings = GatewaySettings::default();
    FakeNode::over_quic(settings, Tenants::new(Vec::new()), &authority.certificate).await
}

fn wss(node: &FakeNode) -> String {
    format!("wss://localhost:{}", node.http.port())
}

fn quic(node: &FakeNode) -> String {
    format!("quic://127.0.0.1:{}", node.quic.expect("listens").port())
}

fn config(authority: &Authority, servers: Vec<String>) -> ClientConfig {
    let mut config = ClientConfig::new(servers);
    config.ca_file = Some(authority.file().to_owned());
    config.backoff_first = Duration::from_millis(5);
    config
}

#[tokio::test]
async fn a_session_is_the_same_over_quic_and_over_tls() {
    let authority = Authority::new();
    let mut node = node(&authority).await;
    for url in [quic(&node), wss(&node)] {
        let client = Client::new(config(&authority, vec![url.clone()])).expect("fine");
        let (mut sender, mut events) = client.open(SessionConfig::default()).await.expect(&url).split();
        let mut session = node.session().await;
        sender.send(&[0; 6_400]).await.expect("taken");
        session.expect(Seen::Audio(6_400)).await;
        session.say(partial("one"));
        assert!(matches!(events.next().await, Some(Ok(Event::Partial { text, .. })) if text == "one"));
        session.say(a_final(0, 3_200, "one two", CutCause::Endpoint));
        assert!(matches!(events.next().await, Some(Ok(Event::Final(last))) if last.text == "one two"));
        session.expect(Seen::Confirm(Segment(0))).await;
        sender.finalize().await.expect("taken");
        session.expect(Seen::Finalize).await;
        sender.end().await.expect("taken");
        session.expect(Seen::End).await;
        session.say(done(1, 3_200));
        assert!(matches!(events.next().await, Some(Ok(Event::Done { segments: 1, .. }))), "{url}");
        assert_eq!(events.next().await, None);
        session.wait_for(&Seen::Dropped).await;
    }
}

#[tokio::test]
async fn a_session_whose_node_is_gone_goes_on_at_the_next() {
    let authority = Authority::new();
    let mut first = node(&authority).await;
    let mut second = node(&authority).await;
    let client = Client::new(config(&authority, vec![quic(&first), quic(&second)])).expect("fine");
    let (mut sender, mut events) = client.open(SessionConfig::default()).await.expect("opens").split();
    let mut session = first.session().await;
    // It is in clear there, and so not followed: the test's second node listens there over TLS only.
    let resume_at = vec![second.http.to_string()];
    session.say(SessionEvent::View { view: 1, token: "newer".into(), durable: true, resume_at });
    assert!(matches!(events.next().await, Some(Ok(Event::Durable(true)))));
    sender.send(&[0; 3_200]).await.expect("taken");
    session.expect(Seen::Audio(3_200)).await;
    first.closing.cancel();
    session.wait_for(&Seen::Dropped).await;
    let mut resumed = second.session().await;
    let Opened::Resumed(request) = &resumed.opened else { panic!("begun anew") };
    assert_eq!((request.resume.token.as_str(), request.resume.have_from), ("newer", SourceOffset(0)));
    assert!(matches!(events.next().await, Some(Ok(Event::Durable(false)))));
    assert!(matches!(events.next().await, Some(Ok(Event::Reconnected { restarted: false, .. }))));
    // The node says that it has nothing, so all of it comes again.
    resumed.expect(Seen::Audio(3_200)).await;
}

#[tokio::test]
async fn a_node_that_stops_is_left_for_another_over_quic() {
    let authority = Authority::new();
    let mut first = node(&authority).await;
    let mut second = node(&authority).await;
    let client = Client::new(config(&authority, vec![quic(&first), quic(&second)])).expect("fine");
    let (mut sender, _events) = client.open(SessionConfig::default()).await.expect("opens").split();
    let mut session = first.session().await;
    first.stopping.cancel();
    let mut resumed = second.session().await;
    assert!(matches!(resumed.opened, Opened::Resumed(_)));
    session.wait_for(&Seen::Dropped).await;
    sender.send(&[0; 640]).await.expect("taken");
    resumed.expect(Seen::Audio(640)).await;
}

#[tokio::test]
async fn the_key_is_shown_over_every_transport_and_its_refusal_told() {
    let authority = Authority::new();
    let tenant = TenantFacts {
        name: "acme".to_owned(),
        keys: vec![KeyHash::of("key")],
        models: Vec::new(),
        operator: false,
        limits: TenantLimits::default(),
    };
    let tenants = Tenants::new(vec![tenant]);
    let mut node = FakeNode::over_quic(GatewaySettings::default(), tenants, &authority.certificate).await;
    for url in [quic(&node), wss(&node)] {
        let mut config = config(&authority, vec![url.clone()]);
        let refused = Client::new(config.clone()).expect("fine").open(SessionConfig::default()).await;
        let Err(OpenError::Refused(body)) = refused.map(|_| ()) else { panic!("{url}: not refused") };
        assert_eq!(body.code, ErrorCode::Unauthorized, "{url}");
        config.api_key = Some(ApiKey::from("key".to_owned()));
        let session = Client::new(config).expect("fine").open(SessionConfig::default()).await;
        assert!(session.is_ok(), "{url}: {:?}", session.err());
        assert_eq!(node.session().await.request().tenant, "acme", "{url}");
    }
}

#[tokio::test]
async fn nobody_is_spoken_to_who_is_not_trusted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut node = node(&stranger).await;
    for url in [quic(&node), wss(&node)] {
        let mut config = config(&authority, vec![url.clone()]);
        config.open_deadline = Duration::ZERO;
        let refused = Client::new(config).expect("fine").open(SessionConfig::default()).await;
        let Err(OpenError::Unreachable { cause, .. }) = refused.map(|_| ()) else { panic!("{url}: let in") };
        assert!(cause.to_lowercase().contains("certificate"), "{url}: {cause}");
    }
    assert!(node.no_session());
}
