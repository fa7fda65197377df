//! What cuts cost in words and save in catching up: a segment that is longer gives an engine more to go by, and more to hear
//! again when its decoder is lost.
//!
//! Real speech is short of long recordings, so that each is heard by itself, and all of them joined to one stream, once from
//! each of them on: the cuts then fall elsewhere each time.

use anyhow::{Context, Result, ensure};
use starling_protocol::CutCause;
use starling_protocol::lease::CutOptions;

use super::Bench;
use crate::audio::{RATE, seconds};
use crate::bare::Question;
use crate::bare::hear::{Arguments, Ear, Heard, Take};
use crate::report::Report;
use crate::score::{Errors, letters, words};
use crate::speech::{Recording, list};

const CASE: &str = "accuracy";

/// Where segments end.
struct Setting {
    name: &'static str,
    cuts: CutOptions,
}

const fn setting(name: &'static str, pause: Option<(u32, u32)>, max_ms: u32) -> Setting {
    let (pause_after_ms, pause_ms) = match pause {
        Some(pause) => pause,
        // Never before the hard cut.
        None => (max_ms, 250),
    };
    Setting {
        name,
        cuts: CutOptions { pause_after_ms, pause_ms, max_ms, no_speech_ms: 5_000, silence_ms: None },
    }
}

/// The engine takes no segment of more than 30 s, so that this is its "no hard cut".
const SETTINGS: [Setting; 10] = [
    setting("pause of 250 ms after 6 s, 15 s at most", Some((6_000, 250)), 15_000),
    setting("no pause cut, 15 s at most", None, 15_000),
    setting("no pause cut, 30 s at most", None, 30_000),
    setting("pause of 250 ms after 4 s, 15 s at most", Some((4_000, 250)), 15_000),
    setting("pause of 250 ms after 8 s, 15 s at most", Some((8_000, 250)), 15_000),
    setting("pause of 250 ms after 10 s, 15 s at most", Some((10_000, 250)), 15_000),
    setting("pause of 400 ms after 6 s, 15 s at most", Some((6_000, 400)), 15_000),
    setting("pause of 250 ms after 6 s, 20 s at most", Some((6_000, 250)), 20_000),
    setting("pause of 250 ms after 8 s, 20 s at most", Some((8_000, 250)), 20_000),
    setting("pause of 250 ms after 10 s, 20 s at most", Some((10_000, 250)), 20_000),
];

/// A partial for each second of audio: a fifth of what a session on an idle machine gets, which would take as long as speech.
const PARTIAL_STEPS: usize = 10;

/// Silence after each Korean sentence, as in the long recording: it ends an utterance.
const KOREAN_GAP: usize = 11_200;

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut default = None;
    for setting in &SETTINGS {
        let percent = cuts(bench, setting, report).await?;
        let pair = (percent, *default.get_or_insert(percent));
        report.ratio(
            CASE,
            format!("{}: word errors, all, against the default", setting.name),
            "%",
            pair,
            None,
        );
    }
    endings(bench, report).await
}

/// All recordings, beginning with this one.
fn from(recordings: &[Recording], first: usize) -> Vec<&Recording> {
    recordings.iter().cycle().skip(first).take(recordings.len()).collect()
}

fn take(recordings: &[&Recording], gap: usize, cuts: CutOptions, partial_steps: usize) -> Take {
    let recordings = recordings.iter().map(|recording| recording.path.clone()).collect();
    Take { recordings, gap, cuts, partial_steps }
}

async fn ask(bench: &Bench, ear: Ear, takes: Vec<Take>) -> Result<Vec<Heard>> {
    let asked = takes.len();
    let arguments = Arguments { home: bench.home.clone(), ear, takes };
    let heard: Vec<Heard> = bench.ask(Question::Hear(arguments)).await?;
    ensure!(heard.len() == asked, "{} of {asked} takes were heard", heard.len());
    Ok(heard)
}

fn errors(streams: &[Vec<&Recording>], heard: &[Heard], of: fn(&str) -> Vec<String>) -> Errors {
    let mut errors = Errors::default();
    for (stream, heard) in streams.iter().zip(heard) {
        let said: Vec<&str> = stream.iter().map(|recording| &*recording.transcript).collect();
        let texts: Vec<&str> = heard.segments.iter().map(|segment| &*segment.text).collect();
        errors += Errors::between(&of(&said.join(" ")), &of(&texts.join(" ")));
    }
    errors
}

