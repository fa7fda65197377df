//! The report of `starling load`, as a table and as JSON, and its verdict.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::score::difference;
use super::spread::Percentiles;
use super::tally::Tally;
use crate::exit::Exit;

/// What was asked for, and how long it took.
pub(super) struct Setting {
    pub(super) audio: String,
    pub(super) audio_seconds: f64,
    pub(super) clients: u32,
    pub(super) requests: u32,
    pub(super) servers: Vec<String>,
    pub(super) elapsed: Duration,
    pub(super) interrupted: bool,
}

/// All that is told. Its names are part of the command's interface.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    audio: String,
    audio_seconds: f64,
    clients: u32,
    requests: u32,
    servers: Vec<String>,
    elapsed_seconds: f64,
    /// Whether a signal ended it early.
    interrupted: bool,
    sessions: Sessions,
    reconnects: u64,
    /// Reconnects after which the session was begun anew with what the client still held.
    begun_anew: u64,
    /// Frames that had no text because every server had lost them.
    gap_frames: u64,
    /// Segments that no decoder survived.
    undecoded_segments: u64,
    first_audio_to_first_partial: Option<Percentiles>,
    end_of_audio_to_last_final: Option<Percentiles>,
    audio_hours: f64,
    words: Words,
}

#[derive(Debug, Serialize)]
struct Sessions {
    done: u64,
    /// By the reason.
    refused: BTreeMap<String, u64>,
    /// By the kind of failure.
    failed: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Words {
    /// `expected` or `first_answer`.
    compared_with: &'static str,
    /// In one recording.
    of_each: u64,
    lost: u64,
    twice_or_wrong: u64,
    /// Sessions in which there were such words.
    differing_sessions: u64,
}

impl Report {
    pub(super) fn new(setting: Setting, tally: &Tally, expected: Option<&str>) -> Self {
        // Without an undisturbed one, the one that came most often is the best guess.
        let most = || tally.texts.iter().max_by_key(|(_, count)| **count).map(|(text, _)| &**text);
        let reference = expected.or(tally.undisturbed.as_deref()).or_else(most).unwrap_or_default();
        let mut words = Words {
            compared_with: if expected.is_some() { "expected" } else { "first_answer" },
            of_each: reference.split_whitespace().count() as u64,
            lost: 0,
            twice_or_wrong: 0,
            differing_sessions: tally.further,
        };
        for (text, count) in &tally.texts {
            let difference = difference(reference, text);
            words.lost += difference.lost * count;
            words.twice_or_wrong += difference.added * count;
            words.differing_sessions += if difference.lost + difference.added > 0 { *count } else { 0 };
        }
        Self {
            audio: setting.audio,
            audio_seconds: setting.audio_seconds,
            clients: setting.clients,
            requests: setting.requests,
            servers: setting.servers,
            elapsed_seconds: setting.elapsed.as_secs_f64(),
            interrupted: setting.interrupted,
            sessions: Sessions {
                done: tally.done,
                refused: tally.refused.clone(),
                failed: tally.failed.clone(),
            },
            reconnects: tally.reconnects,
            begun_anew: tally.begun_anew,
            gap_frames: tally.gap_frames,
            undecoded_segments: tally.undecoded,
            first_audio_to_first_partial: tally.first_partial.percentiles(),
            end_of_audio_to_last_final: tally.last_final.percentiles(),
            audio_hours: tally.audio_seconds / 3_600.0,
            words,
        }
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |what: &str, value: String| {
            // Writing into a String does not fail.
            let _ = writeln!(text, "{what:<34}{value}");
        };
        row("sessions done", self.sessions.done.to_string());
        row("sessions refused", counts(&self.sessions.refused));
        row("sessions failed", counts(&self.sessions.failed));
        row("connections lost and replaced", self.reconnects.to_string());
        row("of these begun anew", self.begun_anew.to_string());
        row("segments not decoded", self.undecoded_segments.to_string());
        row("first audio to first partial", times(self.first_audio_to_first_partial));
        row("end of audio to last final", times(self.end_of_audio_to_last_final));
        row("audio", format!("{:.2} h in {:.1} s", self.audio_hours, self.elapsed_seconds));
        row("words lost", format!("{} (of {} in each session)", self.words.lost, self.words.of_each));
        row("words twice or wrong", self.words.twice_or_wrong.to_string());
        row("transcripts that differ", self.words.differing_sessions.to_string());
        if self.interrupted {
            text.push_str("Ended by a signal; sessions that were open then do not count.\n");
        }
        text
    }

    /// Whether all is well.
    pub(super) fn verdict(&self) -> Result<(), (Exit, String)> {
        let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        let (failed, refused) = (sum(&self.sessions.failed), sum(&self.sessions.refused));
        let Words { lost, twice_or_wrong, differing_sessions, of_each, .. } = self.words;
        if self.sessions.done == 0 && failed > 0 {
            return Err((Exit::Unavailable, "no session came to its end".to_owned()));
        }
        if failed > 0 || differing_sessions > 0 || self.gap_frames > 0 {
            let why = format!(
                "{failed} sessions failed, {lost} words were lost, {twice_or_wrong} came twice or wrong"
            );
            return Err((Exit::Partial, why));
        }
        if refused > 0 {
            return Err((Exit::TryAgain, format!("nothing was lost, but {refused} sessions were refused")));
        }
        if self.sessions.done > 0 && of_each == 0 {
            let why = "the transcript has no words, so that none could be lost; take a recording with speech";
            return Err((Exit::Data, why.to_owned()));
        }
        Ok(())
    }
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let sum: u64 = counts.values().sum();
    let each: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if each.is_empty() { sum.to_string() } else { format!("{sum} ({})", each.join(", ")) }
}

fn times(times: Option<Percentiles>) -> String {
    times.map_or_else(
        || "-".to_owned(),
        |times| {
            let Percentiles { p50_ms, p95_ms, p99_ms, longest_ms, .. } = times;
            format!("p50 {p50_ms} ms, p95 {p95_ms} ms, p99 {p99_ms} ms, longest {longest_ms} ms")
        },
    )
}

#[cfg(test)]
mod tests;
