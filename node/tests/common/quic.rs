//! A client that speaks frames over QUIC, for tests that look at each of them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use starling_node::tls::{Certificate, SelfSigned, self_signed};
use starling_protocol::native::stream::{
    Frame, NATIVE_ALPN, StreamReader, encode_audio, encode_message, read_server,
};
use tempfile::TempDir;

use super::in_time;

/// A certificate for `localhost` and loopback.
pub struct Authority {
    pub made: SelfSigned,
    pub certificate: Arc<Certificate>,
    _folder: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = self_signed(names, 14, folder.path()).expect("made");
        let certificate = Certificate::load(made.files.clone()).expect("fine");
        Self { made, certificate, _folder: folder }
    }

    pub fn file(&self) -> &Path {
        &self.made.files.cert
    }

    pub fn tls(&self, protocol: &[u8]) -> rustls::ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file()).expect("a certificate")).expect("is taken");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("there is");
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        config
    }

    /// A client that names this protocol.
    pub async fn dial(&self, node: SocketAddr, protocol: &[u8]) -> Result<Caller, ConnectionError> {
        let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
        let crypto = QuicClientConfig::try_from(self.tls(protocol)).expect("fine");
        let connecting =
            endpoint.connect_with(ClientConfig::new(Arc::new(crypto)), node, "localhost").expect("valid");
        let connection = in_time(connecting).await?;
        Ok(Caller { endpoint, connection })
    }

    pub async fn call(&self, node: SocketAddr) -> Caller {
        self.dial(node, NATIVE_ALPN).await.expect("greeted")
    }
}

pub struct Caller {
    pub endpoint: Endpoint,
    pub connection: Connection,
}

impl Caller {
    pub async fn stream(&self) -> Stream {
        let (sending, receiving) = in_time(self.connection.open_bi()).await.expect("a stream");
        Stream::new(sending, receiving)
    }
}

pub struct Stream {
    pub sending: SendStream,
    pub receiving: RecvStream,
    frames: StreamReader,
}

impl Stream {
    pub const fn new(sending: SendStream, receiving: RecvStream) -> Self {
        Self { sending, receiving, frames: StreamReader::new(1 << 22) }
    }

    /// Says what this JSON says, in MessagePack.
    pub async fn say(&mut self, json: &str) {
        let value: Value = serde_json::from_str(json).expect("JSON");
        let mut bytes = Vec::new();
        encode_message(&value, &mut bytes).expect("encodes");
        self.raw(&bytes).await;
    }

    pub async fn audio(&mut self, bytes: usize) {
        let mut frame = Vec::new();
        encode_audio(&vec![0; bytes], &mut frame);
        self.raw(&frame).await;
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        in_time(self.sending.write_all(bytes)).await.expect("sent");
    }

    /// The next message.
    pub async fn hear(&mut self) -> Value {
        self.next().await.expect("no end").expect("a message")
    }

    /// The end of the stream with nothing before it: in order, or with a code.
    pub async fn end(&mut self) -> Result<(), u64> {
        match self.next().await {
            Ok(None) => Ok(()),
            Ok(Some(message)) => panic!("no end but {message}"),
            Err(ReadError::Reset(code)) => Err(code.into_inner()),
            Err(error) => panic!("neither an end nor a reset: {error}"),
        }
    }

    /// The code with which the node takes no more.
    pub async fn stopped(&mut self) -> Option<u64> {
        let stopped = in_time(self.sending.stopped()).await.expect("the connection lives");
        stopped.map(|code| code.into_inner())
    }

    async fn next(&mut self) -> Result<Option<Value>, ReadError> {
        loop {
            match self.frames.next().expect("frames") {
                Some(Frame::Message(body)) => {
                    let message = read_server(body).expect("a message");
                    return Ok(Some(serde_json::to_value(message).expect("encodes")));
                }
                Some(Frame::Audio(_)) => panic!("the node sent audio"),
                None => {}
            }
            match in_time(self.receiving.read_chunk(1 << 16, true)).await? {
                Some(chunk) => self.frames.push(&chunk.bytes),
                None => return Ok(None),
            }
        }
    }
}
