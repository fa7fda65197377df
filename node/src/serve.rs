//! A node from its start to its stop: models, sockets, hosts, and the order in which they go again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use starling_actors::{
    CopyArguments, CopyPeers, ModelArguments, NodeArguments, NodeHandle, Observer, Peers, Reservations,
    TokenSealer, Tracing, watch_pulse,
};
use starling_engine::catalogue::Home;
use starling_protocol::Generation;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::cluster::{
    self, Cluster, ClusterCopies, ControlPlane, ControlReservations, DataPlane, DrainOrder, Facts, Feed,
    Observers, Watcher,
};
use crate::config::load::variable_of;
use crate::config::{Loaded, Secret, Settings, TlsSettings};
use crate::exit::{Exit, Failure};
use crate::gateway::gstreamer::Workers;
use crate::gateway::{Calls, Gateway, GatewayState, PageSettings, Startup, quic};
use crate::kubernetes;
use crate::measured::MeasuredSessions;
use crate::metrics::{Metrics, MetricsOptions};
use crate::models::{LiveModels, OnDemand, ReadSettings, as_decoded, resolve};
use crate::room::MachineRoom;
use crate::sessions::Sessions;
use crate::signals::{Hangups, Signals};
use crate::telemetry::Log;
use crate::tenants::Tenants;
use crate::tls::{Certificate, CertificateFiles, file_ends_unix_s};
use crate::traces::{OwnSpans, TraceSettings, Traces, tracing_of};
use crate::watched::WatchedSessions;

mod draining;
mod limits;
mod sockets;
mod starting;
mod telling;

use draining::{Drain, Partings};
use limits::limits;
use sockets::{Listening, Sockets};
use starting::Starting;
use telling::Telling;

/// How long connections may take to write what is left once all sessions are over.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long hosts may take to end; after it they are left to notice that their parent is gone.
const HOSTS_END: Duration = Duration::from_secs(10);

