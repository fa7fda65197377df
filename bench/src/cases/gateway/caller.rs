//! One caller who speaks at the pace of speech and notes when it is answered, and many of them at once.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep_until};

use super::call::{Call, Transport};
use super::dial::Dial;
use super::said::Heard;
use super::script::{SEGMENT, Script, end_of_segment, has_word};
use crate::audio::STEP;

pub(super) const STEP_TIME: Duration = Duration::from_millis(100);

/// Segments that are spoken before anything is counted.
pub(super) const WARM_SEGMENTS: usize = 1;

/// How late the last answer may be before a session counts as lost.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// Connections that are opened at once.
pub(super) const OPENING: usize = 16;

/// What one caller saw, or all of them; times in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) texts: Vec<f64>,
    pub(super) finals: Vec<f64>,
    pub(super) acks: Vec<f64>,
    /// How much later than due audio was sent.
    pub(super) late: Vec<f64>,
    /// Of replies to words, whether the word was in them.
    pub(super) fresh: Vec<bool>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.texts.extend(other.texts);
        self.finals.extend(other.finals);
        self.acks.extend(other.acks);
        self.late.extend(other.late);
        self.fresh.extend(other.fresh);
    }
}

/// So many sessions live at once, spread over the time of a step; what they saw, and how many failed.
pub(super) async fn speak(
    dial: &Dial,
    transport: Transport,
    script: &Arc<Script>,
    sessions: usize,
    engine_ms: f64,
) -> Result<(Tally, usize)> {
    let opening = stream::iter((0..sessions).map(|_| Call::open(dial, transport)));
    let calls: Vec<Call> = opening.buffer_unordered(OPENING).try_collect().await.context("opening")?;
    let start = Instant::now() + STEP_TIME;
    let tasks: Vec<_> = (0u32..)
        .zip(calls)
        .map(|(number, call)| {
            let start = start + STEP_TIME * number / u32::try_from(sessions).unwrap_or(u32::MAX);
            tokio::spawn(caller(call, Arc::clone(script), start, engine_ms))
        })
        .collect();
    let (mut all, mut lost, mut why) = (Tally::default(), 0, None);
    for task in tasks {
        match task.await.context("a caller panicked")? {
            Ok(tally) => all.add(tally),
            Err(error) => {
                lost += 1;
                why = Some(error);
            }
        }
    }
    if let Some(error) = why {
        eprintln!("{}: {lost} of {sessions} sessions failed, the last: {error:#}", transport.name());
    }
    Ok((all, lost))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

async fn caller(mut call: Call, script: Arc<Script>, start: Instant, engine_ms: f64) -> Result<Tally> {
    let (in_turn, has_end) = (call.transport.in_turn(), call.transport.has_end());
    let piece_time = STEP_TIME / u32::try_from(script.pieces_of_step)?;
    let due = |piece: usize| start + piece_time * u32::try_from(piece).unwrap_or(u32::MAX);
    let counts = |step: usize| step >= WARM_SEGMENTS * SEGMENT;
    let mut overdue = pin!(sleep_until(due(script.pieces.len()) + LAST_ANSWER));
    let mut tally = Tally::default();
    // When each step was complete.
    let mut sent: Vec<Instant> = Vec::with_capacity(script.steps());
    // The last word that was told of.
    let mut newest: Option<usize> = None;
    let (mut piece, mut replies, mut finals, mut acked) = (0, 0, 0, 0);
    loop {
        let may_speak = piece < script.pieces.len() && (!in_turn || replies == piece);
        let heard = tokio::select! {
            heard = call.heard() => heard?,
            () = sleep_until(due(piece)), if may_speak => {
                let now = Instant::now();
                if script.completes(piece).is_some() {
                    sent.push(now);
                }
                call.audio(&script.pieces[piece]).await?;
                if counts(sent.len()) {
                    tally.late.push(ms(now.saturating_duration_since(due(piece))));
                }
                piece += 1;
                // One that waits for replies has one more to wait for.
                if piece == script.pieces.len() && has_end && !in_turn {
                    call.end().await?;
                }
                continue;
            }
            () = &mut overdue => {
                bail!("of {} finals {finals} came in {LAST_ANSWER:?} after the last audio", script.segments())
            }
        };
        let now = Instant::now();
        let Some(heard) = heard else { break };
        call.confirm(&heard).await?;
        let after = |step: usize| -> Result<f64> {
            let sent =
                sent.get(step).with_context(|| format!("a text of step {step}, which was not said"))?;
            Ok((ms(now.saturating_duration_since(*sent)) - engine_ms).max(0.0))
        };
        match heard {
            Heard::Text { last, is_final, .. } => {
                let last = last.map(|last| last as usize);
                let is_reply = in_turn && replies < script.steps();
                if is_reply && counts(replies) {
                    tally.texts.push(after(replies)?);
                    if has_word(replies) {
                        tally.fresh.push(last == Some(replies));
                    }
                }
                replies += usize::from(is_reply);
                if is_reply && replies == script.steps() {
                    call.end().await?;
                }
                match last {
                    Some(last) if is_final => {
                        let end = end_of_segment(last).filter(|end| end / SEGMENT == finals);
                        let end = end.with_context(|| format!("final {finals} ends with word {last}"))?;
                        finals += 1;
                        if counts(end) {
                            tally.finals.push(after(end)?);
                        }
                    }
                    // Silence tells the same text again, and the last word of a segment may be told with it, when it is time for a text.
                    Some(last) if !in_turn && newest < Some(last) => {
                        newest = Some(last);
                        if counts(last) && has_word(last + 1) {
                            tally.texts.push(after(last)?);
                        }
                    }
                    // Of a segment in which nothing was said yet.
                    _ => {}
                }
                if finals == script.segments() && !has_end {
                    call.leave().await?;
                }
            }
            Heard::Ack(until) => {
                // It may be for several steps, and is the answer to the first of them.
                if let Some(step) = usize::try_from(acked)?.checked_div(STEP).filter(|step| counts(*step))
                    && until / STEP as u64 > step as u64
                {
                    tally.acks.push(after(step)?);
                }
                acked = until;
            }
            Heard::Ready | Heard::Done | Heard::Other => {}
        }
    }
    ensure!(finals == script.segments(), "of {} finals {finals} came", script.segments());
    Ok(tally)
}
