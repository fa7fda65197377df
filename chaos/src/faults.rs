//! Faults: whom they befall, and how they are done and undone.
//!
//! Owns: the choice of victims by what nodes do for sessions now. Must never: harm two nodes where one was meant.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::Cluster;
use crate::http::Session;
use crate::network::Far;
use crate::scenario::{Deed, Fault};

/// How long it is waited for sessions to have their decoders and copies before those that have are enough.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Something that was done.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Mark {
    /// Seconds since the load began.
    pub(crate) at_s: f64,
    /// When it was undone, if it was.
    pub(crate) until_s: Option<f64>,
    pub(crate) what: String,
}

/// Whom a fault befalls.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Victim {
    /// Empty where it is no node.
    node: String,
    /// What it is cut from.
    from: Option<Far>,
}

impl Victim {
    fn node(name: &str) -> Self {
        Self { node: name.to_owned(), from: None }
    }
}

/// What was done and is still to be undone. It outlives who does the faults: nothing is left as it is on any way out.
#[derive(Default)]
pub(crate) struct Undos(Vec<Undo>);

/// What has to be undone, and when.
struct Undo {
    at: Instant,
    deed: Deed,
    victim: Victim,
    /// What it was called, and which mark it is.
    label: String,
    mark: usize,
}

/// Does all faults in their time, and undoes them. What is left to undo if it comes to no end is in `undos`.
pub(crate) async fn inflict(
    cluster: &mut Cluster,
    faults: &[Fault],
    origin: Instant,
    marks: &mut Vec<Mark>,
    undos: &mut Undos,
) -> Result<()> {
    let since = || (Instant::now() - origin).as_secs_f64();
    let mut due: Vec<&Fault> = faults.iter().collect();
    due.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
    for fault in due {
        let at = origin + Duration::from_secs_f64(fault.at_s);
        undos.until(cluster, Some(at), origin, marks).await?;
        sleep_until(at).await;
        let what = || format!("{} {}", fault.deed.name(), fault.whom);
        let victims = victims(cluster, fault).await.with_context(what)?;
        // Of those that it takes one after the other, each is looked at in its turn.
        if fault.deed.harms_nodes() && !fault.deed.goes_round() {
            undos.afford(cluster, &victims).await.with_context(what)?;
        }
        if fault.deed == Deed::Kill {
            cluster.strike(&victims.iter().map(|victim| &*victim.node).collect::<Vec<_>>())?;
        }
        for victim in &victims {
            if fault.deed.goes_round() {
                undos.afford(cluster, std::slice::from_ref(victim)).await.with_context(what)?;
            }
            let from = victim.from.as_ref().map_or("", Far::word);
            let (label, mark) = (fault.told(&victim.node, from), marks.len());
            marks.push(Mark { at_s: since(), until_s: None, what: label.clone() });
            let time = fault.for_s.map(Duration::from_secs_f64);
            // Noted before it is done: one that fails may have been done in part.
            let undo = Undo { at: Instant::now(), deed: fault.deed, victim: victim.clone(), label, mark };
            undos.0.push(undo);
            let label = marks[mark].what.clone();
            let found = act(cluster, fault, victim, &label).await.with_context(what)?;
            if let Some(found) = found {
                marks[mark].what = format!("{label}: {found}");
            }
            match (undos.0.pop(), time) {
                (Some(undo), Some(time)) if !fault.deed.ends_by_itself() => {
                    undos.0.push(Undo { at: Instant::now() + time, ..undo });
                }
                _ => {}
            }
        }
    }
    undos.until(cluster, None, origin, marks).await
}

impl Undos {
    /// Undoes what is due before this, or all.
    async fn until(
        &mut self,
        cluster: &mut Cluster,
        until: Option<Instant>,
        origin: Instant,
        marks: &mut Vec<Mark>,
    ) -> Result<()> {
        self.0.sort_by_key(|undo| undo.at);
        while let Some(undo) = self.0.first().filter(|undo| until.is_none_or(|until| undo.at <= until)) {
            sleep_until(undo.at).await;
            let done = undo.undo(cluster).await?;
            let at_s = (Instant::now() - origin).as_secs_f64();
            marks[undo.mark].until_s = Some(at_s);
            self.0.remove(0);
            marks.extend(done.map(|what| Mark { at_s, until_s: None, what }));
        }
        Ok(())
    }

    /// Waits until these can be harmed, beside those that still are.
    async fn afford(&self, cluster: &Cluster, victims: &[Victim]) -> Result<()> {
        let harmed = self.0.iter().filter(|undo| undo.deed.harms_nodes()).map(|undo| &undo.victim);
        let names: Vec<&str> = harmed.chain(victims).map(|victim| &*victim.node).collect();
        cluster.afford(&names).await
    }

