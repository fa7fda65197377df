//! One scenario from beginning to end: nodes, an undisturbed caller, the load, the faults, the judgement.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout};

use crate::callers::{Manner, Told, call, stuck};
use crate::cluster::Cluster;
use crate::faults::{Mark, Undos, inflict};
use crate::report::{Caller, Course, Report};
use crate::scenario::{Load, Scenario};
use crate::script::Script;
use crate::theirs::Theirs;
use crate::tool;
use crate::verdict::{Shape, judge, text};

/// Callers of a real engine, unless `--callers` says otherwise: a machine holds so many beside the nodes.
pub(crate) const REAL_CALLERS: usize = 4;

/// Callers beyond these say what others say: thousands of recordings would not fit into memory.
const MOST_SCRIPTS: usize = 200;

/// Beyond the last thing to be done: whole clusters start again within this.
const FAULTS_PATIENCE: Duration = Duration::from_secs(300);

/// Where things are.
pub(crate) struct Bench {
    /// Folder of `starling` and `starling-decoder`.
    pub(crate) programs: PathBuf,
    pub(crate) home: PathBuf,
    pub(crate) real: bool,
    pub(crate) theirs: Option<Theirs>,
    pub(crate) out: PathBuf,
    /// Folder of the scenarios.
    pub(crate) scenarios: PathBuf,
    /// Folder of older programs, for nodes that are to run them.
    pub(crate) previous: Option<PathBuf>,
    /// Whether this process is in namespaces of its own.
    pub(crate) apart: bool,
}

impl Bench {
    pub(crate) fn model(&self) -> &'static str {
        if self.real { "moonshine-tiny-en" } else { "scripted" }
    }

    pub(crate) fn script(&self, number: usize, load: &Load) -> Result<Script> {
        if self.real { Script::real(&self.home) } else { Ok(Script::scripted(number, load)) }
    }
}

pub(crate) async fn run(bench: &Bench, scenario: &Scenario) -> Result<Report> {
    let mut cluster = Cluster::start(bench, scenario)?;
    let mut undos = Undos::default();
    let mut told = tokio::select! {
        told = under_load(bench, scenario, &mut cluster, &mut undos) => told,
        signal = interrupted() => Err(anyhow!("interrupted by {signal}")),
    };
    // However it ended: nodes of somebody's own outlive this program.
    let left = undos.all(&mut cluster).await;
    match &mut told {
        Ok(report) => report.failures.extend(left),
        Err(_) => left.iter().for_each(|what| eprintln!("{what}")),
    }
    if told.as_ref().is_ok_and(|report| !report.failures.is_empty()) {
        cluster.keep_logs(&bench.out, &scenario.name)?;
    }
    // What nodes said explains why the scenario could not be carried out; what it found is in the report.
    told.with_context(|| format!("the nodes' logs end with\n{}", cluster.log_tails()))
}

/// Waits until this program is told to end. From then on it is not ended by that.
pub(crate) async fn interrupted() -> &'static str {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "SIGINT",
        () = terminated => "SIGTERM",
    }
}

