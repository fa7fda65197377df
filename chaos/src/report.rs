//! What a run found: a row of the table, a file of JSON, and the timeline beside it.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::callers::Told;
use crate::faults::Mark;
use crate::losses::Losses;
use crate::noticed::Noticed;
use crate::scenario::{Expect, Scenario};
use crate::timeline;
use crate::tool::Loaded;
use crate::verdict::Judged;

/// Failures of single callers that are told one by one; the rest are counted.
const MOST_TOLD: usize = 8;

/// What became of one caller.
pub(crate) struct Caller {
    pub(crate) told: Told,
    pub(crate) judged: Judged,
}

impl Caller {
    /// The longest time without new text, in seconds, and when it began: between two texts, so that what lies before the first is not
    /// in it.
    pub(crate) fn longest_gap(&self) -> (f64, f64) {
        let pairs = self.told.texts_s.windows(2).map(|pair| (pair[1] - pair[0], pair[0]));
        pairs.fold((0.0, 0.0), |most, gap| if gap.0 > most.0 { gap } else { most })
    }
}

/// What happened, apart from what callers were told.
pub(crate) struct Course {
    pub(crate) model: &'static str,
    pub(crate) took_s: f64,
    pub(crate) faults: Vec<Mark>,
    pub(crate) decoders_lost: Option<Losses>,
    /// Not known of nodes whose logs are elsewhere.
    pub(crate) noticed: Option<Noticed>,
    /// If the scenario drops any.
    pub(crate) packets_dropped: Option<u64>,
    pub(crate) delays_by: Option<&'static str>,
    /// Of `starling load`, if the load was its own.
    pub(crate) loaded: Option<Loaded>,
}

/// All of it.
#[derive(Serialize)]
pub(crate) struct Report {
    scenario: String,
    about: String,
    invariants: Vec<String>,
    model: String,
    /// Where nodes and callers reached each other.
    network: &'static str,
    /// What packets were made late by, if any were.
    delays_by: Option<&'static str>,
    took_s: f64,
    callers: usize,
    callers_with_all_words: usize,
    words_lost: u64,
    words_twice: u64,
    reconnects: u64,
    begun_anew: u64,
    /// Of these, sessions that were said to be in two copies.
    begun_anew_though_durable: u64,
    /// By cause. Not known of nodes whose logs are elsewhere.
    decoders_lost: Option<Losses>,
    /// The same.
    noticed: Option<Noticed>,
    /// On the network of a scenario that drops any.
    packets_dropped: Option<u64>,
    longest_gap_s: f64,
    /// Half of the callers had none longer than this.
    median_gap_s: f64,
    /// The longest time from the loss of a connection to its replacement.
    longest_reconnect_s: f64,
    faults: Vec<Mark>,
    /// What `starling load` told, if the load was its own.
    load: Option<serde_json::Value>,
    pub(crate) failures: Vec<String>,
    #[serde(skip)]
    lanes: Vec<Caller>,
}

