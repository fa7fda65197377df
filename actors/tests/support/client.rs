//! A client that speaks to a node's handle, and nodes to speak to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use starling_actors::{
    Attachment, Capabilities, CopyArguments, Dialect, HostLauncher, Keep, ModelArguments, ModelScaling,
    NodeArguments, NodeHandle, OpenRequest, Peers, SessionEvent, SessionInput, SessionLimits, SessionOutput,
    SilentObserver,
};
use starling_core::invariants::FinalsLedger;
use starling_engine::scripted;
use starling_protocol::SessionId;
use starling_protocol::lease::EngineKind;
use starling_protocol::native::{ErrorBody, Final, SessionOptions, WarningCode};

use super::memory_link::name;

pub fn scripted_model(hosts: u16, slots: u16) -> ModelArguments {
    ModelArguments {
        name: "scripted".into(),
        digest: "scripted".into(),
        language: "x-test".into(),
        engine: EngineKind::Scripted,
        model_dir: PathBuf::new(),
        library_dir: PathBuf::new(),
        sample_rate: scripted::SAMPLE_RATE,
        capabilities: Capabilities {
            words: true,
            alternatives: false,
            phrases: false,
            ..Capabilities::default()
        },
        hosts,
        scaling: ModelScaling::default(),
        slots_per_host: slots,
        threads_per_host: 2,
        prewarm_per_host: 1,
        recognizer_audio_budget: Duration::ZERO,
        memory_budget_bytes: 0,
        load_deadline: Duration::from_secs(30),
        nice: 0,
        environment: Vec::new(),
        keep: Keep::default(),
    }
}

pub async fn start(launcher: impl HostLauncher, model: ModelArguments, limits: SessionLimits) -> NodeHandle {
    start_among(launcher, model, limits, None).await
}

pub async fn start_among(
    launcher: impl HostLauncher,
    model: ModelArguments,
    limits: SessionLimits,
    peers: Option<Arc<dyn Peers>>,
) -> NodeHandle {
    let arguments = NodeArguments {
        models: vec![model],
        launcher: Arc::new(launcher),
        limits,
        observer: Arc::new(SilentObserver),
        tracing: None,
        peers,
        copies: CopyArguments::alone(name("alone")),
    };
    NodeHandle::start(arguments).await.expect("starts")
}

pub fn request() -> OpenRequest {
    OpenRequest {
        options: SessionOptions { words: true, ..SessionOptions::default() },
        linger: Duration::from_secs(60),
        ..OpenRequest::new(SessionId::random(), Dialect::Native, scripted::SAMPLE_RATE)
    }
}

/// `utterances` of `words` words each, with silence after each that ends it.
pub fn speech(utterances: u32, words: u32) -> Vec<i16> {
    let mut audio = Vec::new();
    for utterance in 0..utterances {
        let texts: Vec<String> = (0..words).map(|word| format!("u{utterance}w{word}")).collect();
        audio.extend(scripted::encode_from(utterance * words, &texts));
        audio.extend(scripted::silence(7));
    }
    audio
}

pub fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// What one session said in the end.
#[derive(Debug, Default)]
pub struct Heard {
    pub finals: Vec<Final>,
    pub partials: usize,
    pub warnings: Vec<WarningCode>,
    pub failed: Option<ErrorBody>,
    pub done: bool,
    ledger: FinalsLedger,
}

impl Heard {
    pub fn text(&self) -> String {
        let texts: Vec<&str> =
            self.finals.iter().map(|last| last.text.as_str()).filter(|text| !text.is_empty()).collect();
        texts.join(" ")
    }

    /// Takes an event and checks I1 to I3. True for the last one.
    pub fn take(&mut self, event: SessionEvent) -> bool {
        match event {
            SessionEvent::Final(last) => {
                self.ledger.record(last.segment, last.from, last.to).expect("I1 to I3");
                self.finals.push(last);
            }
            SessionEvent::Partial { .. } => self.partials += 1,
            SessionEvent::Failed(body) => {
                self.failed = Some(body);
                return true;
            }
            SessionEvent::Done { segments, frames } => {
                assert_eq!(segments, self.finals.len() as u64);
                assert_eq!(frames, self.finals.last().map_or(frames, |last| last.to), "all audio is covered");
                self.done = true;
                return true;
            }
            SessionEvent::Warning(code, _) => self.warnings.push(code),
            SessionEvent::View { .. } | SessionEvent::Ack(_) | SessionEvent::Progress { .. } => {}
        }
        false
    }
}

/// Speaks `audio` in 100 ms pieces, one each `pace`, and listens to the end.
pub async fn speak(node: &NodeHandle, audio: &[i16], pace: Duration) -> Heard {
    let Attachment { input, output, .. } = node.open(request()).await.expect("is admitted");
    let sending = tokio::spawn(send(input, bytes(audio), pace));
    let heard = listen(output, Heard::default()).await;
    sending.abort();
    heard
}

/// Sends everything, says that it is over, and stays connected.
pub async fn send(mut input: SessionInput, pcm: Vec<u8>, pace: Duration) {
    for piece in pcm.chunks(3_200) {
        if input.audio(piece).await.is_err() {
            return;
        }
        if !pace.is_zero() {
            tokio::time::sleep(pace).await;
        }
    }
    let _ = input.end().await;
    std::future::pending::<()>().await;
}

pub async fn listen(mut output: SessionOutput, mut heard: Heard) -> Heard {
    while let Some(event) = output.next().await {
        if heard.take(event) {
            break;
        }
    }
    heard
}
