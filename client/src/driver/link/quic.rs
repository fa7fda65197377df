//! One QUIC connection with one stream on it.
//!
//! An endpoint, and so a socket, for each: what happens to one session's path is none of another's business, and a new attempt
//! leaves by whatever way the machine has then.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Endpoint, IdleTimeout, RecvStream, SendStream, TransportConfig, VarInt, WriteError,
};
use starling_protocol::native::stream::{
    Frame, NATIVE_ALPN, StreamReader, encode_audio, encode_message, read_server,
};
use starling_protocol::native::{ClientMessage, Close, Hello};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Failure, LinkEvent, MAX_MESSAGE_BYTES, Outgoing, heard};
use crate::target::Place;
use crate::tls::Trust;

/// A connection on which nothing was heard for so long is lost, whatever the client allows beyond it. Unlike a WebSocket's
/// pongs, QUIC's acknowledgements don't wait for whoever reads the audio; and unlike TCP it hears nothing of a process that died.
const SILENCE: Duration = Duration::from_secs(3);

/// Something is sent at least so often in that time, so that one packet that is lost means nothing.
const KEEP_ALIVES: u32 = 3;

/// A handshake takes a round trip, or two if the server is under load. Nobody refuses a connection to a node that is gone, so
/// the next server waits for this one.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// When the first packet is sent again, about three of these after it. RFC 9002 has a third of a second, for paths that few have.
const INITIAL_RTT: Duration = Duration::from_millis(150);

/// The next of a name's addresses is tried beside the ones before it after so long (RFC 8305, 8).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Read at once.
const READ_BYTES: usize = 4 * 1024;

pub(in crate::driver) struct Connection {
    endpoint: Endpoint,
    connection: quinn::Connection,
    sending: SendStream,
    receiving: RecvStream,
    frames: StreamReader,
    /// The frame that is being written, and how much of it was.
    out: Vec<u8>,
    written: usize,
    ping_due: bool,
    /// Why nothing can be written any more. What the server said is still read, up to its end.
    broken: Option<String>,
}

/// Connects and opens the stream.
pub(super) async fn connect(
    place: Place,
    trust: Option<Trust>,
    hello: Hello,
    liveness: Duration,
) -> Result<Connection, Failure> {
    let connected = async {
        let trust = trust.ok_or("there is no certificate to trust")?;
        let config = settings(&trust, liveness)?;
        let (endpoint, connection) = dial(&place, &config).await?;
        let (sending, receiving) = connection.open_bi().await.map_err(|error| error.to_string())?;
        Ok::<_, String>((endpoint, connection, sending, receiving))
    };
    let (endpoint, connection, sending, receiving) =
        connected.await.map_err(|cause| Failure { said: None, cause })?;
    Ok(Connection {
        endpoint,
        connection,
        sending,
        receiving,
        frames: StreamReader::new(MAX_MESSAGE_BYTES),
        out: frame(&Outgoing::Message(ClientMessage::Hello(Box::new(hello)))),
        written: 0,
        ping_due: false,
        broken: None,
    })
}

fn settings(trust: &Trust, liveness: Duration) -> Result<ClientConfig, String> {
    let silence = liveness.min(SILENCE);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::try_from(silence).map_err(|error| error.to_string())?))
        .keep_alive_interval(Some(silence / KEEP_ALIVES))
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    let tls = trust.for_quic(NATIVE_ALPN).map_err(|error| error.to_string())?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The first of the name's addresses that answers.
async fn dial(place: &Place, config: &ClientConfig) -> Result<(Endpoint, quinn::Connection), String> {
    let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await;
    let addresses: Vec<SocketAddr> = found.map_err(|error| error.to_string())?.collect();
    let mut dials = JoinSet::new();
    let mut left = addresses.into_iter();
    let mut cause = format!("{} has no address", place.host);
    loop {
        match left.next() {
            Some(address) => drop(dials.spawn(dial_one(address, place.host.clone(), config.clone()))),
            None if dials.is_empty() => return Err(cause),
            None => {}
        }
        let wait = if left.len() > 0 { NEXT_ADDRESS } else { HANDSHAKE };
        match timeout(wait, dials.join_next()).await {
            Ok(Some(Ok(Ok(connected)))) => return Ok(connected),
            Ok(Some(Ok(Err(failed)))) => cause = failed,
            Ok(Some(Err(failed))) => cause = failed.to_string(),
            Ok(None) | Err(_) => {}
        }
    }
}

