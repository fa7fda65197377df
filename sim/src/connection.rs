//! A client's end of a connection: messages out, events in.

use std::sync::Arc;

use starling_protocol::native::stream::{Frame, StreamReader, encode_audio, encode_message, read_server};
use starling_protocol::native::{ClientMessage, ServerMessage};
use starling_protocol::{Epoch, SessionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::lines::{LineReader, LineWriter, Lines};
use crate::net::{HostId, Port};

/// Longest body of a server's message.
const LONGEST: usize = 1 << 20;

/// Messages that wait to be taken. Past it the connection is not read.
const WAITING: usize = 4;

/// What a client hears.
pub enum Heard {
    /// The server said this.
    Message(Box<ServerMessage>),
    /// A sign of life.
    Pong,
    /// The connection is gone.
    Lost,
}

/// See the module. Dropping it ends the connection, with what was written.
pub struct Connection {
    /// Where it leads.
    pub node: HostId,
    /// What was said of the session on it: its id, the connection's number, whether it is durable.
    pub facts: Option<(SessionId, Epoch, bool)>,
    lines: Arc<dyn Lines>,
    client: HostId,
    run: u64,
    out: mpsc::Sender<Vec<u8>>,
    heard: mpsc::Receiver<Heard>,
    pongs: mpsc::Sender<Heard>,
    wrote: Arc<Notify>,
    reading: JoinHandle<()>,
    lost: bool,
}

impl Connection {
    /// Connects and says this first.
    #[must_use]
    pub fn open(
        lines: &Arc<dyn Lines>,
        client: HostId,
        node: HostId,
        port: Port,
        first: &ClientMessage,
    ) -> Self {
        let (out, queue) = mpsc::channel(1);
        let (sender, heard) = mpsc::channel(WAITING);
        let wrote = Arc::new(Notify::new());
        let (dialled, run) = (lines.dial(client, node, port), lines.run_of(node));
        let (first, written, hears) = (encoded(first), Arc::clone(&wrote), sender.clone());
        let reading = tokio::spawn(async move {
            let Some((reader, writer)) = dialled.await else {
                return drop(hears.send(Heard::Lost).await);
            };
            tokio::spawn(write(writer, first, queue, written));
            read(reader, hears).await;
        });
        let lines = Arc::clone(lines);
        Self { node, facts: None, lines, client, run, out, heard, pongs: sender, wrote, reading, lost: false }
    }

    /// The next thing that is heard. Safe to be cancelled; pending for ever after the loss.
    pub async fn next(&mut self) -> Heard {
        if self.lost {
            std::future::pending::<()>().await;
        }
        let heard = self.heard.recv().await.unwrap_or(Heard::Lost);
        self.lost = matches!(heard, Heard::Lost);
        if let Heard::Message(message) = &heard {
            match **message {
                ServerMessage::Ready { session, epoch, durable, .. } => {
                    self.facts = Some((session, epoch, durable));
                }
                ServerMessage::View { durable: now, .. } => {
                    if let Some((_, _, durable)) = &mut self.facts {
                        *durable = now;
                    }
                }
                _ => {}
            }
        }
        heard
    }

    /// Whether something may be written now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.out.capacity() > 0
    }

    /// Resolves when there may be room again.
    pub fn wrote(&self) -> impl Future<Output = ()> + Send + use<> {
        let wrote = Arc::clone(&self.wrote);
        async move { wrote.notified().await }
    }

    /// Writes a message.
    pub fn say(&self, message: &ClientMessage) {
        // Without room it was not asked for; a connection that is gone says so itself.
        let _ = self.out.try_send(encoded(message));
    }

    /// Writes audio.
    pub fn audio(&self, samples: &[u8]) {
        let mut bytes = Vec::new();
        encode_audio(samples, &mut bytes);
        let _ = self.out.try_send(bytes);
    }

    /// Asks for a sign of life, which the transport gives and not the session.
    pub fn ping(&self) {
        if self.lines.answers(self.client, self.node, self.run) {
            let _ = self.pongs.try_send(Heard::Pong);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

fn encoded(message: &ClientMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Every message of the protocol has a form.
    let _ = encode_message(message, &mut bytes);
    bytes
}

async fn write(
    mut writer: LineWriter,
    first: Vec<u8>,
    mut queue: mpsc::Receiver<Vec<u8>>,
    wrote: Arc<Notify>,
) {
    let mut next = Some(first);
    while let Some(bytes) = next {
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
        wrote.notify_one();
        next = queue.recv().await;
        wrote.notify_one();
    }
}

async fn read(mut reader: LineReader, heard: mpsc::Sender<Heard>) {
    let mut frames = StreamReader::new(LONGEST);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match frames.next() {
            Ok(Some(Frame::Message(body))) => {
                let Ok(message) = read_server(body) else { break };
                if heard.send(Heard::Message(Box::new(message))).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Ok(Some(Frame::Audio(_))) | Err(_) => break,
        }
        match reader.read(&mut buffer).await {
            Ok(count) if count > 0 => frames.push(&buffer[..count]),
            _ => break,
        }
    }
    let _ = heard.send(Heard::Lost).await;
}
