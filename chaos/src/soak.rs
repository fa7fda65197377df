//! Hours of mixed load with things going wrong all the time: nobody loses a word, and nothing is left behind.
//!
//! Owns: the course of such a run. Must never: let a process off because it was killed; each life is looked at for itself.

mod bare;
mod client;
mod lanes;
mod realtime;
mod recording;
mod report;
mod rude;
mod sample;
mod slope;
mod tally;
mod thin;
mod trouble;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep, sleep_until};

use self::lanes::Floor;
use self::report::Report;
use self::sample::{Lives, Roster, Values};
use self::tally::{Kind, Tally};
use self::thin::Ports;
use self::trouble::{Plan, Troubles};
use crate::cluster::Cluster;
use crate::port::free_address;
use crate::run::Bench;
use crate::scenario::{Expect, Ground, Load, NodePlan, Scenario};

/// How long sessions outlive their clients: shorter than a minute, so that the end of a run does not take minutes; longer than any node is
/// away.
const LINGER: Duration = Duration::from_secs(20);

/// After that, for all that was left behind to go: gateways give clients that are gone a minute.
const REST: Duration = Duration::from_secs(100);

/// Idle threads and first connections are over by then.
const SETTLE: Duration = Duration::from_secs(12);

/// Of a client that can't go on elsewhere, and that does not read or stays beyond a drain's deadline, the node says so. What such clients were
/// told is judged by what they heard.
const MAY_LOG: &str = "a session ended with words that its client can get from nobody";

/// Callers of a real engine: a machine holds so many beside the nodes.
const REAL_CALLERS: usize = 4;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// How long, how many, how bad.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Hours of load
    #[arg(long, default_value_t = 0.0)]
    hours: f64,
    /// Minutes of load, beyond the hours [default: 10 without hours]
    #[arg(long)]
    minutes: Option<f64>,
    /// Another seed, another course of faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Callers at once
    #[arg(long, default_value_t = 23, value_parser = clap::value_parser!(u16).range(1..=500))]
    callers: u16,
    /// The least and the most seconds from one fault to the next
    #[arg(long, num_args = 2, default_values_t = [20.0, 40.0], value_names = ["LEAST", "MOST"])]
    every: Vec<f64>,
    /// A node that gives no sign of life for so long counts as down; as in `cluster.suspicion`. Beside other work, give it time
    #[arg(long, default_value = "2s")]
    suspicion: String,
}

pub(crate) async fn run(bench: Bench, options: &Options) -> Result<()> {
    let minutes = options.minutes.unwrap_or(if options.hours > 0.0 { 0.0 } else { 10.0 });
    let load = Duration::from_secs_f64(options.hours * 3_600.0 + minutes * 60.0);
    ensure!(
        load >= Duration::from_secs(45),
        "--hours and --minutes make {load:?}; a soak takes 45 s at least"
    );
    let (least, most) = (options.every[0], options.every[1]);
    ensure!(0.0 < least && least <= most, "--every {least} {most}: the least comes first and is above 0");
    ensure!(bench.theirs.is_none(), "a soak starts nodes of its own");

    let certificates = tempfile::tempdir().context("making a folder for certificates")?;
    certify(&bench, certificates.path())?;
    let mut ports = Vec::new();
    for _ in NAMES {
        let free = || free_address().map(|address| address.to_string());
        let [vosk, quic, audiosocket, wyoming] = [free()?, free()?, free()?, free()?];
        ports.push(Ports { http: String::new(), vosk, quic, audiosocket, wyoming });
    }
    let scenario = scenario(&ports, options, certificates.path());
    let mut cluster = Cluster::start(&bench, &scenario)?;
    for (ports, node) in ports.iter_mut().zip(cluster.own()) {
        ports.http = node.place.http.to_string();
    }
    let ran = soak(Arc::new(bench), options, load, ports, certificates.path(), &mut cluster).await;
    ran.with_context(|| format!("the nodes' logs end with\n{}", cluster.log_tails()))
}

