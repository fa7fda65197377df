//! The cluster as a screen of a terminal, drawn anew each second.
//!
//! Owns: what is shown, and in which colours. Must never: be wider or higher than the terminal, or ask anybody.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

use super::WIDEST;
use crate::cluster::{ClusterReport, NodeReport, SessionEntry};
use crate::terminal::one_line;

/// Cells of a bar that shows how many decoders are busy; and on a terminal of the usual 80 columns.
const BAR: usize = 16;
const SHORT_BAR: usize = 8;

/// Terminals that are narrower get the short bar.
const WIDE: usize = 100;

/// What a line is made of: text, and how it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span(Look, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
    Accent,
}

impl Look {
    /// Select Graphic Rendition (ECMA-48, 8.3.117), in the sixteen colours that each terminal has its own taste of.
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Accent => "36",
        }
    }
}

type Line = Vec<Span>;

/// A screen's size and whether it has colours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
    pub(crate) colours: bool,
}

/// The screen, each line with its end. What has no room is counted in the last line.
pub(crate) fn screen(report: &ClusterReport, time: &str, terminal: Terminal) -> String {
    let mut lines = vec![head(report, time, terminal.columns), Vec::new()];
    lines.extend(nodes(report, if terminal.columns < WIDE { SHORT_BAR } else { BAR }));
    lines.push(Vec::new());
    if report.sessions.is_empty() {
        lines.push(vec![dim("  Nobody speaks just now.")]);
    } else {
        lines.extend(sessions(&report.sessions));
    }
    // The last row stays free: a newline there would scroll.
    let room = terminal.rows.saturating_sub(1).max(1);
    if lines.len() > room {
        let more = lines.len() - (room - 1);
        lines.truncate(room - 1);
        lines.push(vec![dim(format!("  and {more} more lines; `starling status` prints them all"))]);
    }
    let mut text = String::new();
    for line in lines {
        write_line(&mut text, &line, terminal);
    }
    text
}

fn write_line(text: &mut String, line: &Line, terminal: Terminal) {
    let mut room = terminal.columns;
    for Span(look, words) in line {
        let shown = beginning(&one_line(words), &mut room);
        // Writing into a String does not fail.
        let _ = match look.code() {
            code if terminal.colours && !code.is_empty() => write!(text, "\x1b[{code}m{shown}\x1b[0m"),
            _ => write!(text, "{shown}"),
        };
    }
    text.push('\n');
}

/// As much of a text as there is room for. A Korean letter takes two columns.
fn beginning(text: &str, room: &mut usize) -> String {
    let fits = |letter: &char| {
        let left = room.checked_sub(letter.width().unwrap_or_default());
        left.inspect(|left| *room = *left).is_some()
    };
    text.chars().take_while(fits).collect()
}

fn head(report: &ClusterReport, time: &str, columns: usize) -> Line {
    let alive = report.nodes.iter().filter(|node| node.state == "alive").count();
    let sum = |of: fn(&crate::cluster::SlotsReport) -> u64| {
        report.models.iter().map(|model| of(&model.slots)).fold(0, u64::saturating_add)
    };
    let (busy, total) = (sum(|slots| slots.busy), sum(|slots| slots.total));
    let figures = [
        format!("{alive} of {} nodes alive", report.nodes.len()),
        counted(report.sessions.len(), "session"),
        format!("{busy} of {total} decoders busy"),
    ];
    let left = format!("   {}", figures.join("   "));
    let right = format!("from {}   {time}", report.node);
    let used = "  Starling".len() + left.chars().count() + right.chars().count();
    let mut line = vec![Span(Look::Accent, "  Starling".to_owned()), plain(left)];
    // Half a time is none.
    if let Some(gap) = columns.checked_sub(used).filter(|gap| *gap >= 3) {
        line.push(dim(format!("{}{right}", " ".repeat(gap))));
    }
    line
}

