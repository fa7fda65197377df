//! Control planes of several processes, and what the network and their hosts do to them.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use starling_actors::control::{ALPN, MAX_UNAUTHENTICATED};
use starling_actors::trust::{ClusterSecret, Trust, server_name};
use starling_protocol::NodeName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

#[path = "support/control_process.rs"]
mod control_process;
#[path = "../../chaos/tests/common/not_run.rs"]
mod not_run;

use control_process::{PATIENCE, Process, SECRET, falls_silent, meet, pair};
use not_run::not_run;

/// Silence is borne for 700 ms from the last answer, which may be one heartbeat old, or more where the machine had no time for it.
const SOONEST_LOSS: Duration = Duration::from_millis(300);
/// Room for slow machines; the kernel would take a quarter of an hour.
const LATEST_LOSS: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_stopped_peer_is_suspected_and_lost_and_found_again() {
    for stops_the_dialler in [false, true] {
        let (a, b) = pair("a", "b").await;
        let (mut stopped, mut watching) = if stops_the_dialler { (a, b) } else { (b, a) };
        let since = Instant::now();
        stopped.signal(Signal::STOP);
        let took = falls_silent(&mut watching, &stopped.id, since).await;
        assert!(took > SOONEST_LOSS && took < LATEST_LOSS, "lost after {took:?}");

        stopped.signal(Signal::CONT);
        // Whoever was paused accuses nobody: it sees that it was left.
        let said = stopped.says_surely().await;
        assert!(
            ["Closed", "Replaced"].iter().any(|cause| said == format!("lost {} {cause}", watching.id)),
            "{said}"
        );
        assert_eq!(stopped.says_surely().await, format!("up {}", watching.id));
        assert_eq!(watching.says_surely().await, format!("up {}", stopped.id));
    }
}

#[tokio::test]
async fn a_killed_peer_is_lost_when_its_connection_closes() {
    let (mut a, b) = pair("a", "b").await;
    let lost = format!("lost {} Closed", b.id);
    b.kill().await;
    assert_eq!(a.says_surely().await, lost, "no silence is waited for");
}

#[tokio::test]
async fn a_peer_that_is_restarted_at_once_is_up_again_each_time() {
    let mut middle = Process::start("m", 1).await;
    // One that dials, and one that is dialled.
    for name in ["a", "z"] {
        let mut node = Process::start(name, 1).await;
        meet(&mut middle, &mut node).await;
        for generation in 2..=6 {
            let (before, address) = (node.id.clone(), node.address.to_string());
            node.kill().await;
            node = Process::start_at(name, generation, &address, &[]).await;
            node.knows(&[&middle]).await;
            assert_eq!(middle.says_surely().await, format!("lost {before} Closed"));
            assert_eq!(middle.says_surely().await, format!("up {}", node.id));
            assert_eq!(node.says_surely().await, format!("up {}", middle.id));
        }
        let last = node.id.clone();
        node.kill().await;
        assert_eq!(middle.says_surely().await, format!("lost {last} Closed"));
    }
}