impl Report {
    pub(crate) fn new(
        scenario: &Scenario,
        course: Course,
        callers: Vec<Caller>,
        mut failures: Vec<String>,
    ) -> Self {
        let Course { model, took_s, faults, decoders_lost, noticed, packets_dropped, delays_by, loaded } =
            course;
        let wrong: Vec<(usize, &Caller)> =
            callers.iter().enumerate().filter(|(_, caller)| !caller.judged.faults.is_empty()).collect();
        let say = |(number, caller): &(usize, &Caller)| {
            format!("caller {number}: {}", caller.judged.faults.join("; "))
        };
        failures.extend(wrong.iter().take(MOST_TOLD).map(say));
        if wrong.len() > MOST_TOLD {
            failures.push(format!("and {} callers more", wrong.len() - MOST_TOLD));
        }
        let reconnects = callers.iter().flat_map(|caller| &caller.told.reconnects);
        let mut gaps: Vec<f64> = callers.iter().map(|caller| caller.longest_gap().0).collect();
        gaps.sort_by(f64::total_cmp);
        let mut report = Self {
            scenario: scenario.name.clone(),
            about: scenario.about.clone(),
            invariants: scenario.invariants.clone(),
            model: model.to_owned(),
            network: scenario.network.name(),
            delays_by,
            took_s,
            callers: callers.len(),
            callers_with_all_words: callers.len() - wrong.len(),
            words_lost: callers.iter().map(|caller| caller.judged.lost).sum(),
            words_twice: callers.iter().map(|caller| caller.judged.twice).sum(),
            reconnects: reconnects.clone().count() as u64,
            begun_anew: reconnects.clone().filter(|back| back.anew).count() as u64,
            begun_anew_though_durable: reconnects.clone().filter(|back| back.anew && back.was_durable).count()
                as u64,
            decoders_lost,
            noticed,
            packets_dropped,
            longest_gap_s: gaps.last().copied().unwrap_or(0.0),
            median_gap_s: gaps.get(gaps.len() / 2).copied().unwrap_or(0.0),
            longest_reconnect_s: reconnects.map(|back| back.took_s).fold(0.0, f64::max),
            faults,
            load: None,
            failures,
            lanes: callers,
        };
        if let Some(loaded) = loaded {
            report.callers = loaded.sessions;
            report.callers_with_all_words = loaded.whole;
            (report.words_lost, report.words_twice) = (loaded.lost, loaded.twice);
            (report.reconnects, report.begun_anew) = (loaded.reconnects, loaded.begun_anew);
            report.failures.extend(loaded.failure);
            report.load = Some(loaded.report);
        }
        report.expect(&scenario.expect);
        report
    }

    fn expect(&mut self, expect: &Expect) {
        let lost = self.decoders_lost.clone();
        let mut wrong = |is_wrong: bool, what: String| {
            if is_wrong {
                self.failures.push(what);
            }
        };
        let reconnects = self.reconnects;
        let least = expect.reconnects_at_least;
        wrong(
            reconnects < least,
            format!("{reconnects} connections were replaced; at least {least} had to be"),
        );
        if let Some(most) = expect.reconnects_at_most {
            wrong(
                reconnects > most,
                format!("{reconnects} connections were replaced; at most {most} may be"),
            );
        }
        let (anew, least) = (self.begun_anew, expect.anew_at_least);
        wrong(anew < least, format!("{anew} sessions were begun anew; at least {least} had to be"));
        if let Some(most) = expect.anew_at_most {
            let durable = match self.begun_anew_though_durable {
                0 => String::new(),
                durable => format!(", {durable} of them though in two copies"),
            };
            wrong(anew > most, format!("{anew} sessions were begun anew{durable}; at most {most} may be"));
        }
        if let Some(lost) = lost {
            let (count, causes) = (lost.total(), lost.in_words());
            let least = expect.decoders_lost_at_least;
            wrong(count < least, format!("{count} decoders were lost; at least {least} had to be"));
            if let Some(most) = expect.decoders_lost_at_most {
                wrong(count > most, format!("{count} decoders were lost ({causes}); at most {most} may be"));
            }
        }
        wrong(
            self.packets_dropped == Some(0),
            "the network dropped no packet: what was to be cut or lossy was not".to_owned(),
        );
        if let Some(Noticed { copies_moved, downs }) = self.noticed {
            let least = expect.copies_moved_at_least;
            wrong(
                copies_moved < least,
                format!("{copies_moved} sessions had their copy made elsewhere; at least {least} had to"),
            );
            if let Some(most) = expect.downs_at_most {
                wrong(downs > most, format!("nodes took others for dead {downs} times; {most} is the most"));
            }
        }
        if let Some(most) = expect.longest_reconnect_s {
            let took = self.longest_reconnect_s;
            wrong(took > most, format!("a connection took {took:.2} s to be replaced; {most} s is the most"));
        }
        if let Some(most) = expect.longest_gap_s {
            let gap = self.longest_gap_s;
            wrong(gap > most, format!("a caller had no new text for {gap:.2} s; {most} s is the most"));
        }
    }

