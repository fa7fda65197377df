//! One caller: speaks to a place, then at the pace of speech past it, and notes when text comes.
//!
//! Owns: the session and the moments of what it said. Must never: know what is broken meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use starling_client::{
    AudioSender, Client, ClientConfig, Event, Events, Final, SessionConfig, SessionOptions,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::audio::{RATE, STEP, bytes};

/// A step of audio at the pace of speech.
const STEP_TIME: Duration = Duration::from_millis(100);

/// Spoken at its pace before the place where the fault will be, so that partials flow.
pub(super) const LEAD: usize = RATE as usize;

/// No session of a few seconds lasts so long, whatever befalls it, unless it is stuck.
const SESSION_TIMEOUT: Duration = Duration::from_secs(40);

/// Texts this often at the most, to see the end of a gap soon.
const PARTIAL_INTERVAL_MS: u32 = 100;

/// What is said.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) audio: Vec<i16>,
    /// Samples that have been said at the time of the fault, all of one segment.
    pub(super) place: usize,
}

/// What keeps callers in step with the fault.
pub(super) struct Cues {
    /// Told the session's id when all but [`LEAD`] before the place is said and heard.
    pub(super) ready: mpsc::Sender<String>,
    /// When the rest begins.
    pub(super) start: watch::Receiver<Option<Instant>>,
}

/// What a caller was told.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) session: String,
    /// When text came that reaches beyond the place, for the first time.
    pub(super) past: Option<Instant>,
    /// When a connection took the place of a lost one, and whether the server had lost the session.
    pub(super) reconnected: Option<(Instant, bool)>,
    pub(super) finals: Vec<Final>,
}

impl Told {
    pub(super) fn text(&self) -> String {
        let texts: Vec<&str> = self.finals.iter().map(|last| &*last.text).collect();
        texts.join(" ")
    }
}

/// Speaks a script to the first of the servers that answers.
pub(super) async fn call(servers: Vec<String>, model: &str, script: Script, cues: Cues) -> Result<Told> {
    let client = Client::new(ClientConfig::new(servers))?;
    let options = SessionOptions { partial_interval_ms: PARTIAL_INTERVAL_MS, ..SessionOptions::default() };
    let config = SessionConfig { model: Some(model.to_owned()), options, ..SessionConfig::default() };
    let session = client.open(config).await.context("opening a session")?;
    let mut told = Told { session: session.opened().session.to_string(), ..Told::default() };
    let (sender, events) = session.split();
    let place = script.place as u64;
    let (reached, reaches) = watch::channel(0);
    let id = told.session.clone();
    let speaking = tokio::spawn(speak(sender, script, cues, id, reaches));
    let listening = timeout(SESSION_TIMEOUT, listen(events, place, &mut told, &reached)).await;
    // Without anybody to hear, there is nobody to speak for.
    drop(reached);
    listening.context("the session did not end")??;
    speaking.await.context("the speaker panicked")??;
    Ok(told)
}

async fn listen(mut events: Events, place: u64, told: &mut Told, reached: &watch::Sender<u64>) -> Result<()> {
    while let Some(event) = events.next().await {
        let until = match event? {
            Event::Partial { until, .. } => until.0,
            Event::Final(last) => {
                let to = last.to.0;
                told.finals.push(last);
                to
            }
            Event::Reconnected { restarted, .. } => {
                told.reconnected = Some((Instant::now(), restarted));
                continue;
            }
            Event::Done { .. } => return Ok(()),
            _ => continue,
        };
        if until > place {
            told.past = told.past.or(Some(Instant::now()));
        }
        // A session that is begun anew says earlier things again.
        reached.send_modify(|reached| *reached = until.max(*reached));
    }
    bail!("the events ended without a last one")
}

async fn speak(
    mut sender: AudioSender,
    script: Script,
    mut cues: Cues,
    session: String,
    mut reaches: watch::Receiver<u64>,
) -> Result<()> {
    let Script { audio, place } = script;
    let early = place - LEAD;
    sender.send(&bytes(&audio[..early])).await?;
    reaches.wait_for(|reached| *reached >= early as u64).await?;
    cues.ready.send(session).await?;
    let start = cues.start.wait_for(Option::is_some).await?.context("no start")?;
    for (step, due) in audio[early..].chunks(STEP).zip(1..) {
        tokio::select! {
            () = sleep_until(start + STEP_TIME * due) => {}
            // The rest can be said at once: nothing more is measured.
            _ = reaches.wait_for(|reached| *reached > place as u64) => {}
        }
        sender.send(&bytes(step)).await?;
    }
    sender.end().await?;
    Ok(())
}