#[tokio::test]
async fn a_new_run_is_up_though_the_old_one_hangs_and_the_old_one_stays_out() {
    let mut middle = Process::start("m", 1).await;
    for name in ["a", "z"] {
        let mut old = Process::start(name, 1).await;
        meet(&mut middle, &mut old).await;
        old.signal(Signal::STOP);
        let mut new = Process::start(name, 2).await;
        middle.knows(&[&new]).await;
        new.knows(&[&middle]).await;
        let said = middle.says_surely().await;
        let lost = ["Restarted", "Silent"].map(|cause| format!("lost {} {cause}", old.id));
        assert!(lost.contains(&said), "{said}");
        assert_eq!(middle.says_surely().await, format!("up {}", new.id));
        assert_eq!(new.says_surely().await, format!("up {}", middle.id));

        old.signal(Signal::CONT);
        assert!(old.says_surely().await.starts_with("lost m#1 "));
        // It may try, and is thrown out; the link to the new run doesn't suffer.
        let quiet = timeout(Duration::from_secs(1), middle.says_surely()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        old.kill().await;
        let last = new.id.clone();
        new.kill().await;
        assert_eq!(middle.says_surely().await, format!("lost {last} Closed"));
    }
}

#[tokio::test]
async fn clients_that_say_nothing_are_closed_and_keep_nobody_out() {
    let mut a = Process::start("a", 1).await;
    let connect = || async { TcpStream::connect(a.address).await.expect("connect") };
    let few = join_all((0..5).map(|_| connect())).await;
    let mut b = Process::start("b", 1).await;
    meet(&mut a, &mut b).await;
    drop(few);

    // The acceptor of the next peer has every place taken.
    let address = b.address;
    let connect = || async { TcpStream::connect(address).await.expect("connect") };
    let crowd = join_all((0..MAX_UNAUTHENTICATED + 16).map(|_| connect())).await;
    let mut aa = Process::start("aa", 1).await;
    aa.knows(&[&b]).await;
    assert_eq!(aa.says_surely().await, format!("up {}", b.id));
    assert_eq!(b.says_surely().await, format!("up {}", aa.id));
    timeout(PATIENCE, join_all(crowd.into_iter().map(is_closed))).await.expect("all are closed");
}

#[tokio::test]
async fn a_frame_over_the_limit_closes_the_link_before_it_is_read() {
    let mut b = Process::start("b", 1).await;
    // One with the right certificate that says nothing, to compare with, is closed at its deadline: where the machine stands still for
    // so long, both are.
    let mut tries = 0..5;
    loop {
        tries.next().expect("the frame is not what closes it");
        let silent = tokio::spawn(is_closed(stranger(b.address, "a").await));
        let mut greedy = stranger(b.address, "aa").await;
        greedy.write_all(&(1u64 << 40).to_be_bytes()).await.expect("write");
        greedy.write_all(&[0; 64]).await.expect("write");
        timeout(PATIENCE, is_closed(greedy)).await.expect("closed");
        let outlived = !silent.is_finished();
        timeout(PATIENCE, silent).await.expect("closed").expect("task");
        if outlived {
            break;
        }
    }

    let mut a = Process::start("a", 1).await;
    meet(&mut a, &mut b).await;
}

/// A client that TLS takes for the node `name`.
async fn stranger(address: SocketAddr, name: &str) -> TlsStream<TcpStream> {
    let secret = ClusterSecret::from_bytes(SECRET.into()).expect("secret");
    let trust = Trust::derive(&secret, &NodeName::parse(name).expect("name")).expect("trust");
    let connector = TlsConnector::from(Arc::new(trust.client_config(ALPN).expect("client")));
    let socket = TcpStream::connect(address).await.expect("connect");
    let b = server_name(&NodeName::parse("b").expect("name")).expect("name");
    connector.connect(b, socket).await.expect("handshake")
}

/// Reads until the other side closes.
async fn is_closed(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let mut rest = Vec::new();
    // A reset is as closed as an end.
    let _ = stream.read_to_end(&mut rest).await;
}

/// A node behind a switch whose cable can be pulled: no packet passes, and neither side is told.
struct Cable {
    namespace: String,
    bridge: String,
    ports: [String; 2],
    address: [String; 2],
}

impl Cable {
    fn lay() -> Self {
        // Names of devices have 15 characters at most.
        let tag = std::process::id() % 100_000;
        let net = tag % 250;
        let cable = Self {
            namespace: format!("starling-{tag}"),
            bridge: format!("st{tag}br"),
            ports: [format!("st{tag}p0"), format!("st{tag}p1")],
            address: [format!("10.213.{net}.1"), format!("10.213.{net}.2")],
        };
        let Self { namespace, bridge, ports: [here, there], address: [own, other] } = &cable;
        ip(&format!("netns add {namespace}"));
        ip(&format!("link add {bridge} type bridge"));
        ip(&format!("link add {here} type veth peer name {here}x"));
        ip(&format!("link add {there} type veth peer name eth0 netns {namespace}"));
        ip(&format!("addr add {own}/24 dev {here}x"));
        for device in [here, there] {
            ip(&format!("link set {device} master {bridge}"));
        }
        for device in [bridge, here, there, &format!("{here}x")] {
            ip(&format!("link set {device} up"));
        }
        ip(&format!("-n {namespace} addr add {other}/24 dev eth0"));
        ip(&format!("-n {namespace} link set eth0 up"));
        cable
    }

    fn pull(&self) {
        ip(&format!("link set {} nomaster", self.ports[1]));
    }

    fn plug_in(&self) {
        ip(&format!("link set {} master {}", self.ports[1], self.bridge));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        let devices = [&self.ports[0], &self.ports[1], &self.bridge];
        let delete = devices.map(|device| format!("link del {device}"));
        for command in delete.into_iter().chain([format!("netns del {}", self.namespace)]) {
            // A test that failed half way may not have made them all.
            let _ = Command::new("ip").args(command.split(' ')).status();
        }
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip, of iproute2");
    assert!(status.success(), "ip {arguments}: {status}");
}

#[tokio::test]
async fn a_peer_whose_packets_vanish_is_lost_by_both_sides_and_found_again() {
    if !rustix::process::geteuid().is_root() {
        not_run("a peer whose packets vanish", "making a network namespace takes root");
        return;
    }
    let cable = Cable::lay();
    let at = |side: usize| format!("{}:0", cable.address[side]);
    let mut a = Process::start_at("a", 1, &at(0), &[]).await;
    let prefix = ["ip", "netns", "exec", &cable.namespace];
    let mut b = Process::start_at("b", 1, &at(1), &prefix).await;
    meet(&mut a, &mut b).await;

    let since = Instant::now();
    cable.pull();
    let (by_a, by_b) = tokio::join!(falls_silent(&mut a, "b#1", since), falls_silent(&mut b, "a#1", since));
    for took in [by_a, by_b] {
        assert!(took > SOONEST_LOSS && took < LATEST_LOSS, "lost after {took:?}");
    }
    cable.plug_in();
    assert_eq!(a.says_surely().await, "up b#1");
    assert_eq!(b.says_surely().await, "up a#1");
}