/// Serves until a signal, or until something that it can't do without fails. At SIGHUP the settings are read again with
/// `reread`.
///
/// # Errors
/// The node could not start.
pub async fn serve(
    loaded: Loaded,
    reread: ReadSettings,
    home: Home,
    log: Log,
    traced: Option<(TraceSettings, OwnSpans)>,
) -> Result<(), Failure> {
    // First of all: as process 1 there is no default action, and a signal before this would be lost.
    let mut signals = Signals::new().map_err(|error| Failure::new(Exit::Os, error))?;
    let hangups = Hangups::new().map_err(|error| Failure::new(Exit::Os, error))?;
    let mut starting = Starting::begin();
    starting.stage("configure");
    let settings = loaded.settings;
    for address in &loaded.open {
        tracing::warn!(
            "{address} can be reached by others and no key is asked for: anybody may use this node there"
        );
    }
    let tenants = Tenants::with_tokens(loaded.tenants, loaded.tokens);
    let certificate = certificate(&settings.tls)?;
    starting.stage("bind");
    // Before the models: a port in use is told at once, not after their loading.
    let mut sockets = Sockets::bind(&settings).await?;
    starting.stage("verify");
    let served = resolve(&home, &settings).await?;
    let options =
        MetricsOptions { legacy_names: settings.metrics.legacy_names, disk: home.root().to_owned() };
    let metrics = Arc::new(Metrics::new(served.iter().map(|model| model.name.as_str()), options));
    if let Some(ends) = file_ends_unix_s(&settings.cluster.cert_file) {
        metrics.note_cluster_certificate(ends);
    }
    starting.stage("launch");
    let (feed, partings) = (Arc::<Feed>::default(), Arc::<Partings>::default());
    let facts = Facts { addresses: sockets.addresses(&settings)?, ..cluster::facts(&settings.cluster) };
    let observer = Observers(vec![
        Arc::clone(&metrics) as Arc<dyn Observer>,
        Arc::clone(&feed) as Arc<dyn Observer>,
        Arc::clone(&partings) as Arc<dyn Observer>,
    ]);
    let observer = Arc::new(observer) as Arc<dyn Observer>;
    let secret = loaded.secret.unwrap_or_else(|| {
        if sockets.gossip.is_some() {
            tracing::info!("no cluster secret is set: any process of this machine can join");
        }
        Secret::well_known()
    });
    let cluster = Arc::new(
        Cluster::start(&settings.cluster, &secret, facts, sockets.gossip.take(), Arc::clone(&observer))
            .await?,
    );
    let traces = match traced {
        None => None,
        Some((settings, own)) => {
            let traces = Traces::start(cluster.node(), &settings, metrics.spans_dropped())?;
            own.connect(&traces);
            Some(traces)
        }
    };
    let room = MachineRoom::look();
    let live = |node: &NodeHandle| {
        let (home, room) = (home.clone(), room.clone());
        let live =
            LiveModels::new(node.clone(), (home, room), settings.clone(), Arc::clone(&tenants), reread, log);
        cluster.manage(Arc::clone(&live));
        live
    };
    let (node, live) = match (cluster.membership(), sockets.data.take(), sockets.control.take()) {
        (Some(membership), Some(data), Some(control)) => {
            let name = &cluster.node().name;
            let trust = cluster::trust(&settings.cluster, &secret, name)?;
            let (data, incoming) = DataPlane::start(name, data, &trust, cluster.directory())?;
            let zone = settings.cluster.zone.clone();
            let keepers = Arc::new(ClusterCopies::new(cluster.directory(), data.link(), zone));
            let copies = CopyArguments {
                peers: Some(Arc::clone(&keepers) as Arc<dyn CopyPeers>),
                copies: settings.cluster.copies,
                memory_bytes: settings.cluster.copy_memory,
                patience: settings.cluster.copy_patience,
                sealer: Arc::new(TokenSealer::shared(&cluster::token_key(&secret)?)),
                pulse: Some(membership.pulse()),
                ..CopyArguments::alone(name.clone())
            };
            let reservations = Arc::<ControlReservations>::default();
            let peers = data.peers(Arc::clone(&reservations) as Arc<dyn Reservations>);
            let told = (Arc::clone(&observer), tracing_of(traces.as_ref()));
            let starts = start((&settings, &room), &served, told, Some(peers), copies);
            let node = starts.instrument(starting.loading()).await?;
            let id = cluster.node().clone();
            let live = live(&node);
            let models = Arc::clone(&live);
            let control =
                ControlPlane::start(id, control, &trust, node.clone(), models, Arc::clone(&feed), &cluster)
                    .await?;
            keepers.ask_over(control.handle());
            cluster.operate_over(control.handle());
            reservations.reach_by(control.handle());
            let (link, handle) = (data.link(), control.handle());
            tokio::spawn(control.run(membership.clone(), link));
            tokio::spawn(data.run(node.clone(), incoming, membership.clone(), handle));
            (node, live)
        }
        _ => {
            let copies = CopyArguments::alone(cluster.node().name.clone());
            let told = (observer, tracing_of(traces.as_ref()));
            let starts = start((&settings, &room), &served, told, None, copies);
            let node = starts.instrument(starting.loading()).await?;
            let live = live(&node);
            (node, live)
        }
    };
    let mut sessions = Arc::new(node.clone()) as Arc<dyn Sessions>;
    if settings.scaling.on_demand {
        sessions = Arc::new(OnDemand::new(sessions, Arc::clone(&live)));
    }
    let measured = Arc::new(MeasuredSessions::new(Arc::clone(&sessions), Arc::clone(&metrics)));
    let watched = WatchedSessions::new(measured, settings.sessions.max_audio, Arc::clone(&metrics));
    if cluster.membership().is_none() {
        tokio::spawn(watch_pulse(Arc::clone(&metrics) as Arc<dyn Observer>));
    }
    if let Some(certificate) = &certificate {
        metrics.watch_certificate(certificate);
    }
    let gateway = Gateway {
        sessions: Arc::new(watched),
        tenants: Arc::clone(&tenants),
        cluster: Arc::clone(&cluster),
        watcher: Watcher::new(Arc::clone(&cluster), Arc::clone(&sessions), feed),
        page: PageSettings {
            quic_port: sockets.quic.as_ref().and_then(|socket| socket.local_addr().ok()).map(|at| at.port()),
            certificate: certificate.clone(),
            chaos: settings.chaos.enabled,
            viewer_url: settings.tracing.viewer_url.clone(),
        },
        settings: settings.gateway.clone(),
        linger: settings.sessions.linger,
        idle: settings.sessions.idle,
        metrics,
        audiosocket: settings.audiosocket.clone(),
        takes_calls: settings.listen.takes_calls(),
        calls: Calls::new(settings.sessions.linger),
        wyoming: settings.wyoming.clone(),
        workers: Workers::default(),
        rounds: Arc::default(),
        started: Startup::default(),
        stopping: CancellationToken::new(),
        drain_deadline: settings.shutdown.drain_deadline,
        closing: CancellationToken::new(),
        connections: TaskTracker::new(),
    };
    tokio::spawn(room.keep_looking(gateway.stopping.clone()));
    let telling = Telling::start(&cluster, &sessions, gateway.stopping.clone());
    let scaling = kubernetes::start(&settings, &cluster, &sessions, &gateway.metrics, &gateway.stopping)?;
    let tls = certificate.as_ref().map(Certificate::acceptor).transpose();
    let tls = tls.map_err(|error| Failure::new(Exit::Software, error))?;
    let endpoint = sockets
        .quic
        .take()
        .zip(certificate.as_ref())
        .map(|(socket, certificate)| quic::listen(socket, certificate, &settings.gateway));
    let endpoint = endpoint.transpose().map_err(|error| Failure::new(Exit::Os, error))?;
    if let Some(certificate) = certificate {
        tokio::spawn(certificate.keep_fresh(gateway.stopping.clone()));
    }
    let listening = sockets.serve(&GatewayState::from(gateway), tls.as_ref(), endpoint, &settings);
    for model in &served {
        tracing::info!(model = model.name, engine = model.engine.label(), "model is being loaded");
    }
    tokio::spawn(reload(hangups, live, listening.gateway.stopping.clone()));
    starting.up(listening.gateway.clone());

    let mut order = DrainOrder { deadline: settings.shutdown.drain_deadline, stay: None };
    let mut cause = "signal";
    let end = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, deadline = ?order.deadline, "stopping; a second signal stops at once");
            Ok(())
        }
        asked = cluster.drain_requested() => {
            (order, cause) = (asked, "order");
            let DrainOrder { deadline, stay } = order;
            tracing::info!(?deadline, ?stay, "told to drain; {}", match stay {
                None => "a signal stops at once",
                Some(_) => "a signal has it end, and a second one at once",
            });
            Ok(())
        }
        by = cluster.superseded() => {
            cause = "superseded";
            Err(superseded(&cluster, by))
        }
        () = node.failed() => {
            return Err(Failure::new(Exit::Software, anyhow!("the node can't go on; the log says why")));
        }
    };
    let (hurry, patience) = (CancellationToken::new(), settings.shutdown.drain_deadline);
    let stopping = async {
        let drain = Drain::begin(&node, order, cause, partings).await;
        listening.gateway.stopping.cancel();
        let stopped = stop(node, &cluster, telling, listening, (order, &hurry, patience), drain);
        // Another node may lead from now on.
        tokio::join!(scaling.finish(), stopped);
        if let Some(traces) = traces {
            traces.finish().await;
        }
    };
    let mut stopping = std::pin::pin!(stopping);
    if order.stay.is_some() {
        tokio::select! {
            () = &mut stopping => {
                tracing::info!("stopped");
                return end;
            }
            // The one by which the platform takes it away.
            signal = signals.next() => {
                tracing::info!(signal, deadline = ?patience, "stopping; a second signal stops at once");
                hurry.cancel();
            }
        }
    }
    tokio::select! {
        () = stopping => {
            tracing::info!("stopped");
            end
        }
        signal = signals.next() => {
            tracing::warn!(signal, "stopping at once");
            Err(Failure::new(Exit::Interrupted, anyhow!("stopped by a second {signal}")))
        }
    }
}

