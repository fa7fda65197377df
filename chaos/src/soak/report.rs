//! What a soak found: two tables, a file of JSON and a picture.
//!
//! Owns: the limits, and the judgement of what processes take. Must never: judge a life that was too short to tell.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::sample::{Life, Lives, Values};
use super::slope::{median, slope};
use super::tally::Counts;
use super::trouble::Trouble;
use crate::losses::Losses;

/// So many samples, after the warm-up, tell how a process grows.
const LEAST_SAMPLES: usize = 12;

/// What a process may certainly grow by: once, and for each hour. What is certain is the lower end of the slope's interval of 99 %, times the
/// time that was looked at. Memory has room for an allocator's fragments; counts have it for a load that is not the same at all times.
const LIMITS: [(&str, f64, f64); 9] = [
    ("own_mib", 8.0, 2.0),
    ("rss_mib", 12.0, 2.0),
    ("fds", 8.0, 1.0),
    ("threads", 4.0, 1.0),
    ("hosts", 0.5, 0.0),
    ("tasks", 24.0, 4.0),
    ("sessions", 6.0, 1.0),
    ("copies", 6.0, 1.0),
    ("copies_kib", 1_024.0, 128.0),
];

/// At rest, beyond what there was before the first caller: connections between nodes are dialled by one side or the other, and a runtime
/// keeps idle threads for seconds.
pub(crate) const AT_REST: [(&str, f64); 8] = [
    ("sessions", 0.0),
    ("copies", 0.0),
    ("copies_kib", 0.0),
    ("hosts", 0.0),
    ("zombies", 0.0),
    ("tasks", 8.0),
    ("fds", 8.0),
    ("threads", 6.0),
];

/// What is more than it was.
pub(crate) fn beyond(name: &str, base: &Values, now: &Values) -> Vec<String> {
    let over = |(value, margin): &(&'static str, f64)| {
        let (before, after) = (*base.get(value)?, now.get(value).copied());
        let Some(after) = after else { return Some(format!("{name}: {value} can't be told")) };
        (after > before + margin)
            .then(|| format!("{name}: {value} {after} at rest, {before} before (and {margin})"))
    };
    AT_REST.iter().filter_map(over).collect()
}

/// How one value of one process went.
#[derive(Debug, Serialize)]
pub(crate) struct Growth {
    pub(crate) of: String,
    pub(crate) pid: u32,
    pub(crate) value: &'static str,
    pub(crate) samples: usize,
    pub(crate) minutes: f64,
    pub(crate) first: f64,
    pub(crate) median: f64,
    pub(crate) last: f64,
    pub(crate) most: f64,
    pub(crate) per_hour: f64,
    /// Over the time that was looked at: as the slope has it, and what is certain of it.
    pub(crate) growth: f64,
    pub(crate) certain: f64,
    pub(crate) limit: f64,
}

impl Growth {
    pub(crate) fn is_leak(&self) -> bool {
        self.certain > self.limit
    }
}

pub(crate) fn growths(lives: &Lives, warm_up_s: f64) -> Vec<Growth> {
    lives
        .0
        .iter()
        .flat_map(|life| LIMITS.iter().filter_map(move |limit| growth(life, *limit, warm_up_s)))
        .collect()
}

fn growth(life: &Life, (value, once, per_hour): (&'static str, f64, f64), warm_up_s: f64) -> Option<Growth> {
    let born = life.samples.first()?.0;
    let settled = life.samples.iter().filter(|(at, _)| at - born >= warm_up_s);
    let points: Vec<(f64, f64)> =
        settled.filter_map(|(at, values)| Some((*at, *values.get(value)?))).collect();
    if points.len() < LEAST_SAMPLES {
        return None;
    }
    let (first, last) = (points.first()?, points.last()?);
    let window_s = last.0 - first.0;
    let slope = slope(&points)?;
    Some(Growth {
        of: life.of.clone(),
        pid: life.pid,
        value,
        samples: points.len(),
        minutes: window_s / 60.0,
        first: first.1,
        median: median(points.iter().map(|point| point.1)),
        last: last.1,
        most: points.iter().map(|point| point.1).fold(0.0, f64::max),
        per_hour: slope.median * 3_600.0,
        growth: slope.median * window_s,
        certain: slope.least * window_s,
        limit: once + per_hour * window_s / 3_600.0,
    })
}

/// All of it.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) model: String,
    pub(crate) took_s: f64,
    pub(crate) warm_up_s: f64,
    pub(crate) counts: Counts,
    pub(crate) decoders_lost: Option<Losses>,
    pub(crate) troubles: Vec<Trouble>,
    pub(crate) growths: Vec<Growth>,
    pub(crate) before: Vec<(String, Values)>,
    pub(crate) at_rest: Vec<(String, Values)>,
    pub(crate) failures: Vec<String>,
    pub(crate) lives: Vec<Life>,
}