    pub(crate) fn row(&self) -> String {
        let lost =
            self.decoders_lost.as_ref().map_or_else(|| "-".to_owned(), |lost| lost.total().to_string());
        format!(
            "{:<22} {:>7} {:>7} {:>6} {:>6} {:>9} {:>9} {:>8} {:>8.2} {:>8.2} {:>7.1}  {}",
            self.scenario,
            self.callers,
            self.callers_with_all_words,
            self.words_lost,
            self.words_twice,
            self.reconnects,
            self.begun_anew,
            lost,
            self.median_gap_s,
            self.longest_gap_s,
            self.took_s,
            if self.failures.is_empty() { "well" } else { "FAILED" }
        )
    }

    /// Writes `NAME.json` and `NAME.svg`.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let write = |extension: &str, text: String| {
            let path = folder.join(&self.scenario).with_extension(extension);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("json", serde_json::to_string_pretty(self)? + "\n")?;
        write("svg", timeline::draw(&self.scenario, &self.about, &self.lanes, &self.faults, self.took_s))
    }
}

/// The table's head.
pub(crate) fn head() -> String {
    format!(
        "{:<22} {:>7} {:>7} {:>6} {:>6} {:>9} {:>9} {:>8} {:>8} {:>8} {:>7}",
        "scenario",
        "callers",
        "whole",
        "lost",
        "twice",
        "reconnect",
        "anew",
        "decoders",
        "p50 gap",
        "gap s",
        "took s"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callers::Reconnect;

    const SCENARIO: &str = "about = \"a\"\ninvariants = [\"I2\"]\n[[node]]\nname = \"a\"\n[load]\ncallers = 1\nseconds = 1\n[expect]\n";

    /// One caller, whose session was begun anew after 3 s; texts are 2 s apart.
    fn failures(expect: &str) -> Vec<String> {
        let scenario: Scenario = toml::from_str(&format!("{SCENARIO}{expect}")).expect("right");
        let course = Course {
            model: "scripted",
            took_s: 5.0,
            faults: Vec::new(),
            decoders_lost: Some(Losses::default()),
            noticed: Some(Noticed { copies_moved: 1, downs: 1 }),
            packets_dropped: None,
            delays_by: None,
            loaded: None,
        };
        let told = Told {
            texts_s: vec![1.0, 3.0],
            reconnects: vec![Reconnect { at_s: 4.0, took_s: 3.0, anew: true, was_durable: true }],
            ..Told::default()
        };
        let callers = vec![Caller { told, judged: Judged::default() }];
        Report::new(&scenario, course, callers, Vec::new()).failures
    }

    #[test]
    fn each_expectation_is_met_or_told_of() {
        for (met, missed, why) in [
            ("reconnects_at_least = 1", "reconnects_at_least = 2", "at least 2"),
            ("reconnects_at_most = 1", "reconnects_at_most = 0", "at most 0"),
            ("anew_at_least = 1", "anew_at_least = 2", "begun anew; at least 2"),
            ("anew_at_most = 1", "anew_at_most = 0", "1 of them though in two copies"),
            ("decoders_lost_at_most = 0", "decoders_lost_at_least = 1", "0 decoders"),
            ("copies_moved_at_least = 1", "copies_moved_at_least = 2", "made elsewhere"),
            ("downs_at_most = 1", "downs_at_most = 0", "for dead 1 times"),
            ("longest_reconnect_s = 3", "longest_reconnect_s = 2.9", "to be replaced"),
            ("longest_gap_s = 2", "longest_gap_s = 1.9", "no new text"),
        ] {
            assert_eq!(failures(met), Vec::<String>::new(), "{met}");
            let told = failures(missed);
            assert!(told.len() == 1 && told[0].contains(why), "{missed}: {told:?}");
        }
    }
}