/// Reads the settings again at each SIGHUP, until the node stops.
async fn reload(mut hangups: Hangups, live: Arc<LiveModels>, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = hangups.next() => {
                tracing::info!("told to read the settings again");
                live.reload().await;
            }
            () = stopping.cancelled() => return,
        }
    }
}

fn superseded(cluster: &Cluster, by: Generation) -> Failure {
    let node = cluster.node();
    let error = anyhow!(
        "this is node {node}, and {}#{by} was started later: give each node a name of its own in cluster.node_id (flag \
         --node-id); or the clock was set back",
        node.name
    );
    Failure::new(Exit::Usage, error)
}

async fn stop(
    node: NodeHandle,
    cluster: &Cluster,
    telling: Telling,
    listening: Listening,
    (order, hurry, patience): (DrainOrder, &CancellationToken, Duration),
    drain: Drain,
) {
    // The others hear that this node drains before its clients do: some may be sent to them.
    let telling = telling.told().await;
    // A thin client can't be told to go elsewhere; refusing the connection sends it there. HTTP goes on: clients of open
    // sessions may have to come back, and operators want to look.
    listening.thin_accepting.cancel();
    cluster.retire(&node, order, (hurry, patience), || drain.done()).await;
    telling.finish().await;
    cluster.leave().await;
    listening.http_accepting.cancel();
    listening.gateway.connections.close();
    let _ = tokio::time::timeout(LAST_WORDS, listening.gateway.connections.wait()).await;
    listening.gateway.closing.cancel();
    if tokio::time::timeout(HOSTS_END, node.stop()).await.is_err() {
        tracing::warn!("decoder hosts have not ended within {HOSTS_END:?}; they end when this process does");
    }
}

