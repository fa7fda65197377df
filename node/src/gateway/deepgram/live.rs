//! Live speech: audio in, results out, over one WebSocket.
//!
//! Reading and writing go on side by side: a client that does not read its results holds back its own audio and nothing else.

use std::time::Duration;

use axum::extract::ws::WebSocket;
use data_encoding::HEXLOWER;
use futures_util::future::select_all;
use sha2::{Digest, Sha256};
use starling_actors::SessionEvent;
use starling_protocol::deepgram::{
    Heard, ListenMessage, SILENCE_SECONDS, Teller, error_event, metadata, parse_message,
};
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::{Segment, SourceOffset};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::Call;
use crate::gateway::audio::{Came, Channels, LiveAudio, Opening};
use crate::gateway::link::{Reader, Received, SendError, Writer, close, close_code, split};
use crate::gateway::rounds::Pace;
use crate::gateway::{GatewayState, note_warnings};
use crate::sessions::{Attached, Input, Output, PIECE_BYTES};

const SILENCE: Duration = Duration::from_secs(SILENCE_SECONDS);

/// What a client that said nothing for too long is closed with; their libraries look for the code before the colon.
const SILENT: (u16, &str) = (close::INTERNAL, "NET-0001: neither audio nor KeepAlive came for 10 s");

/// What audio that can't be decoded is closed with.
const NO_AUDIO: (u16, &str) = (
    close::POLICY,
    "DATA-0000: what came is neither raw audio that the query describes nor a recording of a known kind",
);

/// What a recording is closed with that holds more than any encoder of speech puts into its bytes.
const NO_SPEECH: (u16, &str) =
    (close::POLICY, "DATA-0000: the recording holds far more audio than so few bytes can have of speech");

/// Errors about single messages that wait to be written.
const WAITING_ERRORS: usize = 8;

