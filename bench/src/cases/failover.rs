//! What callers notice of faults, and how often they lose or hear twice what they said: never.
//!
//! The **gap** of a fault is counted at the client, from the fault to the first text that reaches beyond the last sample sent
//! before it, less the median of the same time when nothing happens. Callers speak at the pace of speech all the while, and
//! all that was sent before the fault is of one segment: it is not committed, and has to be heard again.

mod caller;
mod round;

use anyhow::{Context, Result, ensure};
use starling_protocol::lease::CutOptions;

use super::Bench;
use crate::audio::{RATE, seconds};
use crate::bare::Question;
use crate::bare::hear::{Arguments, Ear, Heard, Take};
use crate::cluster::{Cluster, Common, Part};
use crate::live::{median, percentile};
use crate::node::Model;
use crate::report::Report;
use crate::score::{Errors, words};
use caller::Script;
use round::{DECODER, Fault, OWNERS, SPARE, Sample};

const CASE: &str = "failover";

const MODEL: &str = "moonshine-tiny-en";

/// Audio that is not committed at the time of the fault, in seconds.
const BUFFERED_S: [usize; 3] = [1, 5, 10];

/// Said after the place: more than the longest of these gaps.
const TAIL_S: usize = 2;

/// Callers of one fault: as many as the surviving node has decode threads, so that each replays as if alone.
const CALLERS: usize = 2;

/// Faults of each kind in a full run for each length: 50 callers.
const ROUNDS: usize = 25;

/// What may stand by for a session.
struct Standby {
    name: &'static str,
    /// Lines of the nodes' `[sessions]`.
    sessions: &'static str,
}

/// Every way is measured in turn, on nodes of its own.
const STANDBYS: [Standby; 2] =
    [Standby { name: "cold", sessions: "" }, Standby { name: "warm", sessions: "standby = \"warm\"\n" }];

/// Segments end where nobody has spoken for long, or at their longest: else ten seconds of speech would rarely be uncommitted.
const CUTS: CutOptions = CutOptions {
    pause_after_ms: 15_000,
    pause_ms: 250,
    max_ms: 15_000,
    no_speech_ms: 5_000,
    silence_ms: None,
};
const CUT_TABLES: &str = "[sessions.cuts]\npause_after = \"15s\"\nmax = \"15s\"\n";

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let heard = hear(bench).await?;
    let cpu: f64 = heard.segments.iter().map(|segment| segment.cpu_s).sum();
    let samples: usize = heard.segments.iter().map(|segment| segment.samples).sum();
    let factor = cpu / seconds(samples);
    report.figure(CASE, "real-time factor of the engine alone, one thread", "", factor, None);
    for standby in &STANDBYS {
        let mut cluster = start(bench, standby).await?;
        let mut all: [Pooled; Fault::ALL.len()] = Default::default();
        for buffered_s in BUFFERED_S {
            let scripts = scripts(&bench.audio.english, &heard, buffered_s * RATE as usize)?;
            let calm = calm(bench, &mut cluster, &scripts).await?;
            let what = format!("{buffered_s} s open, nothing happens, text past the place");
            report.spread(CASE, &format!("{}, {what}", standby.name), "ms", &calm.past_ms, None);
            for (fault, pooled) in Fault::ALL.into_iter().zip(&mut all) {
                let mut tally = Tally::default();
                for number in 0..if bench.quick { 2 } else { ROUNDS } {
                    let chosen = chosen(&scripts, number);
                    let round = round::run(&mut cluster, MODEL, fault, &chosen.1, number).await;
                    tally.add(round.with_context(|| fault.name())?, &chosen.0, &calm);
                }
                let title = format!("{}, {}, {buffered_s} s open", standby.name, fault.name());
                let bound_ms = factor * buffered_s as f64 / (1.0 - factor) * 1_000.0;
                tally.report(&title, fault, bound_ms, report)?;
                pooled.add(tally);
            }
        }
        for (fault, pooled) in Fault::ALL.into_iter().zip(&all) {
            pooled.report(&format!("{}, {}", standby.name, fault.name()), fault, report);
        }
    }
    Ok(())
}

