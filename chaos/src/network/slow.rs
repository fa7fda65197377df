//! A node's link that lets packets come late.
//!
//! Owns: the kernel's netem where it has it, otherwise a relay between two TAP devices. Must never: stay when it is removed.
//!
//! The relay stands between the node's port and the floor:
//!
//! ```text
//! node-a ── p0 ── l0 ── i0   (this process)   o0 ── floor
//! ```

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_tun::Tun;

use super::line::Line;
use super::{FLOOR, SWITCH, ip, plug, run};

/// An Ethernet frame of the largest that a device of these takes, with room.
const FRAME_BYTES: usize = 2_048;

pub(super) enum Slow {
    /// The port, and the node's namespace.
    Netem(String, String),
    Relay {
        index: usize,
        ways: Vec<JoinHandle<()>>,
    },
}

impl Slow {
    /// For the link of the `index`th node.
    pub(super) fn lay(index: usize, namespace: &str, jitter: Duration) -> Result<Self> {
        let port = format!("p{index}");
        // tc-netem(8): the mean and what it varies by, evenly.
        let half = jitter.as_millis() / 2;
        let netem = |space: &str, device: &str| {
            run("tc", &format!("-n {space} qdisc add dev {device} root netem delay {half}ms {half}ms"))
        };
        if netem(SWITCH, &port).is_ok() {
            netem(namespace, "eth0")?;
            return Ok(Self::Netem(port, namespace.to_owned()));
        }
        let [inner, outer] = [tap(&format!("i{index}"))?, tap(&format!("o{index}"))?].map(Arc::new);
        ip(&format!("-n {SWITCH} link add l{index} type bridge"))?;
        ip(&format!("-n {SWITCH} link set l{index} up"))?;
        plug(&format!("i{index}"), &format!("l{index}"))?;
        plug(&format!("o{index}"), FLOOR)?;
        let line = |seed: usize| Line::new(jitter, StdRng::seed_from_u64(seed as u64));
        let ways = vec![
            tokio::spawn(relay(Arc::clone(&inner), Arc::clone(&outer), line(index * 2))),
            tokio::spawn(relay(outer, inner, line(index * 2 + 1))),
        ];
        plug(&port, &format!("l{index}"))?;
        Ok(Self::Relay { index, ways })
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Netem(..) => "tc netem",
            Self::Relay { .. } => "a relay between two TAP devices",
        }
    }

    pub(super) fn remove(self) -> Result<()> {
        match self {
            Self::Netem(port, namespace) => {
                run("tc", &format!("-n {SWITCH} qdisc del dev {port} root"))?;
                run("tc", &format!("-n {namespace} qdisc del dev eth0 root"))
            }
            Self::Relay { index, ways } => {
                plug(&format!("p{index}"), FLOOR)?;
                // With those who hold them the devices go, and what is on its way is lost.
                ways.iter().for_each(JoinHandle::abort);
                ip(&format!("-n {SWITCH} link del l{index}"))
            }
        }
    }
}

/// Made here, where it is opened, and then handed to the switch.
fn tap(name: &str) -> Result<Tun> {
    let made = Tun::builder().name(name).tap().build().context("making a TAP device")?;
    ip(&format!("link set {name} netns {SWITCH}"))?;
    made.into_iter().next().context("no TAP device was made")
}

async fn relay(from: Arc<Tun>, to: Arc<Tun>, mut line: Line) {
    let mut frame = vec![0; FRAME_BYTES];
    loop {
        let due = line.due();
        tokio::select! {
            received = from.recv(&mut frame) => {
                let Ok(bytes) = received else { return };
                line.push(Instant::now(), frame[..bytes].to_vec());
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                while let Some(frame) = line.pop(Instant::now()) {
                    // A device that has no room loses it, as a wire would.
                    let _ = to.send(&frame).await;
                }
            }
        }
    }
}