/// How long a client may take for its side of the closing handshake.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a connection is closed.
type Closing = (u16, &'static str);

/// A stream whose sessions are open.
struct Begun {
    opened: Vec<Attached>,
    audio: LiveAudio,
    /// What has come so far.
    hash: Sha256,
}

/// Serves one connection to its end.
pub(super) async fn serve(
    socket: WebSocket,
    state: GatewayState,
    call: Call,
    opened: Option<(Vec<Attached>, LiveAudio)>,
) {
    let (mut reader, mut writer) = split(socket, &state.settings);
    let begun = match opened {
        Some((opened, audio)) => Some(Begun { opened, audio, hash: Sha256::new() }),
        None => open(&mut reader, &mut writer, &state, &call).await,
    };
    if let Some(begun) = begun {
        converse(&mut reader, &mut writer, begun, &call, &state).await;
    }
}

/// Opens sessions for audio that says itself what it is; `None` when the client was told why not, or is gone.
async fn open(reader: &mut Reader, writer: &mut Writer, state: &GatewayState, call: &Call) -> Option<Begun> {
    let (audio, hash) = match head(reader, call.kept()).await {
        Ok(Headed::Audio(audio, hash)) => (*audio, hash),
        Ok(Headed::Nothing) => {
            goodbye_to_nothing(writer, call, state).await;
            return None;
        }
        Ok(Headed::Gone) => return None,
        Err((code, reason)) => {
            writer.close(code, reason).await;
            return None;
        }
    };
    match call.open(audio.sample_rate, audio.streams(), true, state).await {
        Ok(opened) => Some(Begun { opened, audio, hash }),
        Err(error) => {
            if writer.text(error_event(&error)).await.is_ok() {
                writer.close(close_code(error.code), &error.message).await;
            }
            None
        }
    }
}

/// A stream that was ended before any audio came ends well, as there: with a summary of nothing.
async fn goodbye_to_nothing(writer: &mut Writer, call: &Call, state: &GatewayState) {
    let model = call.model(state).unwrap_or_default();
    let heard = Heard {
        sha256: HEXLOWER.encode(&Sha256::new().finalize()),
        created: call.created.clone(),
        duration: 0.0,
        channels: 0,
    };
    if writer.text(metadata(&call.answerer(&model), &heard).to_string()).await.is_ok() {
        writer.close(close::NORMAL, "").await;
    }
}

/// How a stream begins that says itself what it is.
enum Headed {
    Audio(Box<LiveAudio>, Sha256),
    /// It was ended before any audio came.
    Nothing,
    /// The client has left.
    Gone,
}

/// Reads until it is known what the audio is.
async fn head(reader: &mut Reader, kept: Channels) -> Result<Headed, Closing> {
    let (mut opening, mut hash) = (Opening::new(kept), Sha256::new());
    let (mut came, mut ended, mut finalize) = (false, false, false);
    let mut silent_at = Instant::now() + SILENCE;
    loop {
        let received = tokio::select! {
            begun = opening.begun() => match begun {
                Ok(Some(mut audio)) => {
                    if finalize {
                        audio.mark();
                    }
                    return Ok(Headed::Audio(Box::new(audio), hash));
                }
                Ok(None) => continue,
                Err(_) => return Err(NO_AUDIO),
            },
            received = timeout_at(silent_at, reader.next()), if opening.takes() => received,
        };
        match received {
            // Older libraries end a stream with an empty message.
            Ok(Received::Binary(piece)) if piece.is_empty() => ended = true,
            Ok(Received::Binary(piece)) => {
                came = true;
                hash.update(&piece);
                opening.push(&piece);
            }
            Ok(Received::Text(text)) => match parse_message(&text) {
                Ok(ListenMessage::CloseStream) => ended = true,
                Ok(ListenMessage::Finalize) => finalize = came,
                Ok(ListenMessage::KeepAlive) | Err(_) => {}
            },
            Ok(Received::Pong(_)) => continue,
            Ok(Received::Broken(code, reason)) => return Err((code, reason)),
            Ok(Received::Closed | Received::Silent) => return Ok(Headed::Gone),
            Err(_) => return Err(SILENT),
        }
        match (ended, came) {
            (true, false) => return Ok(Headed::Nothing),
            (true, true) => opening.close(),
            (false, _) => {}
        }
        silent_at = Instant::now() + SILENCE;
    }
}

async fn converse(reader: &mut Reader, writer: &mut Writer, begun: Begun, call: &Call, state: &GatewayState) {
    let Begun { opened, audio, hash } = begun;
    let streams = u8::try_from(opened.len()).unwrap_or(u8::MAX);
    let (mut inputs, mut told) = (Vec::new(), Vec::new());
    for (place, Attached { ready, input, output }) in (0..).zip(opened) {
        note_warnings(&ready);
        let answerer = call.answerer(&ready.model);
        let teller = Teller::new(answerer, [place, streams], audio.sample_rate, &call.listen);
        inputs.push(input);
        told.push(Told { teller, output, frames: None });
    }
    let (errors, complaints) = mpsc::channel(WAITING_ERRORS);
    let (tell, written) = watch::channel(vec![0; inputs.len()]);
    let (heard, digest) = oneshot::channel();
    let channels = audio.channels;
    let mut speaking = Speaking {
        confirmed: vec![0; inputs.len()],
        samples: vec![Vec::new(); inputs.len()],
        inputs,
        audio,
        hash,
        heard: Some(heard),
        written,
        errors,
        pace: state.rounds.enter(),
    };
    let telling = Telling { told, complaints, written: tell, digest, created: &call.created, channels };
    let closing = {
        let mut reading = std::pin::pin!(speaking.run(reader));
        tokio::select! {
            closing = &mut reading => closing,
            told = telling.run(writer, state) => {
                if told.is_ok() {
                    // Its side of the goodbye.
                    let _ = timeout(GOODBYE, &mut reading).await;
                }
                None
            }
        }
    };
    if let Some((code, reason)) = closing {
        writer.close(code, reason).await;
    }
    for input in speaking.inputs {
        input.abandon().await;
    }
}

/// The client's side of its sessions.
struct Speaking {
    /// One a stream.
    inputs: Vec<Box<dyn Input>>,
    audio: LiveAudio,
    /// What came out of the audio, by stream.
    samples: Vec<Vec<u8>>,
    hash: Sha256,
    /// Told the digest of all that came, at the end. `None` once it was.
    heard: Option<oneshot::Sender<String>>,
    /// Finals that were written, by stream: the last one's number plus one.
    written: watch::Receiver<Vec<u64>>,
    confirmed: Vec<u64>,
    errors: mpsc::Sender<ErrorBody>,
    pace: Pace,
}

impl Speaking {
    /// Takes in messages until the connection is over.
    async fn run(&mut self, reader: &mut Reader) -> Option<Closing> {
        let mut over = false;
        let mut silent_at = Instant::now() + SILENCE;
        while !over {
            self.confirm().await;
            let received = tokio::select! {
                more = self.audio.more(&mut self.samples), if self.heard.is_some() => {
                    over = match more {
                        Ok(Came::More) => self.hand_on().await,
                        Ok(Came::Mark) => self.finalize().await,
                        Ok(Came::End) => self.end().await,
                        // The next packet may be better.
                        Err(error) if error.code == ErrorCode::BadMessage => {
                            let _ = self.errors.send(error).await;
                            false
                        }
                        Err(error) if error.code == ErrorCode::SessionTooLong => return Some(NO_SPEECH),
                        Err(_) => return Some(NO_AUDIO),
                    };
                    // It may have taken long, in which nothing could be heard.
                    silent_at = Instant::now() + SILENCE;
                    continue;
                }
                received = timeout_at(silent_at, reader.next()), if self.audio.takes() => received,
                changed = self.written.changed() => match changed {
                    Ok(()) => continue,
                    // All was told: what still comes changes nothing.
                    Err(_) => break,
                },
            };
            let Ok(received) = received else {
                if self.heard.is_some() {
                    return Some(SILENT);
                }
                // It has said that no more will come, and waits for the rest.
                silent_at = Instant::now() + SILENCE;
                continue;
            };
            match received {
                Received::Binary(_) if self.heard.is_none() => {}
                // Older libraries end a stream with an empty message.
                Received::Binary(piece) if piece.is_empty() => self.audio.close(),
                Received::Binary(piece) => {
                    self.hash.update(&piece);
                    self.pace.wait().await;
                    self.audio.push(piece);
                }
                Received::Text(text) => self.message(&text).await,
                Received::Pong(_) => continue,
                Received::Broken(code, reason) => return Some((code, reason)),
                Received::Closed | Received::Silent => return None,
            }
            silent_at = Instant::now() + SILENCE;
        }
        // The sessions are over and their last events say why; they are being written.
        while !matches!(reader.next().await, Received::Closed | Received::Silent | Received::Broken(..)) {}
        None
    }

    async fn message(&mut self, text: &str) {
        match parse_message(text) {
            // What it ends may still be on its way through a decoder.
            Ok(ListenMessage::Finalize) if self.heard.is_some() => self.audio.mark(),
            Ok(ListenMessage::CloseStream) => self.audio.close(),
            Ok(ListenMessage::KeepAlive | ListenMessage::Finalize) => {}
            Err(error) => {
                let _ = self.errors.send(error).await;
            }
        }
    }

    /// Returns whether a session takes no more.
    async fn finalize(&mut self) -> bool {
        for input in &mut self.inputs {
            if input.finalize().await.is_err() {
                return true;
            }
        }
        false
    }

    /// Hands on what came out of the audio. Returns whether a session takes no more.
    async fn hand_on(&mut self) -> bool {
        for (stream, samples) in self.samples.iter_mut().enumerate() {
            let samples = std::mem::take(samples);
            for piece in samples.chunks(PIECE_BYTES) {
                // A session that is full may wait for the finals that its client has.
                loop {
                    let fed = tokio::select! {
                        biased;
                        fed = self.inputs[stream].audio(piece) => Some(fed),
                        Ok(()) = self.written.changed() => None,
                    };
                    match fed {
                        Some(Ok(())) => break,
                        Some(Err(_)) => return true,
                        None => confirm(&mut self.inputs, &mut self.written, &mut self.confirmed).await,
                    }
                }
            }
        }
        false
    }

    async fn end(&mut self) -> bool {
        // The end may be said twice.
        let Some(heard) = self.heard.take() else { return false };
        let _ = heard.send(HEXLOWER.encode(&self.hash.clone().finalize()));
        let mut over = false;
        for input in &mut self.inputs {
            over |= input.end().await.is_err();
        }
        over
    }

    async fn confirm(&mut self) {
        confirm(&mut self.inputs, &mut self.written, &mut self.confirmed).await;
    }
}

/// The client has been written these finals: it has no way to say that it read them.
async fn confirm(
    inputs: &mut [Box<dyn Input>],
    written: &mut watch::Receiver<Vec<u64>>,
    confirmed: &mut Vec<u64>,
) {
    let written = written.borrow_and_update().clone();
    for ((input, written), confirmed) in inputs.iter_mut().zip(&written).zip(&mut *confirmed) {
        if written > confirmed {
            // A session that is over needs no confirmation.
            let _ = input.confirm(Segment(written - 1)).await;
        }
    }
    *confirmed = written;
}

/// A stream's session, and how it is told.
struct Told {
    teller: Teller,
    output: Box<dyn Output>,
    /// How many there were, once it has ended well.
    frames: Option<SourceOffset>,
}

/// The server's side of it.
struct Telling<'a> {
    told: Vec<Told>,
    complaints: mpsc::Receiver<ErrorBody>,
    written: watch::Sender<Vec<u64>>,
    digest: oneshot::Receiver<String>,
    created: &'a str,
    channels: u8,
}