    /// Undoes all that is left, now, the last first. What could not be undone, in sentences.
    pub(crate) async fn all(&mut self, cluster: &mut Cluster) -> Vec<String> {
        let mut failed = Vec::new();
        while let Some(undo) = self.0.pop() {
            match undo.undo(cluster).await {
                Ok(None) => {}
                Ok(Some(what)) => eprintln!("undone: {what}"),
                Err(error) => failed.push(format!("{} was not undone: {error:#}", undo.label)),
            }
        }
        failed
    }
}

impl Undo {
    /// What was done for it, if there was anything to do.
    async fn undo(&self, cluster: &mut Cluster) -> Result<Option<String>> {
        let Self { deed, victim: Victim { node, .. }, label, .. } = self;
        Ok(Some(match deed {
            Deed::Kill => {
                cluster.launch(node).await?;
                format!("start {node}")
            }
            Deed::Drain | Deed::RollingRestart | Deed::Upgrade => {
                cluster.undrain(node).await?;
                format!("start {node}")
            }
            Deed::Pause => {
                cluster.pause(node, false).await?;
                format!("SIGCONT {node}")
            }
            Deed::PauseHosts => {
                cluster.signal_hosts(node, Signal::CONT).await?;
                format!("SIGCONT to the hosts of {node}")
            }
            Deed::Cut | Deed::Disturb => {
                cluster.network()?.mend(label)?;
                format!("mend {node}'s ways")
            }
            Deed::FillDisk => {
                cluster.fill_disk(node, false)?;
                format!("empty the disk of {node}")
            }
            Deed::KillHosts | Deed::HogCpu | Deed::LimitMemory | Deed::Forge => return Ok(None),
        }))
    }
}

/// Does it. What is to be told of it, beyond that it was done.
async fn act(cluster: &mut Cluster, fault: &Fault, victim: &Victim, label: &str) -> Result<Option<String>> {
    let Victim { node, from } = victim;
    match fault.deed {
        Deed::Kill => cluster.kill(node).await?,
        Deed::Pause => cluster.pause(node, true).await?,
        Deed::KillHosts => cluster.signal_hosts(node, Signal::KILL).await?,
        Deed::PauseHosts => cluster.signal_hosts(node, Signal::STOP).await?,
        Deed::Drain => cluster.drain(node).await?,
        Deed::RollingRestart | Deed::Upgrade => {
            if fault.deed == Deed::Upgrade {
                cluster.upgrade(node)?;
            }
            cluster.drain(node).await?;
            // The next one goes only when this one is back.
            cluster.whole().await?;
        }
        Deed::HogCpu => hog(Duration::from_secs_f64(fault.for_s.unwrap_or(0.0))),
        Deed::Cut => {
            let far = from.as_ref().context("it is cut from nothing")?;
            cluster.network()?.cut(label, node, far, fault.way)?;
        }
        Deed::Disturb => {
            let (loss, jitter) = (fault.loss_percent, Duration::from_millis(fault.jitter_ms));
            cluster.network()?.disturb(label, node, loss, jitter)?;
            return Ok(cluster.delays_by().map(|by| format!("by {by}")));
        }
        Deed::FillDisk => cluster.fill_disk(node, true)?,
        Deed::LimitMemory => cluster.limit_memory(node).await?,
        Deed::Forge => return cluster.forge().await.map(Some),
    }
    Ok(None)
}

async fn victims(cluster: &Cluster, fault: &Fault) -> Result<Vec<Victim>> {
    let nodes = match (fault.deed, &*fault.whom) {
        (deed, _) if deed.goes_round() => cluster.names(),
        (_, "all") => cluster.names(),
        (Deed::HogCpu | Deed::Forge, _) => vec![String::new()],
        // Both are needed, of the same sessions.
        (Deed::Cut, "owner") if fault.from == "replica" => {
            let pair = by_role(cluster, "owner-and-replica").await?;
            let [owner, replica] = <[String; 2]>::try_from(pair).ok().context("not a pair of nodes")?;
            return Ok(vec![Victim { node: owner, from: Some(Far::Node(replica)) }]);
        }
        (_, "owner" | "decoder" | "replica" | "owner-and-replica") => by_role(cluster, &fault.whom).await?,
        (_, name) => {
            ensure!(cluster.names().iter().any(|known| known == name), "there is no node {name} here");
            vec![name.to_owned()]
        }
    };
    let from = (fault.deed == Deed::Cut).then(|| match &*fault.from {
        "callers" => Far::Callers,
        "nodes" => Far::Nodes,
        "all" => Far::All,
        name => Far::Node(name.to_owned()),
    });
    Ok(nodes.iter().map(|node| Victim { from: from.clone(), ..Victim::node(node) }).collect())
}

