//! The command line: what can be typed, and what each command is given.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use starling_engine::catalogue::Home;

use crate::build;
use crate::config::{self, Flag, Loaded, LogFormat, ModelSettings};
use crate::exit::{Exit, Failure};
use crate::keys::{KeyArguments, KeysCommand};
use crate::load::LoadArguments;
use crate::remote::TrustArguments;
use crate::status::StatusArguments;
use crate::tls::SelfSigned;
use crate::traces::{OwnSpans, TraceSettings, layer};

const EXIT_CODES: &str = "\
Exit codes: 0 all done; 1 some of several things failed; 64 command line or configuration wrong; 65 an input is damaged \
or of the wrong kind; 66 a file or model is missing; 69 a server or source cannot be reached; 70 fault of the program; \
71 refused by the system (address in use, disk full); 75 the server is busy; 130 stopped by a second signal.";

/// A self-hosted speech-to-text server that never drops a caller.
#[derive(Debug, Parser)]
#[command(name = "starling", args_override_self = true, version, long_version = build::LONG_VERSION, after_help = EXIT_CODES)]
pub struct Cli {
    /// Folder of models and libraries [default: the nearest .starling upwards, else the user's data folder]
    #[arg(long, global = true, value_name = "DIR", env = "STARLING_HOME")]
    pub home: Option<PathBuf>,
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve speech recognition
    Serve(ServeArguments),
    /// Send recordings to a server and print what was said
    Transcribe(TranscribeArguments),
    /// List, fetch, verify, remove or import models
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Send a recording from many clients at once, again and again, and count what they lose
    Load(LoadArguments),
    /// Show a cluster: its nodes, what they serve, and to whom
    Status(StatusArguments),
    /// Let a node go: it takes nothing new, hands over what it has, and ends
    Drain(DrainArguments),
    /// Draw API keys, and hash them for the configuration
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Make certificates for trials
    #[command(subcommand)]
    Cert(CertCommand),
    /// Check a configuration and print what would be in force
    CheckConfig(ConfigArguments),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Where settings come from.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArguments {
    /// The configuration file [default: none, every setting at its default]
    #[arg(long, value_name = "FILE", env = "STARLING_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address of the native protocol and HTTP, or "off"
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<String>,
    /// Address of the vosk-server protocol, or "off"
    #[arg(long, value_name = "ADDRESS")]
    pub vosk: Option<String>,
    /// Address for Asterisk's AudioSocket, or "off"
    #[arg(long, value_name = "ADDRESS")]
    pub audiosocket: Option<String>,
    /// Address for Wyoming, of Home Assistant, or "off"
    #[arg(long, value_name = "ADDRESS")]
    pub wyoming: Option<String>,
    /// Address of the native protocol and HTTP over TLS, or "off"
    #[arg(long, value_name = "ADDRESS")]
    pub https: Option<String>,
    /// Address of the vosk-server protocol over TLS, or "off"
    #[arg(long, value_name = "ADDRESS")]
    pub vosk_tls: Option<String>,
    /// Address for AudioSocket over TLS, or "off"
    #[arg(long, value_name = "ADDRESS")]
    pub audiosocket_tls: Option<String>,
    /// Address for Wyoming over TLS, or "off"
    #[arg(long, value_name = "ADDRESS")]
    pub wyoming_tls: Option<String>,
    /// Address of the native protocol over QUIC and WebTransport (UDP), or "off"
    #[arg(long, value_name = "ADDRESS")]
    pub quic: Option<String>,
    /// The node's name in its cluster
    #[arg(long, value_name = "NAME")]
    pub node_id: Option<String>,
    /// Address on which nodes find each other (UDP), or "off"
    #[arg(long, value_name = "ADDRESS")]
    pub cluster_listen: Option<String>,
    /// Nodes to join by, as host:port with commas between them
    #[arg(long, value_name = "LIST")]
    pub seeds: Option<String>,
    /// File with the secret that all nodes share
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<String>,
    /// Serve this model and no other; may be given several times, the first is the default
    #[arg(long = "model", value_name = "NAME")]
    pub models: Vec<String>,
    /// Path of the program that decodes
    #[arg(long, value_name = "FILE")]
    pub decoder: Option<String>,
    /// How a line of the log looks
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How long open sessions may go on after a signal to stop, such as 25s
    #[arg(long, value_name = "TIME")]
    pub drain_deadline: Option<String>,
    /// Listen beyond loopback although anybody who reaches the address can then use the node
    #[arg(long)]
    pub insecure_open: bool,
}

/// What is to be done with certificates.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Make a certificate that is signed by itself, and its key: cert.pem and key.pem
    ///
    /// For trials: every client has to be told to trust it; `starling` itself by --ca cert.pem, a browser that speaks WebTransport by the SHA-256 that is printed.
    SelfSigned {
        /// A name or address that clients connect to; may be given several times
        #[arg(long = "name", value_name = "HOST", default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned()])]
        names: Vec<String>,
        /// How long it holds. Browsers take none of more than 14 days by its hash
        #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u16).range(1..=3650))]
        days: u16,
        /// The folder
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
    },
}

