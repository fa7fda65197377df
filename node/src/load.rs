//! `starling load`: one recording, sent by many clients again and again, and what they met.
//!
//! Owns: the clients' turns, and the judgement of what they were told. Must never: know of a server otherwise than through the
//! SDK, or hold more than a bounded amount for however long it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use starling_client::{ApiKey, Client, ClientConfig};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::caller::{Audio, Caller};
use self::report::{Report, Setting};
use self::tally::Tally;
use crate::exit::{Exit, Failure};
use crate::keys::KeyArguments;
use crate::remote::{TrustArguments, print};
use crate::signals::Signals;
use crate::terminal::plain;
use crate::transcribe::recording::Recording;

mod caller;
mod report;
mod score;
mod spread;
mod tally;

/// The longest recording, as mono PCM16: over two hours at 16 kHz. It is held once for all clients.
const MOST_AUDIO_BYTES: usize = 256 << 20;

/// How often it is told how far it has come.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Outcomes that wait to be counted, which takes microseconds.
const OUTCOMES: usize = 256;

/// What `load` is given.
#[derive(Debug, clap::Args)]
pub struct LoadArguments {
    /// A recording, as `transcribe` takes it
    #[arg(value_name = "AUDIO")]
    pub audio: PathBuf,
    /// How many clients there are at once
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: u32,
    /// How long a client waits after each recording; their first ones begin spread over this time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub interval: Duration,
    /// How often each client sends the recording
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub requests: u32,
    /// Send as fast as the server takes it, not at the pace of speech
    #[arg(long)]
    pub fast: bool,
    /// The transcript that there has to be, as text [default: the first undisturbed answer]
    #[arg(long, value_name = "FILE")]
    pub expect: Option<PathBuf>,
    /// Write the report as JSON, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The server (ws://, wss:// or quic://); may be given several times, each client begins at the next of them
    #[arg(
        long = "server",
        value_name = "URL",
        default_value = "ws://127.0.0.1:8080",
        env = "STARLING_SERVER"
    )]
    pub servers: Vec<String>,
    /// A key, if the server asks for one.
    #[command(flatten)]
    pub key: KeyArguments,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: TrustArguments,
    /// A model by name [default: the server's]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// The language that is spoken, such as en; the server chooses a model for it
    #[arg(long, value_name = "TAG")]
    pub language: Option<String>,
    /// Print nothing but the report
    #[arg(long, short)]
    pub quiet: bool,
}

/// Loads servers, and reports. A signal ends it early, with the report of what was done.
///
/// # Errors
/// Exit code 1 if a word was lost or came twice, or a session broke; 75 if nothing was lost but sessions were refused; 69 if
/// nothing at all was transcribed; 65 if the transcript has no words, so that none could be lost.
pub async fn load(arguments: LoadArguments) -> Result<(), Failure> {
    let expected = arguments.expect.as_deref().map(expected).transpose()?;
    let clients = clients(&arguments)?;
    let audio = Arc::new(held(&arguments.audio).await?);
    let mut signals = Signals::new().map_err(|error| Failure::new(Exit::Os, error))?;
    let (told, mut outcomes) = mpsc::channel(OUTCOMES);
    let mut callers = JoinSet::new();
    for number in 0..arguments.clients {
        let caller = Caller {
            client: clients[number as usize % clients.len()].clone(),
            audio: Arc::clone(&audio),
            model: arguments.model.clone(),
            language: arguments.language.clone(),
            fast: arguments.fast,
            first_after: arguments.interval.mul_f64(f64::from(number) / f64::from(arguments.clients)),
            interval: arguments.interval,
            requests: arguments.requests,
        };
        callers.spawn(caller.run(told.clone()));
    }
    drop(told);
    let began = Instant::now();
    let mut tally = Tally::default();
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.tick().await;
    let interrupted = loop {
        tokio::select! {
            outcome = outcomes.recv() => match outcome {
                Some(outcome) => {
                    if let Some(first) = tally.add(outcome) {
                        eprintln!("starling: {}", plain(&first));
                    }
                }
                None => break false,
            },
            _ = ticks.tick(), if !arguments.quiet => {
                eprintln!("{:>5} s: {}", began.elapsed().as_secs(), tally.progress());
            }
            _ = signals.next() => break true,
        }
    };
    if interrupted {
        // Sessions that are open are given up; they are nobody's loss.
        callers.shutdown().await;
    }
    while let Some(ended) = callers.join_next().await {
        ended.map_err(|error| Failure::new(Exit::Software, error))?;
    }
    let setting = Setting {
        audio: arguments.audio.display().to_string(),
        audio_seconds: audio.seconds(),
        clients: arguments.clients,
        requests: arguments.requests,
        servers: arguments.servers.clone(),
        elapsed: began.elapsed(),
        interrupted,
    };
    let report = Report::new(setting, &tally, expected.as_deref());
    print(&report.table())?;
    if let Some(path) = &arguments.json {
        written(path, &report)?;
    }
    report.verdict().map_err(|(exit, why)| Failure::new(exit, anyhow!(why)))
}

/// One for each server, which is the first that it tries.
fn clients(arguments: &LoadArguments) -> Result<Vec<Client>, Failure> {
    let servers = &arguments.servers;
    let client = |first: usize| {
        let turned = servers.iter().cycle().skip(first).take(servers.len()).cloned();
        let mut config = ClientConfig::new(turned);
        config.api_key = arguments.key.api_key.clone().map(ApiKey::from);
        config.ca_file.clone_from(&arguments.trust.ca);
        Client::new(config).map_err(|error| Failure::new(Exit::Usage, error))
    };
    (0..servers.len().max(1)).map(client).collect()
}

fn expected(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()));
    text.map_err(|error| Failure::new(Exit::NoInput, error))
}

async fn held(path: &Path) -> Result<Audio, Failure> {
    let name = |failure: Failure| {
        Failure::new(failure.exit, failure.error.context(format!("{} is of no use", path.display())))
    };
    let mut recording = Recording::open(path).await.map_err(name)?;
    let mut pcm = Vec::new();
    // A second at a time.
    let most = recording.sample_rate as usize * 2;
    while let Some(piece) = recording.next(most).await.map_err(name)? {
        pcm.extend_from_slice(&piece);
        if pcm.len() > MOST_AUDIO_BYTES {
            let error = anyhow!("it is longer than {MOST_AUDIO_BYTES} bytes of samples, which is the most");
            return Err(name(Failure::new(Exit::Data, error)));
        }
    }
    if pcm.is_empty() {
        return Err(name(Failure::new(Exit::Data, anyhow!("it has no samples"))));
    }
    Ok(Audio { pcm, sample_rate: recording.sample_rate })
}

fn written(path: &Path, report: &Report) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(report).map_err(|error| Failure::new(Exit::Software, error))?;
    let wrote = std::fs::write(path, json + "\n");
    let wrote = wrote.with_context(|| format!("{} cannot be written", path.display()));
    wrote.map_err(|error| Failure::new(Exit::Os, error))
}
