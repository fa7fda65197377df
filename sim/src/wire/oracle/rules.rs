//! The rules, over what runs told and what was done to them.

use std::time::Duration;

use starling_protocol::NodeId;

use super::{ANSWER, Asked, GRACE, Inner, RunId};

/// Within this after a peer is gone, and known to be a peer, its loss is told: silence is one after 700 ms, and what is on
/// its way then takes its time.
const LINK_LOST_WITHIN: Duration = Duration::from_millis(1_500);

/// Within this membership tells it: each member is probed at least once in two rounds of 200 ms for each other one, and
/// has 600 ms to speak up.
const MEMBER_LOST_WITHIN: Duration = Duration::from_secs(5);

/// For so long something that did not pass may explain what is told of it.
const EXPLAINS: Duration = Duration::from_secs(4);

/// Others are told in so long what one believes who was alone.
const SPREADS: Duration = Duration::from_secs(12);

/// Whom somebody began to suspect while it was alone it may give up so long after it is back, for others to hear: 600 ms to speak
/// up, and the word's way.
const RETURNS: Duration = Duration::from_secs(1);

/// An earlier run that lived for so long beside a later one has heard of it.
const SUPERSEDED_WITHIN: Duration = Duration::from_millis(2_500);

impl Inner {
    /// Whether what happened between a run and another may be explained by what was done since.
    pub(super) fn is_explained(&self, run: RunId, id: &NodeId, since: Duration) -> bool {
        let Some(other) = self.truth.find(id) else { return false };
        let own = self.truth.run(run);
        let since = since.saturating_sub(EXPLAINS);
        other.is_ghost
            || other.ending.is_some()
            || own.ending.is_some()
            || self.truth.was_disturbed(own.host, other.host, since, self.now)
    }

    pub(super) fn loses_peer(&mut self, run: RunId, id: &NodeId) {
        if !self.is_explained(run, id, self.now) {
            self.wrong(run, &format!("alarm: {id} is told as lost, and lives and is reached"));
        }
    }

    pub(super) fn gives_up_member(&mut self, run: RunId, id: &NodeId) {
        if self.is_explained(run, id, self.now) || self.is_member_excused(run, id) {
            return;
        }
        self.wrong(run, &format!("alarm: {id} is told as down, and lives and is reached"));
    }

    /// One that could not be reached by most others may be given up by all for a while. So may anybody while somebody's datagrams
    /// get lost: whoever hears little accuses others, and does not hear them speak up.
    pub(super) fn is_member_excused(&self, run: RunId, id: &NodeId) -> bool {
        let Some(other) = self.truth.find(id) else { return false };
        let (one, other) = (self.truth.run(run).host, other.host);
        let since = self.now.saturating_sub(SPREADS);
        let is_alone =
            |host| self.truth.reached_by(host, self.nodes, since, self.now) < self.nodes.div_ceil(2);
        is_alone(one) || is_alone(other) || self.truth.lost_datagrams(since, self.now) || self.returns()
    }

    /// Whether somebody who was alone has just come back.
    fn returns(&self) -> bool {
        let since = self.now.saturating_sub(RETURNS);
        let is_alone =
            |host| self.truth.reached_by(host, self.nodes, since, self.now) < self.nodes.div_ceil(2);
        (0..self.nodes).any(is_alone)
    }

    pub(super) fn was_given_up(&mut self, run: RunId) {
        let host = self.truth.run(run).host;
        let since = self.now.saturating_sub(SPREADS);
        let reached = self.truth.reached_by(host, self.nodes, since, self.now);
        let excused = self.truth.lost_datagrams(since, self.now) || self.returns();
        if reached == self.nodes - 1 && !excused {
            self.wrong(run, "alarm: it was given up by others, and all reached it");
        }
    }

    pub(super) fn look_for_the_gone(&mut self) {
        let mut late = Vec::new();
        for (run, teller) in self.truth.living().filter(|(_, run)| run.ending.is_none()) {
            let overdue = |id: &NodeId, since: Duration, within: Duration| {
                let gone = self.truth.find(id).and_then(|run| run.gone)?;
                let known = gone.max(since).max(teller.began);
                (self.now > known + within).then(|| self.now - known)
            };
            let told = &self.told[run];
            for (id, since) in told.links.values() {
                if let Some(after) = overdue(id, *since, LINK_LOST_WITHIN) {
                    late.push((run, format!("late: {id} is gone for {after:?} and told as up")));
                }
            }
            for (id, since, _) in told.members.values() {
                if let Some(after) = overdue(id, *since, MEMBER_LOST_WITHIN) {
                    late.push((run, format!("late: {id} is gone for {after:?} and told as a member")));
                }
            }
        }
        for (run, what) in late {
            self.wrong(run, &what);
        }
    }

    pub(super) fn look_for_hanging_questions(&mut self) {
        let living: Vec<RunId> = self.truth.living().map(|(run, _)| run).collect();
        for run in living {
            let since = self.now.saturating_sub(ANSWER + GRACE);
            let hanging = self.told[run].asked.extract_if(.., |_, asked| asked.at < since);
            let hanging: Vec<Asked> = hanging.map(|(_, asked)| asked).collect();
            for Asked { peer, at, .. } in hanging {
                self.wrong(run, &format!("hangs: a question to {peer} since {} ms", at.as_millis()));
            }
        }
    }

    /// An earlier run beside a later one learns that it is not the latest.
    pub(super) fn look_for_ghosts(&mut self) {
        let mut unaware = Vec::new();
        for (run, ghost) in self.truth.living().filter(|(_, run)| run.is_ghost) {
            let beside = self.truth.living().filter(|(_, run)| run.id.name == ghost.id.name && !run.is_ghost);
            let since = beside.map(|(_, later)| later.began.max(ghost.began)).min();
            if since.is_some_and(|since| self.now > since + SUPERSEDED_WITHIN) && !self.told[run].superseded {
                unaware.push((run, ghost.id.clone()));
            }
        }
        for (run, id) in unaware {
            self.told[run].superseded = true;
            self.violate(&format!("old: {id} lives beside a later run and was not told"));
        }
    }

    pub(super) fn apart(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let living: Vec<(RunId, NodeId)> =
            self.truth.living().map(|(run, living)| (run, living.id.clone())).collect();
        for (run, id) in &living {
            let told = &self.told[*run];
            let others = || living.iter().filter(|(_, other)| other != id);
            for (other_run, other) in others() {
                match told.members.get(&other.name) {
                    Some((member, _, load)) if member == other => {
                        let said = self.told[*other_run].said;
                        if *load != Some(said) {
                            problems.push(format!("{id} knows {load:?} of {other}'s load, which is {said}"));
                        }
                    }
                    known => {
                        let known = known.map(|(known, ..)| known.to_string()).unwrap_or_default();
                        problems.push(format!("{id} has no member {other} but {known:?}"));
                    }
                }
                if told.links.get(&other.name).is_none_or(|(linked, _)| linked != other) {
                    problems.push(format!("{id} has no link to {other}"));
                }
            }
            let strangers = told.members.values().filter(|(member, ..)| others().all(|(_, id)| id != member));
            problems
                .extend(strangers.map(|(member, ..)| format!("{id} has a member {member}, which is gone")));
        }
        problems
    }
}
