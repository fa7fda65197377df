//! What sessions of real engines leave behind: valgrind on one session, and on more of them.
//!
//! Owns: the comparison. What libraries keep once for themselves is in both runs, so it is the difference that counts.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{self, cargo, root, target};
use crate::setup;

/// Engine, recording and seconds of it: enough for a text, as valgrind takes a minute for each second of them.
const ENGINES: [(&str, &str, &str); 2] =
    [("vosk", "ko/ko-1.wav", "1.5"), ("moonshine", "beckett.wav", "1.5")];

const FEW: u64 = 1;
const MANY: u64 = 3;

/// Memory that nothing points to any more, or only into its middle: none of it may come with a session.
const LOST_LIMIT: u64 = 0;

/// All memory that is in use at the end, also what is still pointed to. Tables that grow by doubling may do so between the two runs.
const IN_USE_LIMIT: i64 = 4_096;

/// Bytes at a program's end, by valgrind's account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Left {
    definitely: u64,
    indirectly: u64,
    possibly: u64,
    in_use: u64,
}

impl Left {
    fn lost(self) -> u64 {
        self.definitely + self.indirectly + self.possibly
    }
}

pub(crate) fn run(engines: &[String]) -> Result<()> {
    for engine in engines {
        let known = ENGINES.map(|(name, ..)| name);
        ensure!(known.contains(&&**engine), "{engine} is none of {}", known.join(", "));
    }
    setup::speech()?;
    setup::valgrind()?;
    command::run(cargo().args(["build", "--package", "starling-engine", "--example", "leaks"]))?;
    let out = target().join("leaks");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    println!(
        "{:<10} {:>8} {:>12} {:>12} {:>12} {:>12}",
        "engine", "sessions", "definitely", "indirectly", "possibly", "in use"
    );
    let mut failed = Vec::new();
    for (engine, recording, seconds) in ENGINES {
        if !engines.is_empty() && !engines.iter().any(|wanted| wanted == engine) {
            continue;
        }
        let measured = |sessions| measure(engine, recording, seconds, sessions, &out);
        // Side by side: each has one thread, and they share nothing.
        let (few, many) = std::thread::scope(|scope| {
            let few = scope.spawn(|| measured(FEW));
            let many = measured(MANY);
            anyhow::Ok((few.join().map_err(|_| anyhow::anyhow!("valgrind's watcher panicked"))??, many?))
        })?;
        let lost = many.lost().saturating_sub(few.lost());
        let in_use = signed(many.in_use) - signed(few.in_use);
        println!(
            "{engine:<10} each session more: {} bytes lost, {} in use",
            lost / (MANY - FEW),
            in_use / signed(MANY - FEW)
        );
        if lost > LOST_LIMIT || in_use / signed(MANY - FEW) > IN_USE_LIMIT {
            failed.push(engine);
            let report = fs::read_to_string(report(&out, engine, MANY)).unwrap_or_default();
            eprintln!("{report}");
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("sessions leave memory behind: {}", failed.join(", "))
}

fn measure(engine: &str, recording: &str, seconds: &str, sessions: u64, out: &Path) -> Result<Left> {
    let path = report(out, engine, sessions);
    let home = root().join(".starling");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .env("STARLING_HOME", &home)
        .args(["--leak-check=full", "--undef-value-errors=no", "--num-callers=24"])
        .arg(format!("--log-file={}", path.display()))
        .arg(target().join("debug/examples/leaks"))
        .args([engine, &sessions.to_string(), seconds])
        .arg(home.join("audio").join(recording));
    command::run(&mut valgrind)?;
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let left = parse(&text).with_context(|| format!("valgrind's report is of another kind:\n{text}"))?;
    println!(
        "{engine:<10} {sessions:>8} {:>12} {:>12} {:>12} {:>12}",
        left.definitely, left.indirectly, left.possibly, left.in_use
    );
    Ok(left)
}

fn report(out: &Path, engine: &str, sessions: u64) -> std::path::PathBuf {
    out.join(format!("{engine}-{sessions}"))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Reads valgrind's summary.
fn parse(report: &str) -> Option<Left> {
    let in_use = bytes(report, "in use at exit:")?;
    if report.contains("no leaks are possible") {
        return Some(Left { in_use, ..Left::default() });
    }
    Some(Left {
        definitely: bytes(report, "definitely lost:")?,
        indirectly: bytes(report, "indirectly lost:")?,
        possibly: bytes(report, "possibly lost:")?,
        in_use,
    })
}

/// The number after `what`, such as `1,234 bytes in 5 blocks`.
fn bytes(report: &str, what: &str) -> Option<u64> {
    let (_, rest) = report.split_once(what)?;
    rest.split_whitespace().next()?.replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let report = "==7== HEAP SUMMARY:\n==7==     in use at exit: 12,345 bytes in 6 blocks\n\
            ==7== 16 bytes in 1 blocks are definitely lost in loss record 1 of 3\n==7== LEAK SUMMARY:\n\
            ==7==    definitely lost: 1,016 bytes in 1 blocks\n==7==    indirectly lost: 0 bytes in 0 blocks\n\
            ==7==      possibly lost: 304 bytes in 1 blocks\n==7==    still reachable: 11,025 bytes in 4 blocks\n";
        let left = Left { definitely: 1_016, indirectly: 0, possibly: 304, in_use: 12_345 };
        assert_eq!(parse(report), Some(left));
        let none = "==7==     in use at exit: 0 bytes in 0 blocks\n==7== All heap blocks were freed -- no leaks are possible\n";
        assert_eq!(parse(none), Some(Left::default()));
        assert_eq!(parse("nothing of the kind"), None);
    }
}