fn nodes(report: &ClusterReport, cells: usize) -> Vec<Line> {
    let name = widest("NODE", report.nodes.iter().map(|node| node.name.as_str()));
    let zone = widest("ZONE", report.nodes.iter().map(|node| node.zone.as_str()));
    let models = report.nodes.iter().flat_map(|node| &node.models);
    let model = widest("MODEL", models.map(|model| model.name.as_str()));
    let titles = format!(
        "  {:name$}  {:11}  {:zone$}  {:model$}  {:width$}  {:9}  RTF",
        "NODE",
        "STATE",
        "ZONE",
        "MODEL",
        "DECODERS",
        "PROCESSES",
        width = cells + 8,
    );
    let mut lines = vec![vec![dim(titles)]];
    for node in &report.nodes {
        let (mark, look) = state(node);
        let own = [
            Span(Look::Bold, format!("  {:name$}  ", node.name)),
            Span(look, format!("{mark} {:9}", node.state)),
            dim(format!("  {:zone$}  ", or_dash(&node.zone))),
        ];
        let blank = [plain(" ".repeat(2 + name + 2 + 11 + 2 + zone + 2))];
        if node.models.is_empty() {
            lines.push(own.into_iter().chain([dim("-")]).collect());
            continue;
        }
        for (index, one) in node.models.iter().enumerate() {
            let mut line = if index == 0 { own.to_vec() } else { blank.to_vec() };
            line.push(plain(format!("{:model$}  ", one.name)));
            line.extend(bar(one.slots.busy, one.slots.total, cells));
            let hosts = format!("{}/{}", one.hosts.ready, one.hosts.total);
            let whole = one.hosts.ready == one.hosts.total;
            line.push(Span(if whole { Look::Plain } else { Look::Warn }, format!("  {hosts:9}")));
            let factor = one.real_time_factor.map_or_else(|| "-".to_owned(), |factor| format!("{factor:.3}"));
            line.push(dim(format!("  {factor}")));
            lines.push(line);
        }
    }
    lines
}

fn sessions(sessions: &[SessionEntry]) -> Vec<Line> {
    let owner = widest("OWNER", sessions.iter().map(|one| one.owner.as_str()));
    let decoders: Vec<String> = sessions.iter().map(super::decoders).collect();
    let decoder = widest("DECODER", decoders.iter().map(String::as_str));
    let copies: Vec<String> = sessions.iter().map(|one| or_dash(&one.copies.join(","))).collect();
    let copy = widest("COPIES", copies.iter().map(String::as_str));
    let model = widest("MODEL", sessions.iter().map(|one| one.model.as_str()));
    let mut lines = vec![vec![dim(format!(
        "  {:8}  {:owner$}  {:decoder$}  {:copy$}  ATTEMPT  {:>7}  {:>6}  {:model$}  CLIENT",
        "SESSION", "OWNER", "DECODER", "COPIES", "BEHIND", "AUDIO", "MODEL",
    ))]];
    for ((one, decoders), copies) in sessions.iter().zip(decoders).zip(copies) {
        let lost = one.decoder.is_none() && one.connected;
        let behind = format!("{:.1} s", one.lag_ms as f64 / 1_000.0);
        lines.push(vec![
            Span(Look::Bold, format!("  {:8}", one.session.chars().take(8).collect::<String>())),
            plain(format!("  {:owner$}  ", one.owner)),
            Span(if lost { Look::Bad } else { Look::Plain }, format!("{decoders:decoder$}  ")),
            Span(if one.durable { Look::Plain } else { Look::Warn }, format!("{copies:copy$}  ")),
            Span(if one.attempt > 1 { Look::Warn } else { Look::Plain }, format!("{:>7}  ", one.attempt)),
            Span(if one.lag_ms > 2_000 { Look::Warn } else { Look::Plain }, format!("{behind:>7}  ")),
            plain(format!("{:>6}  {:model$}  ", length(one.audio_ms), one.model)),
            dim(format!("{}{}", one.dialect, if one.connected { "" } else { ", away" })),
        ]);
    }
    lines
}

/// A mark that can be told from others without its colour.
fn state(node: &NodeReport) -> (char, Look) {
    match node.state.as_str() {
        "alive" => ('●', Look::Good),
        "draining" => ('◐', Look::Warn),
        "suspected" => ('?', Look::Warn),
        "down" => ('✕', Look::Bad),
        _ => ('○', Look::Dim),
    }
}

fn bar(busy: u64, total: u64, cells: usize) -> [Span; 3] {
    let full = busy.saturating_mul(cells as u64).div_ceil(total.max(1));
    let full = usize::try_from(full).unwrap_or(cells).min(cells);
    let look = if busy >= total && total > 0 { Look::Warn } else { Look::Accent };
    let figure = format!(" {busy}/{total}");
    [Span(look, "━".repeat(full)), dim("─".repeat(cells - full)), plain(format!("{figure:8}"))]
}

fn length(ms: u64) -> String {
    let seconds = ms / 1_000;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn widest<'a>(title: &str, cells: impl Iterator<Item = &'a str>) -> usize {
    cells.map(|cell| cell.chars().count()).max().unwrap_or_default().clamp(title.len(), WIDEST)
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn counted(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

fn plain(text: impl Into<String>) -> Span {
    Span(Look::Plain, text.into())
}

fn dim(text: impl Into<String>) -> Span {
    Span(Look::Dim, text.into())
}