impl Telling<'_> {
    /// Tells the client what comes until the sessions are over, and says goodbye.
    async fn run(mut self, writer: &mut Writer, state: &GatewayState) -> Result<(), SendError> {
        let mut pings = interval(state.settings.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        let mut texts = Vec::new();
        while self.told.iter().any(|told| told.frames.is_none()) {
            let (stream, event) = tokio::select! {
                event = next(&mut self.told) => event,
                Some(error) = self.complaints.recv() => {
                    writer.text(error_event(&error)).await?;
                    continue;
                }
                _ = pings.tick() => {
                    writer.ping().await?;
                    continue;
                }
            };
            let mut written = None;
            let Told { teller, frames: heard, .. } = &mut self.told[stream];
            match event {
                Some(SessionEvent::Partial { from, until, text, .. }) => {
                    teller.partial(from, until, &text, &mut texts);
                }
                Some(SessionEvent::Final(last)) => {
                    teller.last(&last, &mut texts);
                    // Not dressed as silence.
                    texts.extend(
                        last.error.map(|error| error_event(&ErrorBody::new(ErrorCode::Internal, error))),
                    );
                    written = Some(last.segment.0 + 1);
                }
                Some(SessionEvent::Done { frames, .. }) => *heard = Some(frames),
                Some(SessionEvent::Failed(error)) => {
                    writer.text(error_event(&error)).await?;
                    writer.close(close_code(error.code), &error.message).await;
                    return Ok(());
                }
                Some(_) => {}
                None => {
                    writer.close(close::INTERNAL, "NET-0000: the session is gone").await;
                    return Ok(());
                }
            }
            for text in texts.drain(..) {
                writer.text(text).await?;
            }
            if let Some(written) = written {
                self.written.send_modify(|all| all[stream] = written);
            }
        }
        self.goodbye(writer).await
    }

    async fn goodbye(mut self, writer: &mut Writer) -> Result<(), SendError> {
        let seconds = self.told.iter().filter_map(|told| Some(told.teller.seconds(told.frames?)));
        let heard = Heard {
            sha256: self.digest.try_recv().unwrap_or_default(),
            created: self.created.to_owned(),
            duration: seconds.fold(0.0, f64::max),
            channels: self.channels,
        };
        if let Some(told) = self.told.first() {
            writer.text(metadata(told.teller.answerer(), &heard).to_string()).await?;
        }
        writer.close(close::NORMAL, "").await;
        Ok(())
    }
}

/// The next event of any session that goes on, and which one's it is.
async fn next(told: &mut [Told]) -> (usize, Option<SessionEvent>) {
    let open = told.iter_mut().enumerate().filter(|(_, told)| told.frames.is_none());
    let events = open.map(|(stream, told)| Box::pin(async move { (stream, told.output.next().await) }));
    select_all(events).await.0
}