async fn under_load(
    bench: &Bench,
    scenario: &Scenario,
    cluster: &mut Cluster,
    undos: &mut Undos,
) -> Result<Report> {
    cluster.whole().await.context("the nodes did not become one cluster")?;
    let model = bench.theirs.is_none().then(|| bench.model().to_owned());
    let gateways = cluster.gateways();
    let api_key = cluster.access().key().map(str::to_owned);
    let hold = Duration::from_secs_f64(scenario.load.hold_s);
    let manner = |number: usize, chunk: Option<Duration>, origin: Instant, start: Instant| {
        let first = if scenario.load.at_first { 0 } else { number % gateways.len() };
        let turned = gateways.iter().cycle().skip(first).take(gateways.len());
        Manner {
            servers: turned.cloned().collect(),
            ca_file: bench.theirs.as_ref().and_then(|theirs| theirs.ca_file.clone()),
            api_key: api_key.clone(),
            hold: if chunk.is_some() { hold } else { Duration::ZERO },
            model: model.clone(),
            chunk,
            liveness: scenario.load.liveness_s.map(Duration::from_secs_f64),
            partial_interval_ms: scenario.load.partial_interval_ms,
            origin,
            start,
        }
    };

    // The last caller is an innocent one.
    let callers = scenario.load.callers;
    let scripts: Vec<Arc<Script>> = (0..callers.min(MOST_SCRIPTS))
        .map(|number| bench.script(number, &scenario.load).map(Arc::new))
        .collect::<Result<_>>()?;
    let script = scripts.last().context("nobody speaks")?;
    let now = Instant::now();
    let calm = call(&manner(0, None, now, now), script).await;
    let (calm_text, shape) = (text(&calm.finals), Shape::of(&calm.finals));
    let wrong = judge(&calm, script, (&calm_text, &shape)).faults;
    ensure!(wrong.is_empty() && !calm_text.is_empty(), "undisturbed, a caller got {calm_text:?}: {wrong:?}");

    let mut stuck_clients = Vec::new();
    for _ in 0..scenario.load.stuck {
        stuck_clients.push(stuck(gateways[0].clone()).await?);
    }
    let (before, noticed_before) = (cluster.losses(), cluster.noticed());
    let origin = Instant::now();
    let chunk = Duration::from_millis(scenario.load.chunk_ms);
    let mut calling = Vec::new();
    let by_tool = scenario.load.requests.is_some();
    for number in 0..if by_tool { 0 } else { callers } {
        let script = Arc::clone(&scripts[number % scripts.len()]);
        let share = number as f64 / callers as f64;
        let start = origin + Duration::from_secs_f64(scenario.load.spread_s * share);
        let (how, what) = (manner(number, Some(chunk), origin, start), Arc::clone(&script));
        let spoken = tokio::spawn(async move { call(&how, &what).await });
        calling.push((script, spoken));
    }
    let loading = async {
        match scenario.load.requests {
            Some(requests) => {
                tool::load(bench, &scenario.load, requests, &gateways, script, &calm_text).await.map(Some)
            }
            None => Ok(None),
        }
    };
    let mut marks: Vec<Mark> = Vec::new();
    let inflicting = timeout(FAULTS_PATIENCE, inflict(cluster, &scenario.faults, origin, &mut marks, undos));
    let (loaded, inflicted) = tokio::join!(loading, inflicting);
    let loaded = loaded?;
    // Whatever came to no end is undone before callers are waited for.
    let mut failures = undos.all(cluster).await;
    match inflicted {
        Ok(Ok(())) => {}
        Ok(Err(error)) => failures.push(format!("a fault: {error:#}")),
        Err(_) => failures.push(format!("the faults took longer than {FAULTS_PATIENCE:?}")),
    }
    let mut told = Vec::new();
    for (script, calling) in calling {
        let heard: Told = calling.await.context("a caller panicked")?;
        let judged = judge(&heard, &script, (&calm_text, &shape));
        told.push(Caller { told: heard, judged });
    }
    let took_s = (Instant::now() - origin).as_secs_f64();
    let decoders_lost = cluster.losses().zip(before).map(|(after, before)| after.since(&before));
    let noticed = cluster.noticed().zip(noticed_before).map(|(after, before)| after.since(before));
    let packets_dropped = cluster.packets_dropped().filter(|_| scenario.drops_packets());
    drop(stuck_clients);
    // Whoever was left behind, a client that is stuck too, is let go by its node's linger, which is not waited for here.
    let sessions: Vec<String> = told.iter().filter_map(|caller| caller.told.session.clone()).collect();
    if scenario.load.stuck == 0
        && let Err(error) = cluster.clean(&sessions).await
    {
        failures.push(format!("all callers have gone, and the cluster is not as before: {error:#}"));
    }
    failures.extend(cluster.alarms(&scenario.expect.may_log));
    let course = Course {
        model: bench.model(),
        took_s,
        faults: marks,
        decoders_lost,
        noticed,
        packets_dropped,
        delays_by: cluster.delays_by(),
        loaded,
    };
    Ok(Report::new(scenario, course, told, failures))
}
