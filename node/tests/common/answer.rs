//! Whole answers of an HTTP server.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::in_time;

/// What an HTTP server said.
pub struct Answer {
    pub status: u16,
    /// In small letters.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A header's value, in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(given, _)| *given == name).map(|(_, value)| value)
    }

    pub fn shown(&self) -> String {
        format!("{} {}", self.status, self.body)
    }
}

/// Asks once, on a connection of its own.
pub async fn request(address: SocketAddr, line: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    let exchange = async {
        stream.write_all(head.as_bytes()).await.expect("sent");
        // The server may answer without having read all of it.
        let _ = stream.write_all(body).await;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("answered");
        String::from_utf8(bytes).expect("text")
    };
    let text = in_time(exchange).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    Answer {
        status: head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status"),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}
