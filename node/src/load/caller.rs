//! One client of `starling load`: sends the recording, waits, and sends it again.
//!
//! Owns: the session and the moments of what came. Must never: judge what it was told.

use std::sync::Arc;
use std::time::Duration;

use starling_client::{
    AudioFormat, AudioSender, Client, ErrorCode, Event, Events, OpenError, SessionConfig, SessionError,
    SessionOptions,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// What is sent at once: what a microphone would give in this time.
const CHUNK: Duration = Duration::from_millis(100);

/// Beyond the recording's own length. Many clients that send at once what few decoders hear take their time; one that waits
/// longer than this has been forgotten.
const PATIENCE: Duration = Duration::from_secs(600);

/// A recording, held once for all.
pub(super) struct Audio {
    /// Mono PCM16.
    pub(super) pcm: Vec<u8>,
    pub(super) sample_rate: u32,
}

impl Audio {
    pub(super) fn seconds(&self) -> f64 {
        self.pcm.len() as f64 / 2.0 / f64::from(self.sample_rate)
    }
}

/// What came of a session.
pub(super) enum Outcome {
    Done(Heard),
    /// Before any audio was taken, for this reason.
    Refused(String),
    /// It could not be opened, or broke: the kind, and in a sentence.
    Failed(String, String),
}

/// A session from beginning to end.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) text: String,
    pub(super) reconnects: u64,
    /// Reconnects to servers that had lost the session.
    pub(super) begun_anew: u64,
    /// Frames that every server had lost.
    pub(super) gap_frames: u64,
    /// Segments that no decoder survived.
    pub(super) undecoded: u64,
    /// From the first audio.
    pub(super) first_partial: Option<Duration>,
    /// From the end of audio.
    pub(super) last_final: Option<Duration>,
    pub(super) audio_seconds: f64,
}

/// A client, before its first session.
pub(super) struct Caller {
    pub(super) client: Client,
    pub(super) audio: Arc<Audio>,
    pub(super) model: Option<String>,
    pub(super) language: Option<String>,
    pub(super) fast: bool,
    pub(super) first_after: Duration,
    pub(super) interval: Duration,
    pub(super) requests: u32,
}

impl Caller {
    pub(super) async fn run(self, told: mpsc::Sender<Outcome>) {
        sleep(self.first_after).await;
        for request in 0..self.requests {
            if request > 0 {
                sleep(self.interval).await;
            }
            let most = Duration::from_secs_f64(self.audio.seconds()) + PATIENCE;
            let outcome = timeout(most, self.session()).await.unwrap_or_else(|_| {
                Outcome::Failed("stuck".to_owned(), format!("a session did not end in {most:?}"))
            });
            if told.send(outcome).await.is_err() {
                return;
            }
        }
    }

    async fn session(&self) -> Outcome {
        let config = SessionConfig {
            model: self.model.clone(),
            language: self.language.clone(),
            format: AudioFormat { sample_rate: self.audio.sample_rate, ..AudioFormat::default() },
            options: SessionOptions { batch: self.fast, ..SessionOptions::default() },
            session: None,
            trace: None,
        };
        let session = match self.client.open(config).await {
            Ok(session) => session,
            Err(error) => return not_opened(&error),
        };
        let (sender, events) = session.split();
        let began = Instant::now();
        let (ended, listened) = tokio::join!(speak(sender, &self.audio, self.fast), listen(events));
        match listened {
            Ok(Listened { mut heard, first_partial, last_final }) => {
                heard.first_partial = first_partial.map(|at| at - began);
                heard.last_final =
                    last_final.zip(ended).map(|(at, ended)| at.saturating_duration_since(ended));
                heard.audio_seconds = self.audio.seconds();
                Outcome::Done(heard)
            }
            Err(error) => broken(&error),
        }
    }
}

/// Gives back when the last audio was handed in; nothing if the session was over before.
async fn speak(mut sender: AudioSender, audio: &Audio, fast: bool) -> Option<Instant> {
    let bytes = audio.sample_rate as usize / 10 * 2;
    let mut ticks = interval(CHUNK);
    // A pause of the machine is made up for: a microphone would have gone on.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for piece in audio.pcm.chunks(bytes) {
        if !fast {
            ticks.tick().await;
        }
        sender.send(piece).await.ok()?;
    }
    let ended = Instant::now();
    sender.end().await.ok()?;
    Some(ended)
}

struct Listened {
    heard: Heard,
    first_partial: Option<Instant>,
    last_final: Option<Instant>,
}

async fn listen(mut events: Events) -> Result<Listened, SessionError> {
    let mut heard = Heard::default();
    let (mut first_partial, mut last_final) = (None, None);
    while let Some(event) = events.next().await {
        match event? {
            Event::Partial { .. } => first_partial = first_partial.or_else(|| Some(Instant::now())),
            Event::Final(last) => {
                last_final = Some(Instant::now());
                heard.undecoded += u64::from(last.error.is_some());
                if !last.text.is_empty() && !heard.text.is_empty() {
                    heard.text.push(' ');
                }
                heard.text.push_str(&last.text);
            }
            Event::Gap { from, to } => {
                heard.gap_frames = heard.gap_frames.saturating_add(to.0.saturating_sub(from.0));
            }
            Event::Reconnected { restarted, .. } => {
                heard.reconnects += 1;
                heard.begun_anew += u64::from(restarted);
            }
            Event::Done { .. } => return Ok(Listened { heard, first_partial, last_final }),
            _ => {}
        }
    }
    Err(SessionError::Protocol("the events ended without a last one".to_owned()))
}

fn not_opened(error: &OpenError) -> Outcome {
    let failed = |kind: &str| Outcome::Failed(kind.to_owned(), error.to_string());
    match error {
        OpenError::Busy(body) | OpenError::Refused(body) => Outcome::Refused(name(body.code)),
        OpenError::Unreachable { .. } => failed("unreachable"),
        _ => failed("protocol"),
    }
}

fn broken(error: &SessionError) -> Outcome {
    let kind = match error {
        SessionError::GaveUp { .. } => "gave_up".to_owned(),
        SessionError::Ended(body) => name(body.code),
        SessionError::Hole { .. } => "hole".to_owned(),
        _ => "protocol".to_owned(),
    };
    Outcome::Failed(kind, error.to_string())
}

/// As it stands in messages.
fn name(code: ErrorCode) -> String {
    let name = serde_json::to_value(code).ok();
    name.as_ref().and_then(serde_json::Value::as_str).unwrap_or("unknown").to_owned()
}
