//! What keepers stored, against what clients were told.

use std::time::Duration;

use starling_actors::KeptCopy;
use starling_protocol::{Epoch, SessionId};

use super::Oracle;
use crate::net::HostId;

/// Whoever was left in peace for so long was asked: a client tries each of three nodes for 2 s at the most, and waits a second.
const PEACE: Duration = Duration::from_secs(10);

/// The most that a keeper was seen to have of a session.
#[derive(Clone, Copy)]
pub(super) struct Stored {
    pub(super) epoch: Epoch,
    pub(super) audio_end: u64,
    pub(super) next_segment: u64,
    /// What it had last: epoch, next segment, end of the audio.
    pub(super) copy: Option<(Epoch, u64, u64)>,
    pub(super) lost_at: Option<Duration>,
    /// When it was seen to have that.
    pub(super) seen_at: Duration,
}

/// Something that a client was told, and that has to lie in a copy.
pub(super) struct Claim {
    pub(super) client: usize,
    pub(super) session: SessionId,
    pub(super) owner: HostId,
    pub(super) what: Held,
    pub(super) at: Duration,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Held {
    AudioBefore(u64),
    Final(u64),
}

/// A session that a client began anew, for want of a node that goes on with it.
pub(super) struct Forsaken {
    pub(super) client: usize,
    pub(super) session: SessionId,
    pub(super) at: Duration,
}

impl Oracle {
    pub(super) fn sampled(&mut self, node: HostId, kept: &[KeptCopy], now: Duration) -> Vec<String> {
        let mut problems = Vec::new();
        for copy in kept {
            let nothing = Stored {
                epoch: Epoch(0),
                audio_end: 0,
                next_segment: 0,
                copy: None,
                lost_at: None,
                seen_at: now,
            };
            let stored = self.stored.entry((node, copy.session)).or_insert(nothing);
            if copy.epoch < stored.epoch {
                problems.push(format!(
                    "I5: n{node} obeys epoch {} of {} after {}",
                    copy.epoch, copy.session, stored.epoch
                ));
            }
            stored.epoch = copy.epoch;
            let Some(summary) = &copy.copy else { continue };
            let (had, has) =
                (stored.copy.replace((summary.epoch, summary.next_segment.0, summary.audio_end.0)), summary);
            if let Some((epoch, segment, audio)) = had
                && epoch == has.epoch
                && (has.next_segment.0 < segment || has.audio_end.0 < audio)
            {
                problems.push(format!(
                    "I4: the copy of {} on n{node} falls from segment {segment}, audio {audio} to {has:?}",
                    copy.session
                ));
            }
            (stored.lost_at, stored.seen_at) = (None, now);
            stored.audio_end = stored.audio_end.max(summary.audio_end.0);
            stored.next_segment = stored.next_segment.max(summary.next_segment.0);
            for last in &copy.finals {
                if let Some((told, epoch)) = self.told.get(&(copy.session, last.segment))
                    && summary.epoch >= *epoch
                    && told != last
                {
                    problems.push(format!(
                        "I2: n{node} has segment {} of {} as {:?}, its client as {:?}",
                        last.segment, copy.session, last.text, told.text
                    ));
                }
            }
        }
        problems
    }

    pub(super) fn judge(&mut self, now: Duration) -> Vec<String> {
        let late = self.late;
        let is_seen = |at: Duration| at + late <= now;
        let forsaken: Vec<Forsaken> = self.forsaken.extract_if(.., |of| is_seen(of.at)).collect();
        let mut problems: Vec<String> =
            forsaken.into_iter().filter_map(|of| self.forsook(&of, now)).collect();
        let claims: Vec<Claim> = self.claims.extract_if(.., |claim| is_seen(claim.at)).collect();
        let refuted = claims.into_iter().filter(|claim| !self.holds(claim));
        let said = |Claim { client, session, owner, what, .. }: Claim| {
            format!(
                "I4: client {client} was told of {what:?} of {session} by n{owner}, and no other node has it"
            )
        };
        problems.extend(refuted.map(said));
        problems
    }

    /// A session is begun anew only if no node that its client could ask had a copy of all that was acknowledged.
    fn forsook(&self, of: &Forsaken, now: Duration) -> Option<String> {
        let Forsaken { client, session, .. } = *of;
        let acked = self.welcomed.get(&session).map_or(0, |(_, acked)| *acked);
        let at_peace = |host: HostId| {
            let (lasting, changed) = self.unrest.get(&host).copied().unwrap_or_default();
            lasting == 0 && (changed.is_zero() || now.saturating_sub(changed) >= PEACE)
        };
        let (node, _) = self.stored.iter().map(|((node, of), stored)| (*node, (*of, stored))).find(
            |(node, (of, stored))| {
                let copy =
                    stored.copy.filter(|_| stored.seen_at + self.late >= now && stored.lost_at.is_none());
                *of == session && copy.is_some_and(|(_, _, audio)| audio >= acked) && at_peace(*node)
            },
        )?;
        at_peace(self.clients[client].host)
            .then(|| format!("I4: client {client} began {session} anew, and n{node} has a copy of all of it"))
    }

    fn holds(&self, claim: &Claim) -> bool {
        // What it hears may have been said just before the keeper was lost.
        let since = self.clients[claim.client].asked.get(&claim.owner).copied().unwrap_or_default();
        self.stored.iter().any(|((node, session), stored)| {
            *session == claim.session
                && *node != claim.owner
                && stored.lost_at.is_none_or(|at| at >= since)
                && match claim.what {
                    Held::AudioBefore(until) => stored.audio_end >= until,
                    Held::Final(segment) => stored.next_segment > segment,
                }
        })
    }
}
