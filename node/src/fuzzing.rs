//! A narrow door for tests that feed what the commands read arbitrary bytes from outside this crate. No part of what a node does.

use axum::http::StatusCode;
use starling_client::Final;

use crate::config;
use crate::exit::{Exit, Failure};
use crate::operate;
use crate::remote::Answer;
use crate::status::{self, Terminal};
use crate::tenants::KeyHash;
use crate::transcribe::{display, subtitles};

/// The cluster, as `starling status` shows a node's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusShown {
    /// As it is printed.
    pub table: String,
    /// As it is drawn on a terminal, without colours.
    pub screen: String,
    /// The same with them.
    pub coloured: String,
}

/// What `starling status` shows of an answer on a terminal of this size.
///
/// # Errors
/// It is none; in words.
pub fn status(answer: &[u8], columns: usize, rows: usize) -> Result<StatusShown, String> {
    let report = status::parsed(answer).map_err(|failure| failure.to_string())?;
    let screen = |colours| status::screen(&report, "00:00:00 UTC", Terminal { columns, rows, colours });
    Ok(StatusShown { table: status::table(&report), screen: screen(false), coloured: screen(true) })
}

/// What `starling status --json` prints of an answer.
///
/// # Errors
/// It is no JSON; in words.
pub fn status_json(answer: &[u8]) -> Result<String, String> {
    status::pretty(answer).map_err(|failure| failure.to_string())
}

/// What `starling models add` prints of an answer: who serves the model, and who does not.
///
/// # Errors
/// It is none; in words.
pub fn model_added(answer: &[u8]) -> Result<(String, Vec<String>), String> {
    let outcomes = operate::parsed(answer).map_err(|failure| failure.to_string())?;
    Ok((operate::table(&outcomes), operate::failures(&outcomes)))
}

/// What a command says that was answered otherwise than with yes; nothing if it was.
#[must_use]
pub fn no_yes(status: u16, body: &[u8]) -> Option<String> {
    let status = StatusCode::from_u16(status).ok()?;
    let refused = Answer { status, body: body.to_vec() }.fine().err()?;
    Some(Failure::new(Exit::Unavailable, refused).to_string())
}

/// A transcript as text, `SubRip` and `WebVTT`.
#[must_use]
pub fn transcript(finals: &[Final]) -> [String; 3] {
    [finals.iter().map(display::line).collect(), subtitles::srt(finals), subtitles::vtt(finals)]
}

/// The hashes of keys in a file of a tenant's.
///
/// # Errors
/// A line is none; in words.
pub fn keys_in_file(text: &str) -> Result<Vec<KeyHash>, String> {
    config::keys_in(text)
}

/// The tenants' names and hashes of keys in the variable for them.
///
/// # Errors
/// An entry is none; in words.
pub fn keys_in_variable(text: &str) -> Result<Vec<(String, KeyHash)>, String> {
    config::keys_of_variable(text)
}