async fn by_role(cluster: &Cluster, role: &str) -> Result<Vec<String>> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let sessions = cluster.sessions().await?;
        let connected: Vec<&Session> = sessions.iter().filter(|session| session.connected).collect();
        let fit: Vec<&Session> = connected.iter().copied().filter(|session| is_fit(session, role)).collect();
        let late = Instant::now() > deadline;
        if !fit.is_empty() && (fit.len() == connected.len() || late) {
            let victims = most(&fit, role).with_context(|| format!("no session has a {role}"))?;
            ensure!(
                victims.iter().all(|name| cluster.names().contains(name)),
                "{victims:?} may not be harmed"
            );
            return Ok(victims);
        }
        ensure!(!late, "none of {} sessions has its decoder and copies", connected.len());
        sleep(LOOK_EVERY).await;
    }
}

fn is_fit(session: &Session, role: &str) -> bool {
    session.decoder.is_some() && (session.durable || role == "decoder")
}

/// The node, or the pair of nodes, that is it for most sessions.
fn most(sessions: &[&Session], role: &str) -> Option<Vec<String>> {
    let mut counts: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for session in sessions {
        let copy = session.copies.first().cloned();
        let nodes = match role {
            "owner" => Some(vec![session.owner.clone()]),
            "decoder" => session.decoder.clone().map(|decoder| vec![decoder]),
            "replica" => copy.map(|copy| vec![copy]),
            _ => copy.map(|copy| vec![session.owner.clone(), copy]),
        };
        nodes.into_iter().for_each(|nodes| *counts.entry(nodes).or_default() += 1);
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(nodes, _)| nodes)
}

/// As many threads as there are cores, each at work until then.
fn hog(time: Duration) {
    let end = Instant::now() + time;
    for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
        std::thread::spawn(move || {
            let mut number = 1_u64;
            while Instant::now() < end {
                for _ in 0..100_000 {
                    number =
                        std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;
    use crate::theirs::Theirs;

    #[test]
    fn victims_are_those_of_most_sessions() {
        let session = |owner: &str, copy: &str, decoder: Option<&str>| Session {
            session: String::new(),
            owner: owner.to_owned(),
            copies: vec![copy.to_owned()],
            durable: true,
            connected: true,
            decoder: decoder.map(str::to_owned),
        };
        let all = [session("a", "b", Some("c")), session("a", "c", Some("b")), session("b", "c", Some("c"))];
        let all: Vec<&Session> = all.iter().collect();
        for (role, expected) in [("owner", vec!["a"]), ("replica", vec!["c"]), ("decoder", vec!["c"])] {
            assert_eq!(most(&all, role).expect(role), expected);
        }
        let pair = most(&all[1..2], "owner-and-replica");
        assert_eq!(pair, Some(vec!["a".to_owned(), "c".to_owned()]));
        assert_eq!(most(&[], "owner"), None);
    }

    /// A node of somebody's own that is always well.
    async fn node() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 1_024];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"nodes\":[],\"sessions\":[]}").await;
            }
        });
        address
    }

    #[tokio::test]
    async fn what_was_done_is_undone_on_every_way_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let trace = folder.path().join("trace");
        let (a, b) = (node().await, node().await);
        let command = |name: &str| format!("{name} = 'echo {name} \"$NODE\" >> {}'\n", trace.display());
        let text = format!(
            "budget = 1\n[[node]]\nname = \"a\"\nhttp = \"{a}\"\n[[node]]\nname = \"b\"\nhttp = \"{b}\"\n[commands]\n{}{}",
            command("pause"),
            command("resume")
        );
        let fault = |text: &str| toml::from_str::<Fault>(text).expect("right");
        let pause = fault("at_s = 0.0\ndo = \"pause\"\nwhom = \"a\"\nfor_s = 600.0");
        let unknown = fault("at_s = 0.0\ndo = \"pause\"\nwhom = \"c\"\nfor_s = 1.0");
        // Something fails while a node stands still; and whoever does it is stopped.
        for faults in [vec![pause.clone(), unknown], vec![pause]] {
            let mut cluster = Cluster::Theirs(Theirs::parse(&text).expect("right"));
            let (mut marks, mut undos) = (Vec::new(), Undos::default());
            let stopped = async {
                let paused = || std::fs::read_to_string(&trace).is_ok_and(|told| told.ends_with('\n'));
                while faults.len() > 1 || !paused() {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            let inflicting = inflict(&mut cluster, &faults, Instant::now(), &mut marks, &mut undos);
            let ended = timeout(Duration::from_secs(60), async {
                tokio::select! {
                    ended = inflicting => Some(ended),
                    () = stopped => None,
                }
            });
            let ended = ended.await.expect("in time");
            assert!(!matches!(ended, Some(Ok(()))), "{ended:?}");
            assert_eq!(undos.all(&mut cluster).await, Vec::<String>::new());
            assert_eq!(std::fs::read_to_string(&trace).expect("written"), "pause a\nresume a\n");
            std::fs::remove_file(&trace).expect("there");
        }
    }
}
