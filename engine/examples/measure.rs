//! Measures one engine alone: `measure vosk|moonshine WAV...`. Prints each segment, then real-time factors and memory.

mod shared;

use std::time::Duration;

use anyhow::{Context, Result};
use starling_engine::{Recognizer, Step, load, warmup};
use starling_protocol::lease::{CutOptions, DecodeOptions};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let engine = arguments.next().context("usage: measure vosk|moonshine [--whole] [--warm=MS] WAV...")?;
    let spec = shared::spec(&engine)?;
    let files: Vec<String> = arguments.collect();
    let mut options = DecodeOptions::default();
    if files.iter().any(|flag| flag == "--whole") {
        // As far from the product's cuts as is allowed.
        options.cuts = CutOptions { pause_after_ms: 30_000, max_ms: 30_000, ..options.cuts };
    }
    let warm_ms: u32 =
        files.iter().find_map(|flag| flag.strip_prefix("--warm=")?.parse().ok()).unwrap_or(3_000);
    let (engine, took) = timed(|| load::load(&spec));
    let engine = engine?;
    println!("{:?}\nloaded in {took:?}, {} MB resident", engine.describe(), resident_mb());
    let mut warm = engine.open(&options)?;
    let (done, took) = timed(|| warmup::warm(warm.as_mut(), 16_000, warm_ms));
    done?;
    println!("warmed with {warm_ms} ms in {took:?} CPU, {} MB resident", resident_mb());
    for file in files.iter().filter(|file| !file.starts_with("--")) {
        let samples: Vec<i16> = hound::WavReader::open(file)
            .with_context(|| file.clone())?
            .into_samples()
            .collect::<Result<_, _>>()?;
        let seconds = samples.len() as f64 / 16_000.0;
        let mut fresh = engine.open(&options)?;
        let (first, cold) = timed(|| decode(fresh.as_mut(), &samples));
        let (second, new) = timed(|| decode(warm.as_mut(), &samples));
        let (third, again) = timed(|| decode(warm.as_mut(), &samples));
        let (first, second, third) = (first?, second?, third?);
        println!("{file} {seconds:.1} s, same text: {}", first == second && second == third);
        for (end, cause, text) in &first {
            println!("  {:7.2} {cause:<9} {text}", *end as f64 / 16_000.0);
        }
        let factor = |took: Duration| took.as_secs_f64() / seconds;
        println!(
            "  real-time factor: fresh {:.3}, warm {:.3}, warm again {:.3}; {} MB resident",
            factor(cold),
            factor(new),
            factor(again),
            resident_mb()
        );
    }
    Ok(())
}

type Segments = Vec<(usize, String, String)>;

fn decode(recognizer: &mut dyn Recognizer, samples: &[i16]) -> Result<Segments> {
    let mut segments = Vec::new();
    let mut at = 0;
    for step in samples.chunks(1_600) {
        at += step.len();
        if let Step::Endpoint(cause) = recognizer.accept(step)? {
            segments.push((at, format!("{cause:?}"), recognizer.finish()?.text));
        }
    }
    segments.push((at, "End".to_owned(), recognizer.finish()?.text));
    Ok(segments)
}

/// CPU time of this thread, which is what a decode costs, whatever else runs.
fn timed<T>(body: impl FnOnce() -> T) -> (T, Duration) {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let started = now();
    let result = body();
    (result, now() - started)
}

fn resident_mb() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4 / 1_024
}
