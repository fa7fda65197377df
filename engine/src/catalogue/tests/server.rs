//! A web server of a few lines that can be told to misbehave.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The tag of the one version that the server has.
const ETAG: &str = "\"v1\"";

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Behaviour {
    /// Break the first connection off after so many bytes of content.
    pub(crate) drop_first_after: Option<usize>,
    /// How long it says that a part is, whatever it is.
    pub(crate) said_bytes: Option<u64>,
    /// Answer everything with this status.
    pub(crate) status: Option<&'static str>,
}

pub(crate) struct Server {
    address: String,
    ranges: Arc<Mutex<Vec<Option<String>>>>,
}

impl Server {
    pub(crate) fn start(content: Vec<u8>, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&ranges);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that hangs up early is part of some tests.
                let _ = answer(stream, &content, behaviour, &seen);
            }
        });
        Self { address, ranges }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// The `Range` header of every request so far.
    pub(crate) fn ranges(&self) -> Vec<Option<String>> {
        self.ranges.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    content: &[u8],
    behaviour: Behaviour,
    seen: &Mutex<Vec<Option<String>>>,
) -> std::io::Result<()> {
    let mut headers = Vec::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        match line? {
            line if line.is_empty() => break,
            line => headers.push(line),
        }
    }
    let header = |name: &str| {
        headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let range = header("range");
    let first = {
        let mut seen = seen.lock().unwrap();
        seen.push(range.clone());
        seen.len() == 1
    };
    if let Some(status) = behaviour.status {
        return write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let is_current = header("if-range").is_none_or(|tag| tag == ETAG);
    let start: usize = range
        .filter(|_| is_current)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .unwrap_or(0);
    if start > content.len() {
        return write!(stream, "HTTP/1.1 416 Too Far\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let (status, total) = (if start > 0 { "206 Partial Content" } else { "200 OK" }, content.len());
    let body = &content[start..];
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: {ETAG}\r\nConnection: close\r\n\
         Content-Range: bytes {start}-{}/{total}\r\n\r\n",
        behaviour.said_bytes.unwrap_or(body.len() as u64),
        total.saturating_sub(1),
    )?;
    let cut = behaviour.drop_first_after.filter(|_| first).unwrap_or(body.len()).min(body.len());
    stream.write_all(&body[..cut])
}
