//! `starling status`: the cluster, as one of its nodes sees it.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::http::Method;
use serde::de::DeserializeOwned;
use tokio::time::interval;

pub(crate) use self::screen::{Terminal, screen};
use crate::cluster::{ClusterReport, SessionEntry};
use crate::exit::{Exit, Failure};
use crate::keys::KeyArguments;
use crate::remote::{Answer, Remote, TrustArguments, print};
use crate::terminal::{one_line, shortened};

mod screen;

/// A node that does not answer for so long is not there.
const ANSWER: Duration = Duration::from_secs(5);

/// How often `--watch` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A screen of its own, so that what was on the terminal comes back afterwards; no cursor on it.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// A terminal that does not say how large it is.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// What `status` is given.
#[derive(Debug, clap::Args)]
pub struct StatusArguments {
    /// Any node of the cluster
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "STARLING_SERVER")]
    pub server: String,
    /// A key, if the server asks for one.
    #[command(flatten)]
    pub key: KeyArguments,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: TrustArguments,
    /// Show it anew each second, until Ctrl-C: on a terminal as a screen of its own
    #[arg(long)]
    pub watch: bool,
    /// As JSON; with --watch one line each time
    #[arg(long)]
    pub json: bool,
}

/// Prints the cluster.
///
/// # Errors
/// Exit code 69 if the server can't be reached, 64 if its address is none.
pub async fn status(arguments: StatusArguments) -> Result<(), Failure> {
    let remote = Remote::new(&arguments.server, &arguments.key, &arguments.trust);
    let remote = remote.map_err(|error| Failure::new(Exit::Usage, error))?;
    if !arguments.watch {
        let answer = fetched(&remote).await?;
        return print(&if arguments.json { pretty(&answer)? } else { table(&parsed(&answer)?) });
    }
    if !arguments.json && std::io::stdout().is_terminal() {
        print(ENTER)?;
        let watched = tokio::select! {
            watched = draw(&remote) => watched,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        print(LEAVE)?;
        return watched;
    }
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        match fetched(&remote).await {
            Ok(answer) if arguments.json => print(&format!("{}\n", value(&answer)?))?,
            Ok(answer) => print(&format!("{}\n", table(&parsed(&answer)?)))?,
            // The node that is asked may be the one that is restarted.
            Err(failure) => eprintln!("starling: {failure}"),
        }
    }
}

/// Draws the screen anew each second.
async fn draw(remote: &Remote) -> Result<(), Failure> {
    let colours = std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let (columns, rows) = size();
        let terminal = Terminal { columns, rows, colours };
        let text = match fetched(remote).await {
            Ok(answer) => screen(&parsed(&answer)?, &time_of_day(), terminal),
            // What was seen last stays, with what is wrong below it.
            Err(failure) => {
                let problem: String = format!("  {failure}").chars().take(columns).collect();
                print(&format!("\x1b[{rows};1H\x1b[K{problem}"))?;
                continue;
            }
        };
        // Each line clears its rest, and the last what is below: nothing flickers.
        print(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))?;
    }
}

/// The terminal's columns and rows.
pub(crate) fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    let Ok(size) = size.or_else(|_| rustix::termios::tcgetwinsize(std::io::stderr())) else {
        return USUAL_SIZE;
    };
    match (usize::from(size.ws_col), usize::from(size.ws_row)) {
        (0, _) | (_, 0) => USUAL_SIZE,
        size => size,
    }
}

fn time_of_day() -> String {
    let seconds = starling_actors::unix_now().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// As the server says it, not as this version knows it: it may be a later one.
fn value(answer: &[u8]) -> Result<serde_json::Value, Failure> {
    understood(answer)
}

pub(crate) fn pretty(answer: &[u8]) -> Result<String, Failure> {
    Ok(format!("{:#}\n", value(answer)?))
}

pub(crate) fn parsed(answer: &[u8]) -> Result<ClusterReport, Failure> {
    understood(answer)
}

pub(crate) fn understood<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(answer).map_err(|error| {
        // What is no number, say, is repeated in the error, however long it is.
        let error = error.to_string();
        let problem = anyhow!("the server does not speak this version's language: {}", shortened(&error));
        Failure::new(Exit::Data, problem)
    })
}

async fn fetched(remote: &Remote) -> Result<Vec<u8>, Failure> {
    let answer = remote.ask(Method::GET, "/v1/cluster", ANSWER).await.and_then(Answer::fine);
    let answer =
        answer.with_context(|| format!("{} cannot be asked for the cluster's status", remote.authority()));
    answer.map_err(|error| Failure::new(Exit::Unavailable, error))
}

pub(crate) fn table(report: &ClusterReport) -> String {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let nodes = report.nodes.iter().map(|node| {
        // The one that was asked: it sees the others from where it stands.
        let mark = if node.name == report.node { "*" } else { "" };
        vec![
            format!("{}{mark}", node.name),
            node.state.clone(),
            or_dash(&node.zone),
            or_dash(&node.roles.join(",")),
            node.generation.to_string(),
            or_dash(&node.version),
        ]
    });
    let models = report.models.iter().map(|model| {
        vec![
            model.name.clone(),
            model.nodes.to_string(),
            model.slots.total.to_string(),
            model.slots.busy.to_string(),
            model.slots.idle.to_string(),
            model.real_time_factor.map_or_else(|| "-".to_owned(), |factor| format!("{factor:.3}")),
        ]
    });
    let nodes = columns(&["NODE", "STATE", "ZONE", "ROLES", "GENERATION", "VERSION"], nodes.collect());
    let models = columns(&["MODEL", "NODES", "SLOTS", "BUSY", "IDLE", "REAL-TIME FACTOR"], models.collect());
    if report.sessions.is_empty() {
        return format!("{nodes}\n{models}");
    }
    let sessions = report.sessions.iter().map(|session| {
        let copies = session.copies.join(",");
        vec![
            // As much of the id as tells it from others on a screen.
            session.session.chars().take(8).collect(),
            session.owner.clone(),
            if session.durable { copies } else { format!("{copies}(not durable)") },
            decoders(session),
            session.attempt.to_string(),
            format!("{:.1} s", session.lag_ms as f64 / 1_000.0),
            session.model.clone(),
            session.dialect.clone() + if session.connected { "" } else { " (away)" },
        ]
    });
    let titles = ["SESSION", "OWNER", "COPIES", "DECODER", "ATTEMPT", "LAG", "MODEL", "CLIENT"];
    let sessions = columns(&titles, sessions.collect());
    format!("{nodes}\n{models}\n{sessions}")
}

/// The first, and the one that stands by.
fn decoders(session: &SessionEntry) -> String {
    let nodes = [&session.decoder, &session.standby];
    let nodes: Vec<&str> = nodes.into_iter().filter_map(Option::as_deref).collect();
    if nodes.is_empty() { "-".to_owned() } else { nodes.join(",") }
}

/// A column is no wider, so that one long word of a server's does not widen every line: a name has 63 characters, and several copies
/// or decoders stand in one cell.
const WIDEST: usize = 160;

fn columns(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|title| (*title).to_owned()).collect();
    let shown = |row: Vec<String>| row.iter().map(|cell| one_line(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows.into_iter().map(shown)).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        widths.resize(row.len().max(widths.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count()).min(WIDEST);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        // Writing into a String does not fail.
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests;
