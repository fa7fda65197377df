//! `starling transcribe`: recordings through the client to a server, and what was said to the terminal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use starling_actors::Clock;
use starling_client::{
    ApiKey, AudioFormat, AudioSender, Client, ClientConfig, Event, Events, Final, OpenError, SessionConfig,
    SessionError, SessionOptions, TraceContext,
};
use tokio::time::{MissedTickBehavior, interval};

use self::display::{Display, Summary};
use self::recording::Recording;
use crate::cli::{OutputFormat, TranscribeArguments};
use crate::exit::{Exit, Failure};

pub(crate) mod display;
pub(crate) mod recording;
pub(crate) mod subtitles;

/// What is sent at once: what a microphone would give in this time.
const CHUNK: Duration = Duration::from_millis(100);

/// One recording's transcript.
#[derive(Debug, serde::Serialize)]
struct Transcript {
    file: String,
    model: String,
    /// Seconds.
    duration: f64,
    text: String,
    segments: Vec<Final>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<Gap>,
}

/// Audio that was lost on the way: there is no text for it.
#[derive(Debug, serde::Serialize)]
struct Gap {
    /// Seconds from the beginning.
    start: f64,
    /// Seconds.
    end: f64,
}

/// What came of a session.
struct Received {
    segments: Vec<Final>,
    gaps: Vec<Gap>,
    frames: u64,
    /// Connections that were lost and replaced.
    failovers: usize,
}

/// Transcribes each file in turn; goes on when one fails.
///
/// # Errors
/// The exit code says whether some or all failed, and of what kind the failure was.
pub async fn transcribe(arguments: TranscribeArguments) -> Result<(), Failure> {
    check(&arguments)?;
    let mut config = ClientConfig::new(arguments.servers.clone());
    config.api_key = arguments.key.api_key.clone().map(ApiKey::from);
    config.ca_file.clone_from(&arguments.trust.ca);
    let client = Client::new(config).map_err(|error| Failure::new(Exit::Usage, error))?;
    let mut failures: Vec<Failure> = Vec::new();
    let mut with_gaps = 0;
    for file in &arguments.files {
        match one(&client, file, &arguments).await {
            Ok(gaps) => with_gaps += usize::from(gaps > 0),
            Err(failure) => {
                eprintln!("starling: {}: {failure}", file.display());
                failures.push(failure);
            }
        }
    }
    let (failed, all) = (failures.len(), arguments.files.len());
    match failures.pop() {
        None if with_gaps == 0 => Ok(()),
        None => Err(Failure::new(Exit::Partial, anyhow!("{with_gaps} of {all} transcripts have gaps"))),
        Some(last) if failed == all => Err(Failure::new(last.exit, anyhow!("nothing was transcribed"))),
        Some(_) => {
            Err(Failure::new(Exit::Partial, anyhow!("{failed} of {all} recordings were not transcribed")))
        }
    }
}