/// What `serve` is given.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Where settings come from.
    #[command(flatten)]
    pub config: ConfigArguments,
}

/// What `transcribe` is given.
#[derive(Debug, Args)]
pub struct TranscribeArguments {
    /// Recordings (WAV, FLAC, MP3, AAC, MP4, WebM, Ogg Vorbis or Opus; 8 to 48 kHz), or - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Send at the pace of speech, as a microphone would
    #[arg(long)]
    pub realtime: bool,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
    /// Write one file for each recording into this folder rather than to standard output
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// The server (ws://, wss:// or quic://); may be given several times, they are tried in turn
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
    /// Ask for words with their times, where the model has them (shown by json)
    #[arg(long)]
    pub words: bool,
    /// Print neither progress nor partial results
    #[arg(long, short)]
    pub quiet: bool,
}

/// What `drain` is given.
#[derive(Debug, Args)]
pub struct DrainArguments {
    /// The node's name
    pub node: String,
    /// A node of the cluster, on this machine
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "STARLING_SERVER")]
    pub server: String,
    /// A key, if the server asks for one.
    #[command(flatten)]
    pub key: KeyArguments,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: TrustArguments,
    /// Longest time that sessions may go on [default: the setting shutdown.drain_deadline of the node that is asked]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub deadline: Option<Duration>,
    /// Have it stay for so long when nobody is left, until a signal or another drain ends it: where it would be started again at once
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub stay: Option<Duration>,
}

/// How a transcript is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OutputFormat {
    /// One line for each segment
    #[default]
    Text,
    /// One JSON object for each recording
    Json,
    /// SubRip subtitles
    Srt,
    /// WebVTT subtitles
    Vtt,
}

/// What is to be done with models.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// With those in the home folder.
    #[command(flatten)]
    Catalogue(CatalogueCommand),
    /// Have running nodes serve a model, too or in place of the one of its name
    ///
    /// Open sessions go on with what they began with. It lasts until a node is restarted or reads its configuration again: write the model there, too.
    Add(AddArguments),
}