async fn dial_one(
    address: SocketAddr,
    name: String,
    config: ClientConfig,
) -> Result<(Endpoint, quinn::Connection), String> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = Endpoint::client(any).map_err(|error| error.to_string())?;
    let connecting = endpoint.connect_with(config, address, &name).map_err(|error| error.to_string())?;
    match timeout(HANDSHAKE, connecting).await {
        Ok(Ok(connection)) => Ok((endpoint, connection)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{address} does not answer")),
    }
}

fn frame(outgoing: &Outgoing) -> Vec<u8> {
    let mut bytes = Vec::new();
    match outgoing {
        Outgoing::Message(message) => {
            if let Err(error) = encode_message(message, &mut bytes) {
                // Every message is of texts and numbers, which have a form.
                tracing::error!(%error, "a message could not be encoded");
            }
        }
        Outgoing::Audio(samples) => encode_audio(samples, &mut bytes),
    }
    bytes
}

impl Connection {
    pub(super) const fn wants_message(&self) -> bool {
        self.out.is_empty() && self.broken.is_none()
    }

    pub(super) fn write(&mut self, outgoing: &Outgoing) {
        (self.out, self.written) = (frame(outgoing), 0);
    }

    pub(super) const fn ping(&mut self) {
        self.ping_due = true;
    }

    pub(super) fn works(&self) -> bool {
        self.broken.is_none() && self.connection.close_reason().is_none()
    }

    pub(super) async fn close(mut self: Box<Self>, last: Option<Outgoing>) {
        let mut rest = self.out.split_off(self.written);
        if let Some(last) = last {
            rest.extend(frame(&last));
        }
        // Half a frame would be no goodbye.
        if self.sending.write_all(&rest).await.is_ok() {
            let _ = self.sending.finish();
        }
        // Up to the server's own end, after which it has read everything.
        let mut scrap = [0; READ_BYTES];
        while let Ok(Some(_)) = self.receiving.read(&mut scrap).await {}
        self.connection.close(Close::Done.stream().into(), b"");
        self.endpoint.wait_idle().await;
    }

    pub(super) fn poll(&mut self, reading: bool, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        match self.poll_write(cx) {
            Ok(true) => return Poll::Ready(LinkEvent::Wrote),
            Ok(false) => {}
            Err(error) => self.broken = Some(error),
        }
        if std::mem::take(&mut self.ping_due) && self.works() {
            // The connection asks by itself all the time, and would be gone if nobody answered.
            return Poll::Ready(LinkEvent::Heard);
        }
        if reading { self.poll_read(cx) } else { Poll::Pending }
    }

    /// Writes what there is; true when all of it was taken.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, String> {
        if self.out.is_empty() || self.broken.is_some() {
            return Ok(false);
        }
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.sending).poll_write(cx, rest) {
                Poll::Ready(Ok(count)) => self.written += count,
                Poll::Ready(Err(WriteError::Stopped(code))) => {
                    return Err(format!("ended by the server with code {code}"));
                }
                Poll::Ready(Err(error)) => return Err(error.to_string()),
                Poll::Pending => return Ok(false),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(true)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        let mut bytes = [0; READ_BYTES];
        loop {
            match self.frames.next() {
                Ok(Some(Frame::Message(body))) => return Poll::Ready(heard(read_server(body), false)),
                Ok(Some(Frame::Audio(_))) => return Poll::Ready(LinkEvent::Heard),
                Ok(None) => {}
                Err(error) => return Poll::Ready(LinkEvent::Lost(error.to_string())),
            }
            let mut buffer = ReadBuf::new(&mut bytes);
            match AsyncRead::poll_read(Pin::new(&mut self.receiving), cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.frames.push(buffer.filled()),
                Poll::Ready(ended) => return Poll::Ready(LinkEvent::Lost(self.end(ended.err()))),
            }
        }
    }

    fn end(&mut self, error: Option<io::Error>) -> String {
        let closed = self.connection.close_reason().map(|reason| reason.to_string());
        let said = closed.or_else(|| self.broken.take()).or_else(|| error.map(|error| error.to_string()));
        said.unwrap_or_else(|| "ended by the server".to_owned())
    }
}