impl Report {
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = writeln!(
            text,
            "\n{:<14} {:>7} {:>7} {:>7} {:>6} {:>6} {:>9} {:>6} {:>8}",
            "clients", "calls", "whole", "cut off", "lost", "twice", "reconnect", "anew", "words"
        );
        for (name, kind) in &self.counts.kinds {
            let _ = writeln!(
                text,
                "{name:<14} {:>7} {:>7} {:>7} {:>7} {:>6} {:>6} {:>9} {:>6} {:>8}",
                kind.calls,
                kind.whole,
                kind.cut_off,
                kind.rude,
                kind.lost,
                kind.twice,
                kind.reconnects,
                kind.begun_anew,
                kind.words
            );
        }
        let _ = writeln!(
            text,
            "\n{:<8} {:>8} {:<10} {:>7} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8} {:>7}",
            "process",
            "pid",
            "value",
            "minutes",
            "first",
            "median",
            "last",
            "most",
            "per hour",
            "growth",
            "certain",
            "limit"
        );
        for growth in &self.growths {
            let _ = writeln!(
                text,
                "{:<8} {:>8} {:<10} {:>7.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>9.2} {:>8.2} {:>8.2} {:>7.2}{}",
                growth.of,
                growth.pid,
                growth.value,
                growth.minutes,
                growth.first,
                growth.median,
                growth.last,
                growth.most,
                growth.per_hour,
                growth.growth,
                growth.certain,
                growth.limit,
                if growth.is_leak() { "  LEAK" } else { "" }
            );
        }
        let _ = writeln!(text, "\n{:<8} {:<10} {:>10} {:>10}", "node", "value", "before", "at rest");
        for ((name, before), (_, after)) in self.before.iter().zip(&self.at_rest) {
            for (value, before) in before {
                let after = after.get(value).map_or_else(|| "-".to_owned(), |after| format!("{after:.1}"));
                let _ = writeln!(text, "{name:<8} {value:<10} {before:>10.1} {after:>10}");
            }
        }
        let _ = writeln!(
            text,
            "\n{:.1} minutes, seed {}, {} faults, {} decoders lost, the longest reconnect {:.1} s",
            self.took_s / 60.0,
            self.seed,
            self.troubles.len(),
            self.decoders_lost.as_ref().map_or_else(|| "?".to_owned(), |lost| lost.total().to_string()),
            self.counts.longest_reconnect_s
        );
        for failure in &self.failures {
            let _ = writeln!(text, "    {failure}");
        }
        text.push_str(if self.failures.is_empty() {
            "well: no word lost, none twice, nothing left behind\n"
        } else {
            "FAILED\n"
        });
        text
    }

    /// Writes `soak.json` and `soak.svg`.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for (name, text) in [("soak.json", serde_json::to_string(self)? + "\n"), ("soak.svg", self.draw())] {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// A strip for each value, a line for each process, and red ticks where something was done.
    fn draw(&self) -> String {
        const STRIPS: [(&str, &str); 6] = [
            ("own_mib", "memory of its own, MiB"),
            ("rss_mib", "resident memory, MiB"),
            ("fds", "descriptors"),
            ("tasks", "tasks"),
            ("sessions", "sessions"),
            ("copies", "copies of others' sessions"),
        ];
        const COLOURS: [&str; 3] = ["#0969da", "#8250df", "#bf8700"];
        const WIDTH: f64 = 1_000.0;
        const HEIGHT: f64 = 110.0;
        let end_s = self.took_s.max(1.0);
        let x = |seconds: f64| 60.0 + seconds / end_s * (WIDTH - 80.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\">\n<title>Soak</title>\n\
             <style>text{{font:12px ui-sans-serif,system-ui,sans-serif;fill:#59636e}}polyline{{fill:none;stroke-width:1}}\
             path{{stroke:#cf222e;stroke-width:.5;opacity:.5}}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
            HEIGHT * STRIPS.len() as f64 + 30.0
        );
        for (row, (value, title)) in STRIPS.iter().enumerate() {
            let bottom = HEIGHT * (row as f64 + 1.0);
            let of = |life: &Life| -> Vec<(f64, f64)> {
                life.samples.iter().filter_map(|(at, values)| Some((*at, *values.get(value)?))).collect()
            };
            let most = self.lives.iter().flat_map(of).map(|point| point.1).fold(1.0, f64::max);
            let _ = writeln!(
                svg,
                "<text x=\"4\" y=\"{:.0}\">{title}, up to {most:.0}</text>",
                bottom - HEIGHT + 24.0
            );
            for trouble in &self.troubles {
                let _ = writeln!(svg, "<path d=\"M{:.1} {bottom:.0}v-6\"/>", x(trouble.from_s));
            }
            for life in &self.lives {
                let points: Vec<String> = of(life)
                    .iter()
                    .map(|(at, value)| {
                        format!("{:.1},{:.1}", x(*at), bottom - 6.0 - value / most * (HEIGHT - 40.0))
                    })
                    .collect();
                let node = life.of.bytes().next().map_or(0, usize::from) % COLOURS.len();
                let dashes =
                    if life.of.contains('/') { " stroke-dasharray=\"3 2\" opacity=\".6\"" } else { "" };
                let _ = writeln!(
                    svg,
                    "<polyline stroke=\"{}\"{dashes} points=\"{}\"/>",
                    COLOURS[node],
                    points.join(" ")
                );
            }
        }
        let _ = writeln!(
            svg,
            "<text x=\"4\" y=\"{:.0}\">0 to {:.0} minutes. A colour is a node; dashed lines are its decoder hosts, red ticks what was done to them.</text>\n</svg>",
            HEIGHT * STRIPS.len() as f64 + 22.0,
            end_s / 60.0
        );
        svg
    }
}