/// The long recording by the engine alone, under the nodes' cuts.
async fn hear(bench: &Bench) -> Result<Heard> {
    let recording = bench.home.join("audio/two_cities.wav");
    let take = Take { recordings: vec![recording], gap: 0, cuts: CUTS, partial_steps: 0 };
    let arguments = Arguments { home: bench.home.clone(), ear: Ear::Moonshine, takes: vec![take] };
    let heard: Vec<Heard> = bench.ask(Question::Hear(arguments)).await?;
    heard.into_iter().next().context("nothing was heard")
}

async fn start(bench: &Bench, standby: &Standby) -> Result<Cluster> {
    // Sessions begin where more slots are idle.
    let model = |slots| Model { name: MODEL, hosts: 1, slots, threads: CALLERS as u16, prewarm: 4 };
    // Copies are kept by the nodes that take callers, so that each fault is one: no node loses a decoder and a copy at once.
    let part = |name, roles, slots| {
        let cluster = if roles == "decoder" { "copy_memory = \"0B\"\n" } else { "" };
        Part { name, roles, cluster, model: model(slots) }
    };
    let parts = [
        part(OWNERS[0], "gateway", 8),
        part(OWNERS[1], "gateway", 8),
        part(DECODER, "decoder", 8),
        part(SPARE, "decoder", 4),
    ];
    bench.cluster(&parts, Common { sessions: standby.sessions, tables: CUT_TABLES, logs: true }).await
}

/// A script for each segment that is long enough: it begins with the segment, so that its cuts are the same.
fn scripts(recording: &[i16], heard: &Heard, place: usize) -> Result<Vec<Script>> {
    let longest = BUFFERED_S.iter().max().copied().unwrap_or(0) + TAIL_S;
    let mut from = 0;
    let mut scripts = Vec::new();
    for segment in &heard.segments {
        if segment.samples >= longest * RATE as usize {
            let audio = recording[from..from + place + TAIL_S * RATE as usize].to_vec();
            scripts.push(Script { audio, place });
        }
        from += segment.samples;
    }
    ensure!(scripts.len() >= CALLERS, "only {} segments are of {longest} s", scripts.len());
    Ok(scripts)
}

/// The scripts of a round, and which of all they are.
fn chosen(scripts: &[Script], number: usize) -> (Vec<usize>, Vec<Script>) {
    let indices: Vec<usize> = (0..CALLERS).map(|caller| (number + caller) % scripts.len()).collect();
    let chosen = indices.iter().map(|index| scripts[*index].clone()).collect();
    (indices, chosen)
}

/// What comes when nothing happens.
struct Calm {
    past_ms: Vec<f64>,
    /// Of each script.
    texts: Vec<String>,
}

async fn calm(bench: &Bench, cluster: &mut Cluster, scripts: &[Script]) -> Result<Calm> {
    let mut calm = Calm { past_ms: Vec::new(), texts: vec![String::new(); scripts.len()] };
    // Each script at least once.
    for number in 0..if bench.quick { scripts.len() } else { scripts.len().max(9) } {
        let (indices, chosen) = chosen(scripts, number);
        let round = round::run(cluster, MODEL, Fault::None, &chosen, number).await?;
        for (caller, sample) in round.samples {
            let sample = sample.context("an undisturbed session")?;
            calm.past_ms.extend(sample.past_ms);
            let (text, known) = (sample.told.text(), &mut calm.texts[indices[caller]]);
            ensure!(known.is_empty() || *known == text, "undisturbed, the text was {known:?}, then {text:?}");
            *known = text;
        }
    }
    ensure!(calm.texts.iter().all(|text| !text.is_empty()), "a script gave no text");
    Ok(calm)
}

/// All rounds of one fault, however much audio was open.
#[derive(Default)]
struct Pooled {
    faults: usize,
    noticed_ms: Vec<f64>,
    gap_ms: Vec<f64>,
    reconnected_ms: Vec<f64>,
}

