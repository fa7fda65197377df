//! Live speech: audio in, results out, over one WebSocket.
//!
//! Reading and writing go on side by side: a client that does not read its results holds back its own audio and nothing else.

use std::time::Duration;

use axum::extract::ws::WebSocket;
use sha2::{Digest, Sha256};
use starling_actors::SessionEvent;
use starling_core::audio::PcmReader;
use starling_protocol::Segment;
use starling_protocol::deepgram::{
    Heard, ListenMessage, SILENCE_SECONDS, Teller, error_event, metadata, parse_message,
};
use starling_protocol::native::{AudioFormat, ErrorBody, ErrorCode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::{Call, hex};
use crate::gateway::link::{Reader, Received, SendError, Writer, close, close_code, split};
use crate::gateway::rounds::Pace;
use crate::gateway::wav::{MAX_HEAD_BYTES, parse_head};
use crate::gateway::{GatewayState, note_warnings};
use crate::sessions::{Attached, Input, Output};

const SILENCE: Duration = Duration::from_secs(SILENCE_SECONDS);

/// What a client that said nothing for too long is closed with; their libraries look for the code before the colon.
const SILENT: (u16, &str) = (close::INTERNAL, "NET-0001: neither audio nor KeepAlive came for 10 s");

/// What audio that can't be decoded is closed with.
const NO_AUDIO: (u16, &str) =
    (close::POLICY, "DATA-0000: what came is neither raw audio that the query describes nor a WAV recording");

/// Errors about single messages that wait to be written.
const WAITING_ERRORS: usize = 8;

/// How long a client may take for its side of the closing handshake.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a connection is closed.
type Closing = (u16, &'static str);

/// Where the samples begin.
struct Beginning {
    format: AudioFormat,
    /// Samples that came with the head.
    first: Vec<u8>,
    /// Bytes of samples there are, if the head says so.
    left: u64,
    /// What has come so far.
    hash: Sha256,
}

/// Serves one connection to its end.
pub(super) async fn serve(socket: WebSocket, state: GatewayState, call: Call, attached: Option<Attached>) {
    let (mut reader, mut writer) = split(socket, &state.settings);
    let begun = match (attached, call.listen.format) {
        (Some(attached), Some(format)) => {
            let beginning = Beginning { format, first: Vec::new(), left: u64::MAX, hash: Sha256::new() };
            Some((attached, beginning))
        }
        _ => open(&mut reader, &mut writer, &state, &call).await,
    };
    if let Some((attached, beginning)) = begun {
        converse(&mut reader, &mut writer, attached, beginning, &call, &state).await;
    }
}

/// Opens a session for audio whose head says what it is; `None` when the client was told why not, or is gone.
async fn open(
    reader: &mut Reader,
    writer: &mut Writer,
    state: &GatewayState,
    call: &Call,
) -> Option<(Attached, Beginning)> {
    let beginning = match head(reader).await {
        Ok(beginning) => beginning?,
        Err((code, reason)) => {
            writer.close(code, reason).await;
            return None;
        }
    };
    let opened = async {
        let request = call.request(beginning.format.sample_rate, true, state)?;
        state.sessions.open(request).await
    };
    match opened.await {
        Ok(attached) => Some((attached, beginning)),
        Err(error) => {
            if writer.text(error_event(&error)).await.is_ok() {
                writer.close(close_code(error.code), &error.message).await;
            }
            None
        }
    }
}

/// Reads up to the first samples; `None` when the client has left.
async fn head(reader: &mut Reader) -> Result<Option<Beginning>, Closing> {
    let (mut bytes, mut hash) = (Vec::new(), Sha256::new());
    loop {
        let Ok(received) = timeout(SILENCE, reader.next()).await else { return Err(SILENT) };
        match received {
            Received::Binary(piece) => {
                hash.update(&piece);
                bytes.extend_from_slice(&piece);
            }
            Received::Text(text) => match parse_message(&text) {
                Ok(ListenMessage::CloseStream) => return Err(NO_AUDIO),
                _ => continue,
            },
            Received::Pong(_) => continue,
            Received::Broken(code, reason) => return Err((code, reason)),
            Received::Closed | Received::Silent => return Ok(None),
        }
        match parse_head(&bytes) {
            Ok(Some(head)) => {
                let first = bytes.split_off(head.data_at);
                let left = head.data_bytes.unwrap_or(u64::MAX);
                return Ok(Some(Beginning { format: head.format, first, left, hash }));
            }
            Ok(None) if bytes.len() <= MAX_HEAD_BYTES => {}
            _ => return Err(NO_AUDIO),
        }
    }
}

async fn converse(
    reader: &mut Reader,
    writer: &mut Writer,
    attached: Attached,
    beginning: Beginning,
    call: &Call,
    state: &GatewayState,
) {
    let Attached { ready, input, output } = attached;
    note_warnings(&ready);
    let format = beginning.format;
    let teller = Teller::new(call.answerer(&ready.model), format.sample_rate, &call.listen);
    let (errors, complaints) = mpsc::channel(WAITING_ERRORS);
    let (tell, written) = watch::channel(0);
    let (heard, digest) = oneshot::channel();
    let mut speaking = Speaking {
        input,
        samples: PcmReader::new(format.encoding, format.channels),
        mono: Vec::new(),
        left: beginning.left,
        hash: beginning.hash,
        heard: Some(heard),
        written,
        confirmed: 0,
        errors,
        pace: state.rounds.enter(),
    };
    let telling = Telling {
        teller,
        complaints,
        written: tell,
        digest,
        created: &call.created,
        channels: format.channels,
    };
    let closing = {
        let mut reading = std::pin::pin!(speaking.run(reader, beginning.first));
        tokio::select! {
            closing = &mut reading => closing,
            told = telling.run(writer, output, state) => {
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
    speaking.input.abandon().await;
}

/// The client's side of a session.
struct Speaking {
    input: Box<dyn Input>,
    samples: PcmReader,
    mono: Vec<u8>,
    left: u64,
    hash: Sha256,
    /// Told the digest of all that came, at the end. `None` once it was.
    heard: Option<oneshot::Sender<String>>,
    /// Finals that were written, by the last one's number plus one.
    written: watch::Receiver<u64>,
    confirmed: u64,
    errors: mpsc::Sender<ErrorBody>,
    pace: Pace,
}

impl Speaking {
    /// Takes in messages until the connection is over.
    async fn run(&mut self, reader: &mut Reader, first: Vec<u8>) -> Option<Closing> {
        let mut over = !first.is_empty() && self.audio(&first).await;
        let mut silent_at = Instant::now() + SILENCE;
        while !over {
            self.confirm().await;
            let received = tokio::select! {
                received = timeout_at(silent_at, reader.next()) => received,
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
            over = match received {
                Received::Binary(_) if self.heard.is_none() => false,
                // Older libraries end a stream with an empty message.
                Received::Binary(piece) if piece.is_empty() => self.end().await,
                Received::Binary(piece) => {
                    self.hash.update(&piece);
                    self.pace.wait().await;
                    self.audio(&piece).await
                }
                Received::Text(text) => self.message(&text).await,
                Received::Pong(_) => continue,
                Received::Broken(code, reason) => return Some((code, reason)),
                Received::Closed | Received::Silent => return None,
            };
            // Taking it in may have taken long, in which nothing could be heard.
            silent_at = Instant::now() + SILENCE;
        }
        // The session is over and its last events say why; they are being written.
        while !matches!(reader.next().await, Received::Closed | Received::Silent | Received::Broken(..)) {}
        None
    }

    /// Returns whether the session takes no more.
    async fn message(&mut self, text: &str) -> bool {
        match parse_message(text) {
            Ok(ListenMessage::KeepAlive) => false,
            Ok(ListenMessage::Finalize) if self.heard.is_some() => self.input.finalize().await.is_err(),
            Ok(ListenMessage::CloseStream) => self.end().await,
            Ok(ListenMessage::Finalize) => false,
            Err(error) => {
                let _ = self.errors.send(error).await;
                false
            }
        }
    }

    async fn audio(&mut self, bytes: &[u8]) -> bool {
        // What follows the samples of a recording is metadata.
        let taken = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left = self.left.saturating_sub(taken as u64);
        self.mono.clear();
        self.samples.read(&bytes[..taken], &mut self.mono);
        !self.mono.is_empty() && self.input.audio(&self.mono).await.is_err()
    }

    async fn end(&mut self) -> bool {
        // The end may be said twice.
        let Some(heard) = self.heard.take() else { return false };
        let _ = heard.send(hex(&self.hash.clone().finalize()));
        self.input.end().await.is_err()
    }

    /// The client has been written the finals before this: it has no way to say that it read them.
    async fn confirm(&mut self) {
        let written = *self.written.borrow_and_update();
        if written > self.confirmed {
            self.confirmed = written;
            // A session that is over needs no confirmation.
            let _ = self.input.confirm(Segment(written - 1)).await;
        }
    }
}

/// The server's side of it.
struct Telling<'a> {
    teller: Teller,
    complaints: mpsc::Receiver<ErrorBody>,
    written: watch::Sender<u64>,
    digest: oneshot::Receiver<String>,
    created: &'a str,
    channels: u8,
}

impl Telling<'_> {
    /// Tells the client what comes until the session is over, and says goodbye.
    async fn run(
        mut self,
        writer: &mut Writer,
        mut output: Box<dyn Output>,
        state: &GatewayState,
    ) -> Result<(), SendError> {
        let mut pings = interval(state.settings.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        let mut texts = Vec::new();
        loop {
            let event = tokio::select! {
                event = output.next() => event,
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
            match event {
                Some(SessionEvent::Partial { from, until, text, .. }) => {
                    self.teller.partial(from, until, &text, &mut texts);
                }
                Some(SessionEvent::Final(last)) => {
                    self.teller.last(&last, &mut texts);
                    // Not dressed as silence.
                    texts.extend(
                        last.error.map(|error| error_event(&ErrorBody::new(ErrorCode::Internal, error))),
                    );
                    written = Some(last.segment.0 + 1);
                }
                Some(SessionEvent::Done { frames, .. }) => {
                    let heard = Heard {
                        sha256: self.digest.try_recv().unwrap_or_default(),
                        created: self.created.to_owned(),
                        duration: self.teller.seconds(frames),
                        channels: self.channels,
                    };
                    writer.text(metadata(self.teller.answerer(), &heard).to_string()).await?;
                    writer.close(close::NORMAL, "").await;
                    return Ok(());
                }
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
                self.written.send_replace(written);
            }
        }
    }
}