async fn start(
    (settings, room): (&Settings, &MachineRoom),
    served: &[ModelArguments],
    (observer, tracing): (Arc<dyn Observer>, Tracing),
    peers: Option<Arc<dyn Peers>>,
    copies: CopyArguments,
) -> Result<NodeHandle, Failure> {
    let models = as_decoded(settings, room, served.to_vec());
    let mut arguments =
        NodeArguments::new(models, decoder_program(settings)?, limits(&settings.sessions), observer, copies);
    arguments.peers = peers;
    arguments.tracing = tracing;
    NodeHandle::start(arguments)
        .await
        .map_err(|error| Failure::new(Exit::Software, anyhow!(error).context("the node could not start")))
}

fn decoder_program(settings: &Settings) -> Result<PathBuf, Failure> {
    let set = &settings.decoder.program;
    let program = if set.as_os_str().is_empty() {
        let own = std::env::current_exe().map_err(|error| Failure::new(Exit::Os, error))?;
        own.with_file_name("starling-decoder")
    } else {
        set.clone()
    };
    if program.is_file() {
        return Ok(program);
    }
    let error = anyhow!(
        "the program that decodes is not at {}; install starling-decoder beside starling, or set decoder.program (flag \
         --decoder, variable {})",
        program.display(),
        variable_of("decoder.program"),
    );
    Err(Failure::new(Exit::NoInput, error))
}

fn certificate(settings: &TlsSettings) -> Result<Option<Arc<Certificate>>, Failure> {
    if settings.cert_file.as_os_str().is_empty() {
        return Ok(None);
    }
    let files = CertificateFiles { cert: settings.cert_file.clone(), key: settings.key_file.clone() };
    let loaded =
        Certificate::load(files).context("the certificate for clients (tls.cert_file, tls.key_file)");
    loaded.map(Some).map_err(|error| Failure::new(Exit::Usage, error))
}