async fn soak(
    bench: Arc<Bench>,
    options: &Options,
    load: Duration,
    ports: Vec<Ports>,
    certificates: &Path,
    cluster: &mut Cluster,
) -> Result<()> {
    cluster.whole().await.context("the nodes did not become one cluster")?;
    let (roster, tally, troubles) = (Roster::default(), Tally::default(), Troubles::default());
    let mut floor = Floor {
        bench: Arc::clone(&bench),
        ports,
        ca_file: certificates.join("cert.pem"),
        origin: Instant::now(),
        until: Instant::now() + load,
        seed: options.seed,
        tally: tally.clone(),
        troubles: troubles.clone(),
        calm: Vec::new(),
        number: AtomicUsize::new(0),
    };
    floor.listen_undisturbed().await?;
    cluster.clean(&[]).await.context("after undisturbed callers")?;
    sleep(SETTLE).await;
    trouble::list(cluster, &roster);
    let before = measure(&roster).await;

    let origin = Instant::now();
    (floor.origin, floor.until) = (origin, origin + load);
    let floor = Arc::new(floor);
    let callers = if bench.real { REAL_CALLERS } else { usize::from(options.callers) };
    let minutes = load.as_secs_f64() / 60.0;
    println!("{minutes:.0} minutes, {callers} callers, seed {}, {}", options.seed, bench.programs.display());
    // Whatever is done last is over when the last callers are.
    let plan = Plan {
        seed: options.seed,
        origin,
        until: floor.until - (load / 4).min(Duration::from_secs(30)),
        every_s: (options.every[0], options.every[1]),
    };
    let mut lives = Lives::default();
    let over = AtomicBool::new(false);
    let every = Duration::from_secs(if minutes < 10.0 { 4 } else { 10 });
    let sampling = async {
        let mut at = origin;
        let mut told = origin;
        while !over.load(Ordering::Relaxed) {
            sleep_until(at).await;
            lives.take(&roster, (Instant::now() - origin).as_secs_f64()).await;
            if Instant::now() >= told {
                progress(origin, &lives, &tally, &troubles);
                told += Duration::from_secs(60);
            }
            at = (at + every).max(Instant::now());
        }
    };
    let working = async {
        let lanes = lanes::call_in_turn(Arc::clone(&floor), callers);
        let trouble = trouble::make(cluster, &plan, &roster, &troubles, &tally);
        // Whoever stops it after an hour is told what there was in that hour.
        let interrupted = tokio::select! {
            _ = async { tokio::join!(lanes, trouble) } => false,
            _ = tokio::signal::ctrl_c() => true,
        };
        over.store(true, Ordering::Relaxed);
        interrupted
    };
    let ((), interrupted) = tokio::join!(sampling, working);
    let took_s = (Instant::now() - origin).as_secs_f64();

    let mut failures = Vec::new();
    let (at_rest, left) = if interrupted {
        (Vec::new(), vec!["not known, as it was interrupted".to_owned()])
    } else {
        println!("at rest");
        rest(cluster, &bench, &roster, &before).await
    };
    failures.extend(left.into_iter().map(|what| format!("left behind: {what}")));
    let counts = tally.counts();
    failures.extend(counts.failures.iter().cloned());
    if counts.failures_untold > 0 {
        failures.push(format!("and {} more", counts.failures_untold));
    }
    let unheard = |kind: &Kind| kind.calls > kind.rude && kind.whole == 0;
    let unheard = counts.kinds.iter().filter(|(_, kind)| unheard(kind));
    failures.extend(unheard.map(|(name, kind)| format!("{name}: of {} calls none was told all", kind.calls)));
    if counts.sum(|kind| kind.whole) == 0 {
        failures.push("nobody was heard".to_owned());
    }
    if counts.sum(|kind| kind.durable) == 0 {
        failures.push("no session was ever in two copies".to_owned());
    }
    if troubles.all().is_empty() {
        failures.push("nothing went wrong".to_owned());
    }
    failures.extend(cluster.alarms(&[MAY_LOG.to_owned()]));
    // Processes warm up: allocators, pools, caches.
    let warm_up_s = (load.as_secs_f64() / 4.0).min(600.0);
    let growths = report::growths(&lives, warm_up_s);
    for growth in growths.iter().filter(|growth| growth.is_leak()) {
        failures.push(format!(
            "{} ({}) grows: {} by {:.1} for certain in {:.0} minutes, {:.1} is the most",
            growth.of, growth.pid, growth.value, growth.certain, growth.minutes, growth.limit
        ));
    }
    let report = Report {
        seed: options.seed,
        model: bench.model().to_owned(),
        took_s,
        warm_up_s,
        decoders_lost: cluster.losses(),
        troubles: troubles.all(),
        growths,
        before,
        at_rest,
        failures,
        counts,
        lives: lives.0,
    };
    report.write(&bench.out)?;
    print!("{}", report.text());
    println!("Report and picture are in {}", bench.out.display());
    if report.failures.is_empty() {
        return Ok(());
    }
    cluster.keep_logs(&bench.out, "soak")?;
    bail!("the soak failed; again with --seed {}", report.seed)
}

async fn measure(roster: &Roster) -> Vec<(String, Values)> {
    let mut measured = Vec::new();
    for node in roster.get() {
        measured.push((node.name.clone(), sample::of_node(&node).await));
    }
    measured
}

