//! A connection whose session is open: audio and marks in, items out.
//!
//! Reading and writing go on side by side: a client that does not read its events holds back its own audio and nothing else. What
//! is told is decided on the writing side alone, so that events come in one order; the reading side asks it whether a mark counts
//! before it hands the mark to the session.

use std::time::Duration;

use starling_actors::SessionEvent;
use starling_core::audio::{PcmReader, RateMap};
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::realtime::{ClientEvent, Mark, Said, Update};
use starling_protocol::{Segment, SourceOffset};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Talk, no_binary, read};
use crate::gateway::link::{Link, Reader, Received, SendError, Writer, close};
use crate::gateway::rounds::Pace;
use crate::gateway::{GatewayState, note_warnings};
use crate::sessions::{Attached, Input, Output};

/// Events of the client that wait for the writing side.
const WAITING: usize = 8;

/// Audio goes in in pieces, so that finals are confirmed in between; G.711 becomes twice as long.
const PIECE_BYTES: usize = crate::sessions::PIECE_BYTES / 2;

/// How long a client may take for its side of the closing handshake.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a connection that broke is closed.
type Closing = (u16, &'static str);

/// What the reading side has for the writing side.
enum Told {
    Update(Box<Update>, Option<String>),
    /// Answered with whether the session is to be asked for a final.
    Commit(Mark, Option<String>, oneshot::Sender<bool>),
    /// As for [`Self::Commit`].
    Clear(Mark, oneshot::Sender<bool>),
    Wrong(ErrorBody, Option<String>),
}

/// Serves a connection from its first audio on.
pub(super) async fn converse(
    link: Link,
    attached: Attached,
    first: Vec<u8>,
    mut talk: Talk,
    state: &GatewayState,
) {
    let Attached { ready, input, output } = attached;
    note_warnings(&ready);
    let (mut reader, mut writer) = link.into_halves();
    let format = talk.teller.config().format;
    let (tell, told) = mpsc::channel(WAITING);
    let (wrote, written) = watch::channel(0);
    let mut hearing = Hearing {
        input,
        samples: PcmReader::new(format.encoding, format.channels),
        mono: Vec::new(),
        frames: 0,
        rates: RateMap::new(format.sample_rate, state.sample_rate_of(&ready.model)).ok(),
        written,
        confirmed: 0,
        tell,
        pace: state.rounds.enter(),
    };
    let closing = {
        let mut reading = std::pin::pin!(hearing.run(&mut reader, &first));
        tokio::select! {
            closing = &mut reading => closing,
            ended = telling(&mut talk, &mut writer, output, told, wrote, state) => {
                if ended.is_ok() {
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
    hearing.input.abandon().await;
}

/// The client's side of a session.
struct Hearing {
    input: Box<dyn Input>,
    samples: PcmReader,
    mono: Vec<u8>,
    /// Frames that the session was given.
    frames: u64,
    /// `None` for rates that no session has.
    rates: Option<RateMap>,
    /// Finals that were written, by the last one's number plus one.
    written: watch::Receiver<u64>,
    confirmed: u64,
    tell: mpsc::Sender<Told>,
    pace: Pace,
}

impl Hearing {
    /// Takes in messages until the connection is over.
    async fn run(&mut self, reader: &mut Reader, first: &[u8]) -> Option<Closing> {
        let mut over = self.audio(first).await;
        while !over {
            self.confirm().await;
            let received = tokio::select! {
                received = reader.next() => received,
                changed = self.written.changed() => match changed {
                    Ok(()) => continue,
                    // All was told: what still comes changes nothing.
                    Err(_) => break,
                },
            };
            let said = match received {
                Received::Text(text) => read(text).await,
                Received::Binary(_) => no_binary(),
                Received::Pong(_) => continue,
                Received::Broken(code, reason) => return Some((code, reason)),
                Received::Closed | Received::Silent => return None,
            };
            over = self.event(said).await;
        }
        // The session is over and its last events say why; they are being written.
        while !matches!(reader.next().await, Received::Closed | Received::Silent | Received::Broken(..)) {}
        None
    }

    /// Returns whether the session takes no more.
    async fn event(&mut self, said: Said) -> bool {
        let Said { event, event_id } = said;
        match event {
            Ok(ClientEvent::Append(audio)) => {
                self.pace.wait().await;
                self.audio(&audio).await
            }
            Ok(ClientEvent::Commit) => {
                let mark = self.mark();
                self.ask(|answer| Told::Commit(mark, event_id, answer)).await
            }
            Ok(ClientEvent::Clear) => {
                let mark = self.mark();
                self.ask(|answer| Told::Clear(mark, answer)).await
            }
            Ok(ClientEvent::Update(update)) => self.tell.send(Told::Update(update, event_id)).await.is_err(),
            Err(error) => self.tell.send(Told::Wrong(error, event_id)).await.is_err(),
        }
    }

    async fn audio(&mut self, bytes: &[u8]) -> bool {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.mono.clear();
            self.samples.read(piece, &mut self.mono);
            if self.mono.is_empty() {
                continue;
            }
            if self.input.audio(&self.mono).await.is_err() {
                return true;
            }
            self.frames += self.mono.len() as u64 / 2;
            self.confirm().await;
        }
        false
    }

    /// What was appended so far ends here, if the writing side agrees. It knows of the mark before the session does, and so before
    /// the final that answers it.
    async fn ask(&mut self, told: impl FnOnce(oneshot::Sender<bool>) -> Told) -> bool {
        let (answer, counts) = oneshot::channel();
        if self.tell.send(told(answer)).await.is_err() {
            return true;
        }
        match counts.await {
            Ok(true) => self.input.finalize().await.is_err(),
            Ok(false) => false,
            Err(_) => true,
        }
    }

    fn mark(&self) -> Mark {
        let at = SourceOffset(self.frames);
        let cut = self.rates.map_or(at, |rates| rates.to_source(rates.decodable(at), at));
        Mark { at, cut }
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

/// Tells the client what comes until the session is over, and says goodbye.
async fn telling(
    talk: &mut Talk,
    writer: &mut Writer,
    mut output: Box<dyn Output>,
    mut told: mpsc::Receiver<Told>,
    wrote: watch::Sender<u64>,
    state: &GatewayState,
) -> Result<(), SendError> {
    let mut pings = interval(state.settings.ping_interval);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    loop {
        let event = tokio::select! {
            event = output.next() => event,
            Some(told) = told.recv() => {
                client_said(talk, told, state);
                talk.tell(writer).await?;
                continue;
            }
            _ = pings.tick() => {
                writer.ping().await?;
                continue;
            }
        };
        let mut written = None;
        match event {
            Some(SessionEvent::Partial { from, text, .. }) => {
                talk.teller.partial(from, &text, &mut talk.out);
            }
            Some(SessionEvent::Final(last)) => {
                talk.teller.last(&last, &mut talk.out);
                written = Some(last.segment.0 + 1);
            }
            Some(SessionEvent::Failed(error)) => {
                talk.end(&error, None, writer).await;
                return Ok(());
            }
            Some(SessionEvent::Done { .. }) => {
                writer.close(close::NORMAL, "").await;
                return Ok(());
            }
            Some(_) => {}
            None => {
                let gone = ErrorBody::new(ErrorCode::Internal, "the session is gone");
                talk.end(&gone, None, writer).await;
                return Ok(());
            }
        }
        talk.tell(writer).await?;
        if let Some(written) = written {
            wrote.send_replace(written);
        }
    }
}

fn client_said(talk: &mut Talk, told: Told, state: &GatewayState) {
    // Nobody waits for the answer of a connection that is gone.
    match told {
        Told::Update(update, event_id) => talk.update(&update, event_id.as_deref(), state),
        Told::Commit(mark, event_id, answer) => {
            let counts = talk.teller.commit(mark, event_id.as_deref(), &mut talk.out);
            let _ = answer.send(counts);
        }
        Told::Clear(mark, answer) => {
            let _ = answer.send(talk.teller.clear(mark, &mut talk.out));
        }
        Told::Wrong(error, event_id) => talk.complain(&error, event_id.as_deref()),
    }
}