/// One setting's figures; returns the word error rate over all that was heard, in percent.
async fn cuts(bench: &Bench, setting: &Setting, report: &mut Report) -> Result<f64> {
    let recordings = &bench.speech.0;
    let alone: Vec<Vec<&Recording>> = recordings.iter().map(|recording| vec![recording]).collect();
    let streams = if bench.quick { 1 } else { recordings.len() };
    let joined: Vec<Vec<&Recording>> = (0..streams).map(|first| from(recordings, first)).collect();
    let all = alone.iter().chain(&joined);
    let mut takes: Vec<Take> = all.map(|stream| take(stream, 0, setting.cuts, 0)).collect();
    // Last, what partials cost on top, on the recording that says most.
    let (most_said, longest) = longest(recordings)?;
    takes.push(take(&[longest], 0, setting.cuts, PARTIAL_STEPS));
    let heard = ask(bench, Ear::Moonshine, takes).await?;
    let (heard_alone, rest) = heard.split_at(alone.len());
    let (heard_joined, shown) = rest.split_at(joined.len());
    ensure!(texts(&shown[0]) == texts(&heard_alone[most_said]), "partials have changed a final");

    let mut figure = |what: &str, unit, value| {
        report.figure(CASE, format!("{}: {what}", setting.name), unit, value, None);
    };
    let (by_itself, in_stream) = (errors(&alone, heard_alone, words), errors(&joined, heard_joined, words));
    figure("word errors, each recording alone", "%", by_itself.percent());
    figure("word errors, in one stream", "%", in_stream.percent());
    let segments: Vec<_> = heard_joined.iter().flat_map(|heard| &heard.segments).collect();
    let lengths: Vec<f64> = segments.iter().map(|segment| seconds(segment.samples)).collect();
    let audio: f64 = lengths.iter().sum();
    let longest = lengths.iter().copied().fold(0.0, f64::max);
    figure("longest segment", "s", longest);
    // Whoever is lost at any moment is, on average, half way through a segment that is the likelier the longer it is.
    let open = lengths.iter().map(|length| length * length).sum::<f64>() / audio / 2.0;
    figure("open audio at a moment, on average", "s", open);
    let hard = segments.iter().filter(|segment| segment.cause == CutCause::Length).count();
    figure("hard cuts in an hour", "", hard as f64 / audio * 3_600.0);
    let most = segments.iter().map(|segment| segment.cpu_s).fold(0.0, f64::max);
    figure("replay of the costliest segment", "ms", most * 1_000.0);
    let cpu: f64 = segments.iter().map(|segment| segment.cpu_s).sum();
    figure("CPU of a second of audio, finals alone", "ms", cpu / audio * 1_000.0);
    let length: usize = shown[0].segments.iter().map(|segment| segment.samples).sum();
    let cpu: f64 = shown[0].segments.iter().map(|segment| segment.cpu_s).sum();
    figure("CPU of a second of audio, a partial every second", "ms", cpu / seconds(length) * 1_000.0);
    let mut both = by_itself;
    both += in_stream;
    Ok(both.percent())
}

fn longest(recordings: &[Recording]) -> Result<(usize, &Recording)> {
    let longest = recordings.iter().enumerate().max_by_key(|(_, recording)| recording.transcript.len());
    longest.context("there is no recording")
}

fn texts(heard: &Heard) -> Vec<&str> {
    heard.segments.iter().map(|segment| &*segment.text).collect()
}

/// `FinalResult` makes an utterance a function of its audio alone; `Result` lets the engine go on with what it has learnt of
/// the speaker.
async fn endings(bench: &Bench, report: &mut Report) -> Result<()> {
    let all = list(&bench.home.join("audio/ko"), 1)?;
    let (clips, long): (Vec<Recording>, Vec<Recording>) =
        all.into_iter().partition(|recording| !recording.path.ends_with("ko-long.wav"));
    let streams = if bench.quick { 1 } else { clips.len() };
    let clips: Vec<Vec<&Recording>> = (0..streams).map(|first| from(&clips, first)).collect();
    let long = vec![long.iter().collect::<Vec<_>>()];
    let cuts = CutOptions::default();
    for (what, streams, gap) in [
        ("twelve Korean sentences, from each of them on", &clips, KOREAN_GAP),
        ("the long Korean recording", &long, 0),
    ] {
        let takes: Vec<Take> = streams.iter().map(|stream| take(stream, gap, cuts, 0)).collect();
        let ours = ask(bench, Ear::VoskFinalResult, takes.clone()).await?;
        let other = ask(bench, Ear::VoskResult, takes).await?;
        for (unit, of) in [("letters", letters as fn(&str) -> Vec<String>), ("words", words)] {
            let pair = (errors(streams, &ours, of).percent(), errors(streams, &other, of).percent());
            let what = format!("{what}, FinalResult against Result, {unit} wrong");
            report.ratio(CASE, what, "%", pair, None);
        }
        let length = |heard: &[Heard]| -> f64 {
            let samples: usize =
                heard.iter().flat_map(|heard| &heard.segments).map(|segment| segment.samples).sum();
            samples as f64 / f64::from(RATE)
        };
        let cpu = |heard: &[Heard]| -> f64 {
            heard.iter().flat_map(|heard| &heard.segments).map(|segment| segment.cpu_s).sum::<f64>()
                / length(heard)
        };
        let what = format!("{what}, FinalResult against Result, CPU of a second of audio");
        report.ratio(CASE, what, "ms", (cpu(&ours) * 1_000.0, cpu(&other) * 1_000.0), None);
    }
    Ok(())
}