impl Pooled {
    fn add(&mut self, tally: Tally) {
        self.faults += tally.faults;
        self.noticed_ms.extend(tally.noticed_ms);
        self.gap_ms.extend(tally.gap_ms);
        self.reconnected_ms.extend(tally.reconnected_ms);
    }

    fn report(&self, title: &str, fault: Fault, report: &mut Report) {
        let what = |what: &str| format!("{title}, {what}");
        report.figure(CASE, what("faults"), "", self.faults as f64, None);
        report.spread(
            CASE,
            &what("fault to its being noticed"),
            "ms",
            &self.noticed_ms,
            Some(fault.noticed_goal()),
        );
        report.spread(CASE, &what("gap"), "ms", &self.gap_ms, None);
        if fault == Fault::OwnerKilled {
            let goal = Some("p99 < 1000");
            report.spread(CASE, &what("fault to Reconnected"), "ms", &self.reconnected_ms, goal);
        }
    }
}

/// All rounds of one kind.
#[derive(Default)]
struct Tally {
    faults: usize,
    broken: usize,
    differing: usize,
    restarted: usize,
    noticed_ms: Vec<f64>,
    gap_ms: Vec<f64>,
    placed_ms: Vec<f64>,
    reconnected_ms: Vec<f64>,
    caught_up_ms: Vec<f64>,
    errors: Errors,
}

impl Tally {
    fn add(&mut self, round: round::Round, scripts: &[usize], calm: &Calm) {
        self.faults += 1;
        self.noticed_ms.extend(round.noticed_ms);
        for (caller, sample) in round.samples {
            match sample {
                Ok(sample) => self.sample(&sample, &calm.texts[scripts[caller]], median(&calm.past_ms)),
                Err(error) => {
                    self.broken += 1;
                    eprintln!("a session broke: {error:#}");
                }
            }
        }
    }

    fn sample(&mut self, sample: &Sample, calm: &str, calm_ms: f64) {
        self.gap_ms.extend(sample.past_ms.map(|past| past - calm_ms));
        self.placed_ms.extend(sample.placed_ms);
        self.reconnected_ms.extend(sample.reconnected_ms);
        self.restarted += usize::from(sample.told.reconnected.is_some_and(|(_, restarted)| restarted));
        self.caught_up_ms.extend(sample.caught_up.map(|(took, _)| took.as_secs_f64() * 1_000.0));
        let text = sample.told.text();
        if text != calm {
            self.differing += 1;
            eprintln!("a transcript differs:\n  {calm}\n  {text}");
        }
        self.errors += Errors::between(&words(calm), &words(&text));
    }

    fn report(&self, title: &str, fault: Fault, bound_ms: f64, report: &mut Report) -> Result<()> {
        ensure!(!self.gap_ms.is_empty(), "{title}: no session came to its end");
        let what = |what: &str| format!("{title}, {what}");
        report.figure(CASE, what("faults"), "", self.faults as f64, None);
        report.spread(CASE, &what("gap"), "ms", &self.gap_ms, None);
        if !self.placed_ms.is_empty() {
            report.spread(CASE, &what("fault to the next decoder"), "ms", &self.placed_ms, None);
        }
        if !self.caught_up_ms.is_empty() {
            for (part, name) in [(0.5, "p50"), (0.99, "p99")] {
                let pair = (percentile(&self.caught_up_ms, part), bound_ms);
                let what = what(&format!("catching up {name}, against RTF x open / (1 - RTF)"));
                report.ratio(CASE, what, "ms", pair, Some("ratio <= 1.3"));
            }
        }
        if fault == Fault::OwnerKilled {
            let goal = Some("p99 < 1000");
            report.spread(CASE, &what("fault to Reconnected"), "ms", &self.reconnected_ms, goal);
            report.figure(CASE, what("sessions begun anew"), "", self.restarted as f64, Some("0"));
        }
        for (name, count) in [
            ("words lost", self.errors.lost),
            ("words twice", self.errors.added),
            ("words changed", self.errors.changed),
            ("transcripts that differ in anything", self.differing),
            ("sessions broken", self.broken),
        ] {
            report.figure(CASE, what(name), "", count as f64, Some("0"));
        }
        Ok(())
    }
}
