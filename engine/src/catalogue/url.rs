//! Fetches an archive from an address, going on where an earlier try stopped.

use std::io;
use std::path::{Path, PathBuf};

use super::disk;
use super::manifest::sha256_of;
use super::progress::Progress;

#[derive(Debug, thiserror::Error)]
pub(super) enum UrlError {
    #[cfg(not(feature = "url-sources"))]
    #[error("this build fetches packages only (its feature `url-sources` is off), and {0} is an address")]
    NotBuiltIn(String),
    #[cfg(feature = "url-sources")]
    #[error("{url} cannot be fetched, which needs the internet: {message}")]
    Http { url: String, message: String },
    #[error("{url} came with the SHA-256 {found}, but must have {expected}; it was thrown away")]
    Checksum { url: String, expected: String, found: String },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl UrlError {
    pub(super) fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if disk::is_full(source))
    }
}

/// The archive at `url`, in `downloads`: what is there already is not fetched again. A pinned `sha256` is checked.
pub(super) fn obtain(
    url: &str,
    sha256: Option<&str>,
    downloads: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, UrlError> {
    let path = downloads.join(file_name(url));
    if path.is_file() {
        match check(&path, url, sha256) {
            Err(UrlError::Checksum { .. }) => progress.note("the archive fetched earlier is damaged"),
            checked => return checked.map(|()| path),
        }
    }
    let part = transfer::fetch(url, &path, sha256.is_some(), progress)?;
    check(&part, url, sha256)?;
    std::fs::rename(&part, &path).map_err(|source| UrlError::Io { path: path.clone(), source })?;
    Ok(path)
}

/// The archive's own name, after a digest of its address: two sites may well have a `model.zip`.
fn file_name(url: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(url.as_bytes());
    let own = url.split(['?', '#']).next().and_then(|plain| plain.rsplit('/').next()).unwrap_or_default();
    let own: String = own.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    format!("{:02x}{:02x}{:02x}{:02x}-{own}", digest[0], digest[1], digest[2], digest[3])
}

/// Removes the file and fails when it is not what was pinned.
fn check(path: &Path, url: &str, sha256: Option<&str>) -> Result<(), UrlError> {
    let io = |source| UrlError::Io { path: path.to_owned(), source };
    let Some(expected) = sha256 else { return Ok(()) };
    let found = sha256_of(path, &mut |_| {}).map_err(io)?;
    if found == expected {
        return Ok(());
    }
    std::fs::remove_file(path).map_err(io)?;
    Err(UrlError::Checksum { url: url.to_owned(), expected: expected.to_owned(), found })
}

#[cfg(not(feature = "url-sources"))]
mod transfer {
    use super::*;

    pub(super) fn fetch(
        url: &str,
        _path: &Path,
        _pinned: bool,
        _progress: &mut dyn Progress,
    ) -> Result<PathBuf, UrlError> {
        Err(UrlError::NotBuiltIn(url.to_owned()))
    }
}

#[cfg(feature = "url-sources")]
mod transfer {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::time::Duration;

    use ureq::http::{HeaderMap, StatusCode};

    use super::*;

    /// Long enough for a slow line's handshake, short enough that a person does not give up first.
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
    const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
    /// A transfer that brings nothing for this long is broken off and resumed.
    const READ_TIMEOUT: Duration = Duration::from_secs(30);
    /// Tries in a row that may bring nothing. One that brings anything starts the count afresh.
    const FRUITLESS_TRIES: u32 = 4;
    /// Wait before the second try; it grows with each fruitless one.
    const RETRY_PAUSE: Duration = Duration::from_millis(300);
    const READ_CHUNK_BYTES: usize = 128 * 1024;

    /// Fetches to the file `path` with `.part` added, and returns that.
    pub(super) fn fetch(
        url: &str,
        path: &Path,
        pinned: bool,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, UrlError> {
        let transfer = Transfer {
            url,
            part: with_suffix(path, ".part"),
            tag: with_suffix(path, ".part.tag"),
            pinned,
            agent: ureq::Agent::config_builder()
                .timeout_connect(Some(CONNECT_TIMEOUT))
                .timeout_recv_response(Some(RESPONSE_TIMEOUT))
                .timeout_per_read(Some(READ_TIMEOUT))
                .http_status_as_error(false)
                .build()
                .into(),
        };
        let mut fruitless = 0;
        loop {
            let before = transfer.have_bytes();
            match transfer.attempt(progress) {
                Ok(()) => {
                    let _gone_or_harmless = std::fs::remove_file(&transfer.tag);
                    return Ok(transfer.part);
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Broken(message)) => {
                    fruitless = if transfer.have_bytes() > before { 0 } else { fruitless + 1 };
                    if fruitless >= FRUITLESS_TRIES {
                        return Err(UrlError::Http { url: url.to_owned(), message });
                    }
                    progress
                        .note(&format!("the transfer broke off ({message}); going on from where it stopped"));
                    std::thread::sleep(RETRY_PAUSE * (fruitless + 1));
                }
            }
        }
    }

    struct Transfer<'a> {
        url: &'a str,
        part: PathBuf,
        /// Holds the server's tag for the version that the part belongs to.
        tag: PathBuf,
        pinned: bool,
        agent: ureq::Agent,
    }

    enum Failure {
        /// May well go better at another try.
        Broken(String),
        Final(UrlError),
    }

    impl Transfer<'_> {
        fn have_bytes(&self) -> u64 {
            std::fs::metadata(&self.part).map_or(0, |meta| meta.len())
        }

        fn attempt(&self, progress: &mut dyn Progress) -> Result<(), Failure> {
            let tag = std::fs::read_to_string(&self.tag).ok();
            // Without a tag nothing says that the rest belongs to the same version, unless a checksum will.
            let have = if tag.is_some() || self.pinned { self.have_bytes() } else { 0 };
            let mut request = self.agent.get(self.url);
            if have > 0 {
                request = request.header("Range", format!("bytes={have}-"));
                if let Some(tag) = &tag {
                    request = request.header("If-Range", tag);
                }
            }
            let response = request.call().map_err(|error| Failure::Broken(error.to_string()))?;
            let headers = response.headers();
            let start = match response.status() {
                StatusCode::OK => 0,
                StatusCode::PARTIAL_CONTENT if range_start(headers) == Some(have) => have,
                StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT => {
                    std::fs::remove_file(&self.part).map_err(|error| self.io(&self.part, error))?;
                    return Err(Failure::Broken("the server has another length now".to_owned()));
                }
                status if status.is_server_error() => {
                    return Err(Failure::Broken(format!("the server answered {status}")));
                }
                status => {
                    let message = format!("the server answered {status}");
                    return Err(Failure::Final(UrlError::Http { url: self.url.to_owned(), message }));
                }
            };
            match text(headers, "etag").filter(|tag| !tag.starts_with("W/")) {
                Some(tag) => std::fs::write(&self.tag, tag).map_err(|error| self.io(&self.tag, error))?,
                None => {
                    let _gone_or_harmless = std::fs::remove_file(&self.tag);
                }
            }
            let length = text(headers, "content-length").and_then(|length| length.parse::<u64>().ok());
            let total = length.map(|length| start.saturating_add(length));
            progress.step(&format!("download {}", self.url), total);
            self.receive(response.into_body().into_reader(), start, total, progress)
        }

        fn receive(
            &self,
            mut body: impl Read,
            start: u64,
            total: Option<u64>,
            progress: &mut dyn Progress,
        ) -> Result<(), Failure> {
            let full = |error| self.io(&self.part, error);
            let mut file = File::options()
                .create(true)
                .write(true)
                .truncate(start == 0)
                .append(start > 0)
                .open(&self.part)
                .map_err(full)?;
            let mut buffer = vec![0; READ_CHUNK_BYTES];
            let mut have = start;
            loop {
                let count = body.read(&mut buffer).map_err(|error| Failure::Broken(error.to_string()))?;
                if count == 0 {
                    break;
                }
                file.write_all(&buffer[..count]).map_err(full)?;
                have += count as u64;
                progress.at(have);
            }
            match total {
                Some(total) if have != total => Err(Failure::Broken(format!("{have} bytes of {total} came"))),
                _ => Ok(()),
            }
        }

        fn io(&self, path: &Path, source: io::Error) -> Failure {
            Failure::Final(UrlError::Io { path: path.to_owned(), source })
        }
    }

    fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
        headers.get(name)?.to_str().ok()
    }

    fn range_start(headers: &HeaderMap) -> Option<u64> {
        text(headers, "content-range")?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
    }

    fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    }
}

#[cfg(all(test, feature = "url-sources"))]
mod tests;
