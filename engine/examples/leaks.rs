//! Sessions one after the other on one engine, for a checker of leaks: `leaks vosk|moonshine SESSIONS SECONDS WAV`. What a session costs
//! for good is what more of them leave behind at the end than fewer.
//!
//! The program that decodes has an allocator of its own; this has the system's, which such checkers look into.

mod shared;

use anyhow::{Context, Result, bail, ensure};
use starling_engine::{Engine, Step, load};
use starling_protocol::lease::DecodeOptions;

const STEP: usize = 1_600;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [engine, sessions, seconds, file] = arguments.as_slice() else {
        bail!("usage: leaks vosk|moonshine SESSIONS SECONDS WAV");
    };
    let sessions: usize = sessions.parse().context("SESSIONS is a number")?;
    let seconds: f64 = seconds.parse().context("SECONDS is a number")?;
    let reader = hound::WavReader::open(file).with_context(|| file.clone())?;
    let samples = reader.into_samples().take((seconds * 16_000.0) as usize);
    let samples: Vec<i16> = samples.collect::<Result<_, _>>()?;
    let engine = load::load(&shared::spec(engine)?)?;
    let mut heard = None;
    for number in 1..=sessions {
        let text = session(engine.as_ref(), &samples)?;
        println!("{number}: {text}");
        ensure!(!text.is_empty(), "nothing was heard: the decoder was not at work");
        ensure!(heard.get_or_insert(text.clone()) == &text, "another text than before");
    }
    Ok(())
}

/// All that is done to a recognizer: it is opened, fed, asked for partials, finished, fed again, reset, and closed in the middle.
fn session(engine: &dyn Engine, samples: &[i16]) -> Result<String> {
    let mut recognizer = engine.open(&DecodeOptions::default())?;
    let mut texts = Vec::new();
    for (step, number) in samples.chunks(STEP).zip(1..) {
        if let Step::Endpoint(_) = recognizer.accept(step)? {
            texts.push(recognizer.finish()?.text);
        } else if number % 10 == 0 {
            recognizer.partial()?;
        }
    }
    texts.push(recognizer.finish()?.text);
    for step in samples.chunks(STEP).take(3) {
        recognizer.accept(step)?;
    }
    recognizer.reset()?;
    for step in samples.chunks(STEP).take(3) {
        recognizer.accept(step)?;
    }
    texts.retain(|text| !text.is_empty());
    Ok(texts.join(" "))
}