/// What is to be done with the models in the home folder.
#[derive(Debug, Subcommand)]
pub enum CatalogueCommand {
    /// Print what there is and what is prepared
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch and prepare models with what they need
    Fetch {
        /// Names out of the list
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Hash prepared models and compare with what was prepared
    Verify {
        /// Names out of the list [default: everything that is prepared]
        names: Vec<String>,
    },
    /// Delete prepared models
    Remove {
        /// Names out of the list
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Prepare a Kaldi nnet3 folder of an older system as a Vosk model
    Import(ImportArguments),
}

/// What `models add` is given. What is left out is as each node's configuration has it.
#[derive(Debug, Args)]
pub struct AddArguments {
    /// The model's name; it has to be prepared where it is to be served
    pub name: String,
    /// A node of the cluster, on this machine
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "STARLING_SERVER")]
    pub server: String,
    /// A key, if the server asks for one.
    #[command(flatten)]
    pub key: KeyArguments,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: TrustArguments,
    /// Only on this node [default: on all of the cluster]
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Decoder hosts: processes that share nothing
    #[arg(long)]
    pub hosts: Option<u16>,
    /// Streams that one host takes at once
    #[arg(long)]
    pub slots: Option<u16>,
    /// Decode threads of one host; 0 shares the machine's cores out
    #[arg(long)]
    pub threads: Option<u16>,
    /// Recognizers of one host that are warmed before it counts as ready
    #[arg(long)]
    pub prewarm: Option<u16>,
}

/// What `models import` is given.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// The folder; it is only read
    pub dir: PathBuf,
    /// The worker's YAML file with its decoding settings
    #[arg(long, value_name = "FILE")]
    pub engine: Option<PathBuf>,
    /// What the model will be called [default: the folder's name]
    #[arg(long)]
    pub name: Option<String>,
    /// BCP 47 tag of the language
    #[arg(long, default_value = "und")]
    pub language: String,
    /// SPDX expression of the licence
    #[arg(long, default_value = "LicenseRef-unknown")]
    pub licence: String,
}

impl ConfigArguments {
    /// Reads the settings.
    ///
    /// # Errors
    /// Exit code 64: see [`crate::config::ConfigError`].
    pub fn load(&self) -> Result<Loaded, Failure> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let loaded = config::load(self.config.as_deref(), environment, &self.flags(), self.insecure_open);
        let mut loaded = loaded.map_err(|error| Failure::new(Exit::Usage, error))?;
        self.choose_models(&mut loaded.settings.models);
        Ok(loaded)
    }

    fn flags(&self) -> Vec<Flag> {
        let log_format = self.log_format.map(|format| match format {
            LogFormat::Human => "human".to_owned(),
            LogFormat::Json => "json".to_owned(),
        });
        let given = [
            ("listen.http", "--http", &self.http),
            ("listen.vosk", "--vosk", &self.vosk),
            ("listen.audiosocket", "--audiosocket", &self.audiosocket),
            ("listen.wyoming", "--wyoming", &self.wyoming),
            ("listen.https", "--https", &self.https),
            ("listen.vosk_tls", "--vosk-tls", &self.vosk_tls),
            ("listen.audiosocket_tls", "--audiosocket-tls", &self.audiosocket_tls),
            ("listen.wyoming_tls", "--wyoming-tls", &self.wyoming_tls),
            ("listen.quic", "--quic", &self.quic),
            ("cluster.node_id", "--node-id", &self.node_id),
            ("cluster.listen", "--cluster-listen", &self.cluster_listen),
            ("cluster.seeds", "--seeds", &self.seeds),
            ("cluster.secret_file", "--secret-file", &self.secret_file),
            ("decoder.program", "--decoder", &self.decoder),
            ("log.format", "--log-format", &log_format),
            ("log.level", "--log-level", &self.log_level),
            ("shutdown.drain_deadline", "--drain-deadline", &self.drain_deadline),
        ];
        given
            .into_iter()
            .filter_map(|(key, flag, value)| {
                let value = value.clone()?.into();
                Some(Flag { key, flag, value })
            })
            .collect()
    }

    /// A model that the file has too is served as the file has it.
    fn choose_models(&self, models: &mut Vec<ModelSettings>) {
        if self.models.is_empty() {
            return;
        }
        let mut chosen: Vec<ModelSettings> = Vec::new();
        for name in &self.models {
            if chosen.iter().all(|model| model.name != *name) {
                let known = models.iter().find(|model| model.name == *name).cloned();
                chosen.push(known.unwrap_or_else(|| ModelSettings::named(name)));
            }
        }
        *models = chosen;
    }
}