/// Waits until nothing is left of any caller, and tells what is left all the same.
async fn rest(
    cluster: &mut Cluster,
    bench: &Bench,
    roster: &Roster,
    before: &[(String, Values)],
) -> (Vec<(String, Values)>, Vec<String>) {
    let deadline = Instant::now() + LINGER + REST;
    loop {
        trouble::list(cluster, roster);
        let now = measure(roster).await;
        let mut left = Vec::new();
        for (name, base) in before {
            match now.iter().find(|(other, _)| other == name) {
                Some((_, values)) => left.extend(report::beyond(name, base, values)),
                None => left.push(format!("{name} does not run")),
            }
        }
        let parents: Vec<u32> = roster.get().iter().map(|node| node.pid).collect();
        let decoder = bench.programs.join("starling-decoder");
        let orphans = sample::orphans(&decoder.canonicalize().unwrap_or(decoder), &parents);
        if !orphans.is_empty() {
            left.push(format!("decoder hosts without a node: {orphans:?}"));
        }
        if left.is_empty()
            && let Err(error) = cluster.clean(&[]).await
        {
            left.push(format!("{error:#}"));
        }
        if left.is_empty() || Instant::now() >= deadline {
            return (now, left);
        }
        sleep(Duration::from_secs(2)).await;
    }
}

fn progress(origin: Instant, lives: &Lives, tally: &Tally, troubles: &Troubles) {
    let counts = tally.counts();
    let faults = troubles.all();
    let last = faults.last().map_or("", |trouble| trouble.what.as_str());
    let steady = lives.0.iter().rev().find(|life| life.of == NAMES[0]).and_then(|life| life.samples.last());
    let steady = steady.map(|(_, values)| values.clone()).unwrap_or_default();
    let shown: Vec<String> = ["own_mib", "rss_mib", "fds", "tasks", "sessions", "copies"]
        .iter()
        .filter_map(|name| Some(format!("{name} {:.0}", steady.get(name)?)))
        .collect();
    println!(
        "{:>5.0} s: {} calls, {} whole, {} cut off, {} rude, {} wrong; {} words lost, {} twice; {} reconnects, {} anew; {} faults ({last}); {}: {}",
        (Instant::now() - origin).as_secs_f64(),
        counts.sum(|kind| kind.calls),
        counts.sum(|kind| kind.whole),
        counts.sum(|kind| kind.cut_off),
        counts.sum(|kind| kind.rude),
        counts.sum(|kind| kind.wrong),
        counts.sum(|kind| kind.lost),
        counts.sum(|kind| kind.twice),
        counts.sum(|kind| kind.reconnects),
        counts.sum(|kind| kind.begun_anew),
        faults.len(),
        NAMES[0],
        shown.join(", ")
    );
    for failure in &counts.failures {
        println!("        {failure}");
    }
}

fn certify(bench: &Bench, folder: &Path) -> Result<()> {
    let program = bench.programs.join("starling");
    let made = Command::new(&program).args(["cert", "self-signed", "--out"]).arg(folder).output();
    let made = made.with_context(|| format!("starting {}; build it first", program.display()))?;
    ensure!(made.status.success(), "no certificate: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

fn scenario(ports: &[Ports], options: &Options, certificates: &Path) -> Scenario {
    let node = |(name, ports): (&&str, &Ports)| NodePlan {
        name: (*name).to_owned(),
        roles: vec!["gateway".to_owned(), "decoder".to_owned()],
        slots: 48,
        hosts: 2,
        cluster: format!("suspicion = {:?}", options.suspicion),
        listen: format!(
            "vosk = {:?}\nquic = {:?}\naudiosocket = {:?}\nwyoming = {:?}",
            ports.vosk, ports.quic, ports.audiosocket, ports.wyoming
        ),
        sessions: format!("linger = \"{}s\"", LINGER.as_secs()),
        previous: false,
    };
    let file = |name: &str| certificates.join(name).display().to_string();
    Scenario {
        name: "soak".to_owned(),
        about: "Mixed load for hours, with things going wrong all the time".to_owned(),
        invariants: vec!["I2".to_owned(), "I10".to_owned()],
        settings: format!("[tls]\ncert_file = {:?}\nkey_file = {:?}\n", file("cert.pem"), file("key.pem")),
        network: Ground::Loopback,
        disk_mib: None,
        nodes: NAMES.iter().zip(ports).map(node).collect(),
        load: Load::plain(usize::from(options.callers), 1.0),
        faults: Vec::new(),
        expect: Expect::default(),
    }
}
