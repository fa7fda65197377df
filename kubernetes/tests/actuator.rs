//! Actuators at an API server, on paused time; and over real HTTP at the end.

use std::net::SocketAddr;
use std::time::Duration;

use kube::Config;
use starling_kubernetes::{ActuatorFact, Connection, LeaseTimings, NodeState, Outcome};
use support::{ApiServer, Cluster, Fault, Node, SET, seconds};
use tokio::net::TcpListener;

mod support;

#[tokio::test(start_paused = true)]
async fn pods_come_at_once_and_go_when_they_have_drained() {
    let (server, cluster) = (ApiServer::with_pods(2), Cluster::serving(2, 29));
    let node = Node::of(&cluster);
    node.start(server.line().0, "a", |_| {});
    seconds(3).await;
    assert_eq!(server.replicas(), 4, "29 decoders are four pods of eight");
    (2..4).for_each(|ordinal| cluster.set(ordinal, Some(NodeState::Serving)));
    cluster.desire(24);
    seconds(6).await;
    assert_eq!(cluster.told(), ["drain starling-3"]);
    // However long its callers stay.
    seconds(1_000).await;
    assert_eq!((server.replicas(), cluster.told().len()), (4, 1));
    cluster.set(3, Some(NodeState::Drained));
    seconds(6).await;
    assert_eq!(server.replicas(), 3);
    cluster.set(3, None);
    seconds(60).await;
    // The server was asked first whether it would take a pod away, so that nobody drains for nothing.
    let patches: Vec<bool> = server.calls("PATCH").iter().map(|call| call.contains("dryRun=All")).collect();
    assert_eq!(patches, [false, true, false]);
    let done = [("grow", Outcome::Done), ("drain", Outcome::Done), ("shrink", Outcome::Done)];
    assert_eq!(node.outcomes(), done);
}