fn check(arguments: &TranscribeArguments) -> Result<(), Failure> {
    let subtitles = matches!(arguments.format, OutputFormat::Srt | OutputFormat::Vtt);
    if subtitles && arguments.files.len() > 1 && arguments.output.is_none() {
        let error =
            anyhow!("subtitles of {} recordings need --output DIR: a file for each", arguments.files.len());
        return Err(Failure::new(Exit::Usage, error));
    }
    if arguments.files.iter().filter(|file| is_stdin(file)).count() > 1 {
        return Err(Failure::new(
            Exit::Usage,
            anyhow!("- can be given once only: there is one standard input"),
        ));
    }
    Ok(())
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

/// The trace that whoever runs this program is in, in the variables that are usual for it.
fn trace() -> Option<TraceContext> {
    let traceparent = std::env::var("TRACEPARENT").ok()?;
    Some(TraceContext { traceparent, tracestate: std::env::var("TRACESTATE").unwrap_or_default() })
}

/// Transcribes one recording; gives back how many gaps its transcript has.
async fn one(client: &Client, file: &Path, arguments: &TranscribeArguments) -> Result<usize, Failure> {
    let recording = Recording::open(file).await?;
    let config = SessionConfig {
        model: arguments.model.clone(),
        language: arguments.language.clone(),
        format: AudioFormat { sample_rate: recording.sample_rate, ..AudioFormat::default() },
        options: SessionOptions {
            words: arguments.words,
            partials: !arguments.quiet,
            batch: !arguments.realtime,
            ..SessionOptions::default()
        },
        session: None,
        trace: trace(),
    };
    let began = Clock::start();
    let session = client.open(config).await.map_err(open_failure)?;
    let model = session.opened().model.clone();
    let (sender, events) = session.split();
    let streamed = arguments.format == OutputFormat::Text && arguments.output.is_none();
    let mut display = Display::new(file, recording.seconds, arguments.quiet, streamed);
    let rate = f64::from(recording.sample_rate);
    let sending = send(sender, recording, arguments.realtime);
    let (sent, received) = tokio::join!(sending, receive(events, &mut display, rate));
    display.end();
    // What the server says of the session's end explains a broken sending better than the sending can.
    let Received { segments, gaps, frames, failovers } = received?;
    sent?;
    display.sum_up(&Summary {
        audio: frames as f64 / rate,
        took: began.now().0.as_secs_f64(),
        failovers,
        missing: gaps.iter().map(|gap| gap.end - gap.start).sum(),
    });
    let gap_count = gaps.len();
    let texts: Vec<&str> =
        segments.iter().map(|last| last.text.as_str()).filter(|text| !text.is_empty()).collect();
    let transcript = Transcript {
        file: file.display().to_string(),
        model,
        duration: frames as f64 / rate,
        text: texts.join(" "),
        segments,
        gaps,
    };
    if !streamed {
        write(&transcript, file, arguments)?;
    }
    Ok(gap_count)
}

async fn receive(mut events: Events, display: &mut Display, rate: f64) -> Result<Received, Failure> {
    let (mut segments, mut gaps, mut failovers) = (Vec::new(), Vec::new(), 0);
    while let Some(event) = events.next().await {
        match event.map_err(session_failure)? {
            Event::Partial { text, until, .. } => display.partial(&text, until.0 as f64 / rate),
            Event::Final(last) => {
                display.last(&last);
                if let Some(error) = &last.error {
                    display.note(&format!(
                        "{:.1} to {:.1} s could not be decoded: {error}",
                        last.start, last.end
                    ));
                }
                segments.push(last);
            }
            Event::Gap { from, to } => {
                let gap = Gap { start: from.0 as f64 / rate, end: to.0 as f64 / rate };
                display.complain(&format!(
                    "{:.1} to {:.1} s were lost on the way and have no text",
                    gap.start, gap.end
                ));
                gaps.push(gap);
            }
            Event::Warning { message, .. } => display.note(&message),
            Event::Reconnected { gap, .. } => {
                failovers += 1;
                display
                    .note(&format!("the connection was lost and replaced after {:.1} s", gap.as_secs_f64()));
            }
            Event::Done { frames, .. } => {
                return Ok(Received { segments, gaps, frames: frames.0, failovers });
            }
            Event::Durable(durable) => tracing::debug!(durable, "what the servers hold"),
            _ => {}
        }
    }
    Err(Failure::new(Exit::Software, anyhow!("the session ended without a word")))
}

async fn send(mut sender: AudioSender, mut recording: Recording, realtime: bool) -> Result<(), Failure> {
    let bytes = recording.sample_rate as usize / 10 * 2;
    let mut ticks = interval(CHUNK);
    // A pause of the machine is made up for: a microphone would have gone on.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while let Some(piece) = recording.next(bytes).await? {
        if realtime {
            ticks.tick().await;
        }
        if sender.send(&piece).await.is_err() {
            return Ok(());
        }
    }
    let _ = sender.end().await;
    Ok(())
}

fn write(transcript: &Transcript, file: &Path, arguments: &TranscribeArguments) -> Result<(), Failure> {
    let (text, extension) = match arguments.format {
        OutputFormat::Text => (transcript.segments.iter().map(display::line).collect(), "txt"),
        OutputFormat::Json => {
            let json =
                serde_json::to_string(transcript).map_err(|error| Failure::new(Exit::Software, error))?;
            (json + "\n", "json")
        }
        OutputFormat::Srt => (subtitles::srt(&transcript.segments), "srt"),
        OutputFormat::Vtt => (subtitles::vtt(&transcript.segments), "vtt"),
    };
    let Some(folder) = &arguments.output else {
        print!("{text}");
        return Ok(());
    };
    let name =
        if is_stdin(file) { Path::new("stdin") } else { Path::new(file.file_name().unwrap_or_default()) };
    let target: PathBuf = folder.join(name).with_extension(extension);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&target, text))
        .with_context(|| format!("{} cannot be written", target.display()))
        .map_err(|error| Failure::new(Exit::Os, error))
}

fn open_failure(error: OpenError) -> Failure {
    let exit = match &error {
        OpenError::Unreachable { .. } => Exit::Unavailable,
        OpenError::Busy(_) => Exit::TryAgain,
        OpenError::Refused(_) => Exit::Usage,
        _ => Exit::Software,
    };
    let error = match &error {
        OpenError::Unreachable { .. } => {
            anyhow!("{error}; start a server with `starling serve`, or name one with --server")
        }
        _ => anyhow!(error),
    };
    Failure::new(exit, error)
}

fn session_failure(error: SessionError) -> Failure {
    let exit = match &error {
        SessionError::GaveUp { .. } | SessionError::Ended(_) => Exit::Unavailable,
        _ => Exit::Software,
    };
    Failure::new(exit, error)
}