/// Does what was typed.
///
/// # Errors
/// What went wrong, with the exit code for it.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let home = || Home::discover(cli.home.as_deref()).map_err(|error| Failure::new(Exit::Usage, error));
    match cli.command {
        Command::Serve(arguments) => {
            let config = arguments.config;
            let loaded = config.load()?;
            let traced = TraceSettings::from_environment();
            let (traced, warnings) = traced.map_err(|error| Failure::new(Exit::Usage, error))?;
            let traced = traced.map(|settings| (settings, OwnSpans::default()));
            let spans = traced.as_ref().map(|(traces, own)| layer(traces.sampler().clone(), own.clone()));
            let log = crate::telemetry::Log::start(&loaded.settings.log, spans)
                .map_err(|error| Failure::new(Exit::Software, error))?;
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            let home = home()?;
            on_runtime(crate::serve::serve(loaded, Box::new(move || config.load()), home, log, traced))
        }
        Command::Transcribe(arguments) => on_runtime(crate::transcribe::transcribe(arguments)),
        Command::Load(arguments) => on_runtime(crate::load::load(arguments)),
        Command::Status(arguments) => on_runtime(crate::status::status(arguments)),
        Command::Drain(arguments) => on_runtime(crate::operate::drain(arguments)),
        Command::Keys(command) => crate::keys::run(&command),
        Command::Cert(CertCommand::SelfSigned { names, days, out }) => self_signed(names, days, &out),
        Command::Models(ModelsCommand::Add(arguments)) => on_runtime(crate::operate::add_model(arguments)),
        Command::Models(ModelsCommand::Catalogue(command)) => crate::catalogue::run(&home()?, command),
        Command::CheckConfig(arguments) => check_config(&arguments),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "starling", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn check_config(arguments: &ConfigArguments) -> Result<(), Failure> {
    let loaded = arguments.load()?;
    let printed = toml_edit::ser::to_string_pretty(&loaded.settings);
    let printed = printed.map_err(|error| Failure::new(Exit::Software, error))?;
    let from = loaded.file.map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    println!("# In force, from flags, environment, {from} and defaults:\n{printed}");
    Ok(())
}

/// How long the runtime waits for work that can't be cancelled, such as reading standard input.
const RUNTIME_END: Duration = Duration::from_millis(200);

fn self_signed(names: Vec<String>, days: u16, folder: &Path) -> Result<(), Failure> {
    let made = crate::tls::self_signed(names, days, folder);
    let made = made.with_context(|| format!("no certificate could be made in {}", folder.display()));
    let SelfSigned { files, sha256 } = made.map_err(|error| Failure::new(Exit::Usage, error))?;
    let hash = data_encoding::HEXLOWER.encode(&sha256);
    crate::remote::print(&format!("{}\n{}\nSHA-256 {hash}\n", files.cert.display(), files.key.display()))
}

/// The runtime's own setting.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";

/// Half the cores: the others are decoders'. What a node does itself is a few hundredths of a decoder's work, and threads that
/// wake each other for it cost more than they bring (a fifth of the node's own time on two cores).
fn worker_threads(cores: usize) -> usize {
    (cores / 2).max(1)
}

fn on_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os(WORKER_THREADS).is_none() {
        builder.worker_threads(worker_threads(std::thread::available_parallelism().map_or(1, usize::from)));
    }
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Os, error))?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(RUNTIME_END);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn models_on_the_command_line_keep_what_the_file_says_of_them() {
        let mut known = ModelSettings::named("b");
        known.slots = 9;
        let mut models = vec![ModelSettings::named("a"), known.clone()];
        let arguments = ConfigArguments {
            models: vec!["b".into(), "c".into(), "b".into()],
            ..ConfigArguments::default()
        };
        arguments.choose_models(&mut models);
        assert_eq!(models, [known, ModelSettings::named("c")]);
    }
}
