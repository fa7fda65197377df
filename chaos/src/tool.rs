//! Load by `starling load`, as an operator would make it, rather than by callers of this program.
//!
//! Owns: running it, and what it says it counted. Must never: count by itself; the transcript that it compares with is the script's, or where
//! that does not know it the undisturbed caller's.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::callers::PATIENCE;
use crate::run::Bench;
use crate::scenario::Load;
use crate::script::{RATE, Script};

/// What it counted.
pub(crate) struct Loaded {
    pub(crate) sessions: usize,
    /// Those that were told everything.
    pub(crate) whole: usize,
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) reconnects: u64,
    pub(crate) begun_anew: u64,
    /// Why it did not end well, if it did not.
    pub(crate) failure: Option<String>,
    /// All that it said.
    pub(crate) report: Value,
}

/// So many `requests` from each of the load's callers. `calm` is what an undisturbed one was told.
pub(crate) async fn load(
    bench: &Bench,
    load: &Load,
    requests: u32,
    servers: &[String],
    script: &Script,
    calm: &str,
) -> Result<Loaded> {
    let folder = TempDir::new().context("making a folder for a recording")?;
    let (audio, json, words) =
        (folder.path().join("load.wav"), folder.path().join("load.json"), folder.path().join("words.txt"));
    write(script, &audio)?;
    let calm = || calm.split_whitespace().map(str::to_owned).collect();
    let expected: Vec<String> = script.words.clone().unwrap_or_else(calm);
    std::fs::write(&words, expected.join(" ")).context("writing what has to be heard")?;
    let mut command = Command::new(bench.programs.join("starling"));
    command.args(["load", "--quiet", "--model", bench.model()]);
    command.args(["--clients", &load.callers.to_string(), "--requests", &requests.to_string()]);
    command.args(["--interval", &format!("{}s", load.interval_s)]);
    command.args(servers.iter().map(|server| format!("--server=ws://{server}")));
    command.arg("--expect").arg(&words).arg("--json").arg(&json).arg(&audio);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let one = script.seconds() + load.interval_s;
    let longest = PATIENCE.mul_f64(f64::from(requests))
        + std::time::Duration::from_secs_f64(one * f64::from(requests + 1));
    let ran = timeout(longest, command.output()).await;
    let output = ran.with_context(|| format!("`starling load` takes longer than {longest:?}"))??;
    let failure = (!output.status.success()).then(|| {
        format!(
            "`starling load` ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )
    });
    let text = std::fs::read_to_string(&json).with_context(|| failure.clone().unwrap_or_default())?;
    let report: Value = serde_json::from_str(&text).context("the report of `starling load`")?;
    let number = |pointer: &str| {
        let value = report.pointer(pointer).and_then(Value::as_u64);
        value.with_context(|| format!("the report of `starling load` has no {pointer}"))
    };
    let (done, differing) = (number("/sessions/done")?, number("/words/differing_sessions")?);
    let sessions = load.callers * requests as usize;
    let whole = done.saturating_sub(differing) as usize;
    ensure!(number("/words/of_each")? == expected.len() as u64, "`starling load` compared with other words");
    Ok(Loaded {
        sessions,
        whole,
        lost: number("/words/lost")?,
        twice: number("/words/twice_or_wrong")?,
        reconnects: number("/reconnects")?,
        begun_anew: number("/begun_anew")?,
        failure: failure.or_else(|| {
            (whole < sessions).then(|| format!("{whole} of {sessions} sessions were told everything"))
        }),
        report,
    })
}

fn write(script: &Script, path: &Path) -> Result<()> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).context("writing a recording")?;
    for sample in script.audio.as_chunks::<2>().0 {
        writer.write_sample(i16::from_le_bytes(*sample))?;
    }
    Ok(writer.finalize()?)
}