#[tokio::test(start_paused = true)]
async fn a_number_of_pods_that_no_cluster_has_is_left_to_whoever_wrote_it() {
    let (server, cluster) = (ApiServer::with_pods(2_000_000_000), Cluster::serving(2, 16));
    let node = Node::of(&cluster);
    let began = tokio::time::Instant::now();
    node.start(server.line().0, "a", |_| {});
    seconds(20).await;
    assert!(node.leads() && node.told_after(began, &ActuatorFact::Blind).is_some());
    assert_eq!(server.calls("PATCH"), [""; 0]);
    // It is seen when it is mended.
    server.objects().replicas = 1;
    seconds(6).await;
    assert_eq!(server.replicas(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_wanted_after_all_is_stood_in_for_and_started_anew() {
    let (server, cluster) = (ApiServer::with_pods(3), Cluster::serving(3, 9));
    let node = Node::of(&cluster);
    node.start(server.line().0, "a", |_| {});
    seconds(6).await;
    assert_eq!(cluster.told(), ["drain starling-2"]);
    cluster.desire(24);
    seconds(6).await;
    assert_eq!(server.replicas(), 4);
    cluster.set(3, Some(NodeState::Serving));
    cluster.set(2, Some(NodeState::Drained));
    seconds(5).await;
    assert_eq!(cluster.told(), ["drain starling-2", "recall starling-2"]);
    // There is one too many, until it is back: then the highest goes.
    seconds(60).await;
    assert_eq!(cluster.told().len(), 2);
    cluster.set(2, Some(NodeState::Serving));
    seconds(6).await;
    assert_eq!(cluster.told()[2..], ["drain starling-3"]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_knows_stays_and_what_never_ran_goes() {
    let (server, cluster) = (ApiServer::with_pods(5), Cluster::serving(3, 9));
    Node::of(&cluster).start(server.line().0, "a", |_| {});
    server.objects().phases = [("starling-3".into(), "Running"), ("starling-4".into(), "Pending")].into();
    seconds(60).await;
    // The one that waits for a machine is gone; the one that has run and is no member may be cut off, with its callers.
    assert_eq!((server.replicas(), cluster.told()), (4, vec![]));
    server.objects().phases.clear();
    seconds(60).await;
    assert_eq!(server.replicas(), 4, "one that is between two runs has run");
    // While another is missing nobody goes either.
    cluster.set(3, Some(NodeState::Serving));
    cluster.set(1, None);
    seconds(60).await;
    assert_eq!(cluster.told(), Vec::<String>::new());
    cluster.set(1, Some(NodeState::Serving));
    seconds(6).await;
    assert_eq!(cluster.told(), ["drain starling-3"]);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_nothing_and_says_what_it_would() {
    let (server, cluster) = (ApiServer::with_pods(2), Cluster::serving(2, 40));
    let node = Node::of(&cluster);
    node.start(server.line().0, "a", |arguments| arguments.dry_run = true);
    seconds(6).await;
    assert_eq!(node.outcomes()[0], ("grow", Outcome::DryRun));
    cluster.desire(0);
    server.objects().replicas = 3;
    server.objects().created = 3;
    cluster.set(2, Some(NodeState::Serving));
    seconds(60).await;
    assert_eq!(node.outcomes().last(), Some(&("drain", Outcome::DryRun)));
    assert_eq!((server.replicas(), server.calls("PATCH"), cluster.told()), (3, vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn of_two_one_leads_and_the_other_when_that_falls_silent() {
    let (server, cluster) = (ApiServer::with_pods(2), Cluster::serving(2, 9));
    let (first, second) = (Node::of(&cluster), Node::of(&cluster));
    let (line, cut) = server.line();
    first.start(line, "a#1", |_| {});
    seconds(1).await;
    second.start(server.line().0, "b#1", |_| {});
    seconds(60).await;
    assert_eq!((first.leads(), second.leads(), server.holder().as_str()), (true, false, "a#1"));
    let began = tokio::time::Instant::now();
    cut.cancel();
    cluster.desire(33);
    seconds(30).await;
    assert_eq!((first.leads(), second.leads(), server.holder().as_str()), (false, true, "b#1"));
    let gave_way = first.told_after(began, &ActuatorFact::Leads(false)).expect("it noticed");
    let took_over = second.told_after(began, &ActuatorFact::Leads(true)).expect("it leads");
    let LeaseTimings { duration, renew_within, look_every, call } = LeaseTimings::default();
    assert!(took_over - gave_way >= duration - renew_within - call);
    assert!(took_over - began <= duration + 2 * look_every + Duration::from_secs(1));
    assert_eq!(server.replicas(), 5, "whoever leads scales");
    // The first comes back to a lease that is another's, and follows.
    seconds(60).await;
    assert!(!first.leads());
}

#[tokio::test(start_paused = true)]
async fn who_stops_gives_the_lease_back() {
    let (server, cluster) = (ApiServer::with_pods(2), Cluster::serving(2, 9));
    let (first, second) = (Node::of(&cluster), Node::of(&cluster));
    let running = first.start(server.line().0, "a", |_| {});
    seconds(1).await;
    second.start(server.line().0, "b", |_| {});
    seconds(10).await;
    running.stop().await;
    // Within a look; it would be fifteen seconds otherwise.
    seconds(3).await;
    assert!(second.leads());
    assert_eq!(server.holder(), "b");
}

#[tokio::test(start_paused = true)]
async fn two_that_ask_at_the_same_moment_get_one_lease() {
    let (server, cluster) = (ApiServer::with_pods(2), Cluster::serving(2, 20));
    let nodes: Vec<Node> = (0..5).map(|_| Node::of(&cluster)).collect();
    for (number, node) in nodes.iter().enumerate() {
        node.start(server.line().0, &format!("n{number}"), |_| {});
    }
    for _ in 0..20 {
        seconds(1).await;
        assert!(nodes.iter().filter(|node| node.leads()).count() <= 1);
    }
    assert_eq!(nodes.iter().filter(|node| node.leads()).count(), 1);
    assert_eq!((server.replicas(), server.calls("PATCH").len()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again() {
    for (fault, outcome, within) in [
        (Fault::Refused(409), Outcome::Conflict, 2),
        (Fault::Refused(500), Outcome::Failed, 7),
        (Fault::Refused(403), Outcome::Failed, 7),
    ] {
        let (server, cluster) = (ApiServer::with_pods(2), Cluster::serving(2, 20));
        let node = Node::of(&cluster);
        server.objects().faults.push_back(("PATCH", fault));
        node.start(server.line().0, "a", |_| {});
        seconds(within).await;
        assert_eq!(server.replicas(), 3, "{fault:?}");
        assert_eq!(node.outcomes(), [("grow", outcome), ("grow", Outcome::Done)]);
    }
    // A patch that was done and never answered is not done twice.
    let (server, cluster) = (ApiServer::with_pods(2), Cluster::serving(2, 20));
    let node = Node::of(&cluster);
    server.objects().faults.push_back(("PATCH", Fault::Unanswered));
    node.start(server.line().0, "a", |_| {});
    seconds(30).await;
    assert_eq!((server.replicas(), node.outcomes()), (3, vec![("grow", Outcome::Failed)]));
}

#[tokio::test(start_paused = true)]
async fn nobody_drains_for_a_pod_that_may_not_be_taken_away() {
    let (server, cluster) = (ApiServer::with_pods(3), Cluster::serving(3, 9));
    let node = Node::of(&cluster);
    server.objects().faults.extend([("PATCH", Fault::Refused(403)); 3]);
    node.start(server.line().0, "a", |_| {});
    seconds(12).await;
    assert_eq!((node.outcomes(), cluster.told()), (vec![("drain", Outcome::Failed); 3], vec![]));
    seconds(5).await;
    assert_eq!(cluster.told(), ["drain starling-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_can_not_be_kept_is_a_reason_not_to_act() {
    let (server, cluster) = (ApiServer::with_pods(2), Cluster::serving(2, 9));
    let node = Node::of(&cluster);
    node.start(server.line().0, "a", |_| {});
    seconds(1).await;
    // The server takes no more renewals, and would take a scale.
    server.objects().faults.extend([("PUT", Fault::Refused(500)); 1_000]);
    seconds(11).await;
    cluster.desire(40);
    seconds(60).await;
    assert_eq!((node.leads(), server.replicas()), (false, 2));
    server.objects().faults.clear();
    seconds(7).await;
    assert_eq!((node.leads(), server.replicas()), (true, 5));
}

#[tokio::test]
async fn over_http_a_leader_scales_and_a_server_that_is_silent_is_given_up() {
    let (server, cluster) = (ApiServer::with_pods(2), Cluster::serving(2, 20));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = server.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let connect = |address: SocketAddr| {
        let config = Config::new(format!("http://{address}").parse().expect("an address"));
        Connection::new(config, "speech").expect("a client")
    };
    let quick = LeaseTimings { look_every: Duration::from_millis(50), ..LeaseTimings::default() };
    let node = Node::of(&cluster);
    let running = node.start(connect(address), "a", |arguments| {
        (arguments.timings, arguments.check_interval) = (quick, Duration::from_millis(20));
    });
    until(|| server.replicas() == 3).await;
    cluster.set(2, Some(NodeState::Serving));
    cluster.desire(0);
    until(|| cluster.told() == [format!("drain {SET}-2")]).await;
    cluster.set(2, Some(NodeState::Drained));
    until(|| server.replicas() == 2).await;
    running.stop().await;
    assert_eq!(server.holder(), "", "the lease is given back");
    // The kernel takes the connection, and nobody reads from it.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let node = Node::of(&cluster);
    let impatient = LeaseTimings { call: Duration::from_millis(500), ..quick };
    let running = node.start(connect(silent.local_addr().expect("an address")), "a", |arguments| {
        (arguments.timings, arguments.check_interval) = (impatient, Duration::from_millis(20));
    });
    until(|| node.outcomes().is_empty() && node.looks() > 2).await;
    tokio::time::timeout(Duration::from_secs(30), running.stop()).await.expect("it does not hang");
    assert!(!node.leads());
}

/// Waits for what has to come; ten times longer than it takes on a busy machine.
async fn until(holds: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(30), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it comes in time");
}
