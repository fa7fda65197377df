//! Which models a node serves and by which pool: what is added, replaced and taken away while sessions go on.
//!
//! Owns: the pools of each model, which of them new sessions get, and when one that was replaced has been kept for long
//! enough. Must never: know what a pool does, or end one that somebody has a claim to.
//!
//! A model that is replaced gets a second pool beside the first. New sessions go to it once one of its hosts is ready, so that
//! a model which takes long to load, or never does, keeps nobody waiting. The first pool is kept for the sessions that began
//! with it, and for a while longer: a session of another node may be on its way back to it.

mod messages;

pub use messages::{Change, LineupAction, LineupConfig, LineupEvent, MOST_POOLS, Offer, PoolId, Stage};

use crate::Timestamp;

/// The pools of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LineupMachine<O> {
    config: LineupConfig,
    /// What new sessions can ask for, the default first.
    names: Vec<String>,
    /// In the order they were started.
    pools: Vec<Pool<O>>,
    next: PoolId,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pool<O> {
    id: PoolId,
    offer: O,
    state: State,
    /// Whether one of its hosts has ever been ready.
    proved: bool,
    claimed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Loading,
    Current,
    /// `since` when nobody has had a claim to it; `None` while somebody has.
    Leaving {
        since: Option<Timestamp>,
    },
    Ending,
}

impl<O: Offer> LineupMachine<O> {
    /// A node that begins with these models, the default first. They are served at once, loaded or not: there is nothing that
    /// could be served in their place.
    #[must_use]
    pub fn new(config: LineupConfig, offers: Vec<O>, out: &mut Vec<LineupAction>) -> Self {
        let mut lineup = Self { config, names: Vec::new(), pools: Vec::new(), next: PoolId(0) };
        for offer in offers {
            if !lineup.names.iter().any(|name| name == offer.name()) {
                lineup.names.push(offer.name().to_owned());
                lineup.start(offer, State::Current, out);
            }
        }
        lineup
    }

    /// Takes an event and appends what is to be done.
    pub fn handle(&mut self, now: Timestamp, event: LineupEvent<O>, out: &mut Vec<LineupAction>) {
        match event {
            LineupEvent::Named { offers } => self.named(now, offers, out),
            LineupEvent::Added { offer } => self.offered(now, offer, out),
            LineupEvent::Ready { pool } => self.ready(now, pool, out),
            LineupEvent::Claimed { pools } => self.claimed(now, &pools),
            LineupEvent::Ended { pool } => self.ended(pool),
            LineupEvent::TimedOut => {}
        }
        self.expire(now, out);
    }

    /// When to send `TimedOut` next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let unclaimed = self.pools.iter().filter_map(|pool| match pool.state {
            State::Leaving { since } => since,
            _ => None,
        });
        unclaimed.map(|since| since.plus(self.config.keep)).min()
    }

    /// What new sessions can ask for, the default first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The pool that a new session gets: by the model's name, or the default.
    #[must_use]
    pub fn find(&self, name: Option<&str>) -> Option<PoolId> {
        let name = name.or_else(|| self.names().next())?;
        if !self.names().any(|served| served == name) {
            return None;
        }
        self.with(name, State::Current).or_else(|| self.with(name, State::Loading))
    }

    /// The pool of a session that began with these very files. The one that would serve a new session, if it has them.
    #[must_use]
    pub fn find_exact(&self, name: &str, digest: &str) -> Option<PoolId> {
        let same = |pool: &&Pool<O>| pool.offer.name() == name && pool.offer.digest() == digest;
        let rank = |pool: &&Pool<O>| match pool.state {
            State::Current => 3,
            State::Leaving { .. } => 2,
            State::Loading => 1,
            State::Ending => 0,
        };
        let alive = self.pools.iter().filter(same).filter(|pool| pool.state != State::Ending);
        alive.max_by_key(rank).map(|pool| pool.id)
    }

    /// All pools: those that new sessions get in the models' order, each with the one that is to replace it; then the others.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolId> {
        let mut ids = Vec::new();
        for name in &self.names {
            ids.extend(self.with(name, State::Current));
            ids.extend(self.with(name, State::Loading));
        }
        let others: Vec<PoolId> =
            self.pools.iter().map(|pool| pool.id).filter(|id| !ids.contains(id)).collect();
        ids.extend(others);
        ids
    }

    /// What a pool is started with.
    #[must_use]
    pub fn offer(&self, pool: PoolId) -> Option<&O> {
        self.get(pool).map(|pool| &pool.offer)
    }

    /// What a pool is there for.
    #[must_use]
    pub fn stage(&self, pool: PoolId) -> Option<Stage> {
        self.get(pool).map(|pool| match pool.state {
            State::Loading => Stage::Loading,
            State::Current => Stage::Current,
            State::Leaving { .. } => Stage::Leaving,
            State::Ending => Stage::Ending,
        })
    }

    /// Whether sessions rest on a pool: without it, the node can't keep what it promised them.
    #[must_use]
    pub fn is_needed(&self, pool: PoolId) -> bool {
        self.get(pool).is_some_and(|pool| match pool.state {
            State::Current => true,
            State::Loading | State::Leaving { .. } => pool.claimed,
            State::Ending => false,
        })
    }

    /// Checks what must hold after every event (I6: a bound on pools; I9: nobody's pool is ended). For tests and debug builds.
    ///
    /// # Errors
    /// A sentence that names what is broken.
    pub fn check(&self) -> Result<(), String> {
        if let Some(name) = self.names().find(|name| self.find(Some(name)).is_none()) {
            return Err(format!("{name} is served and has no pool"));
        }
        for pool in &self.pools {
            let name = pool.offer.name();
            let alike = |state: State| {
                let same = |other: &&Pool<O>| other.offer.name() == name && other.state == state;
                self.pools.iter().filter(same).count()
            };
            if alike(State::Current) > 1 || alike(State::Loading) > 1 {
                return Err(format!("{name} has two pools for new sessions, or two that replace them"));
            }
            let served = self.names().any(|served| served == name);
            if !served && matches!(pool.state, State::Current | State::Loading) {
                return Err(format!("{name} is not served and has {:?}", pool.id));
            }
            if pool.claimed && pool.state == State::Ending {
                return Err(format!("I9: {:?} of {name} ends under a claim", pool.id));
            }
            if self.count(name) > MOST_POOLS {
                return Err(format!("I6: {name} has {} pools, {MOST_POOLS} at most", self.count(name)));
            }
        }
        Ok(())
    }

    fn named(&mut self, now: Timestamp, offers: Vec<O>, out: &mut Vec<LineupAction>) {
        let gone: Vec<String> = self.names.clone();
        let gone = gone.into_iter().filter(|name| !offers.iter().any(|offer| offer.name() == name));
        for name in gone {
            self.retire(now, &name, out);
        }
        let order: Vec<String> = offers.iter().map(|offer| offer.name().to_owned()).collect();
        for offer in offers {
            self.offered(now, offer, out);
        }
        // All are served now; a stable sort brings them into the order that was asked for.
        self.names.sort_by_key(|name| order.iter().position(|wanted| wanted == name));
    }

    fn retire(&mut self, now: Timestamp, name: &str, out: &mut Vec<LineupAction>) {
        self.names.retain(|served| served != name);
        let pool = self.with(name, State::Current).or_else(|| self.with(name, State::Loading));
        if let Some(pool) = pool {
            out.push(LineupAction::Changed { pool, change: Change::Retired });
        }
        for state in [State::Current, State::Loading] {
            if let Some(pool) = self.with(name, state) {
                self.leave(now, pool, out);
            }
        }
    }

    fn offered(&mut self, now: Timestamp, offer: O, out: &mut Vec<LineupAction>) {
        let name = offer.name().to_owned();
        let (current, loading) = (self.with(&name, State::Current), self.with(&name, State::Loading));
        let known = self.pools.iter().rev().find(|pool| pool.offer == offer && pool.state != State::Ending);
        let known = known.map(|pool| (pool.id, pool.state));
        let (pool, change) = match known {
            Some((id, State::Loading)) => (id, Change::Unchanged),
            Some((id, State::Current)) => {
                if let Some(loading) = loading {
                    self.leave(now, loading, out);
                }
                (id, if loading.is_some() { Change::Restored } else { Change::Unchanged })
            }
            Some((id, _)) => {
                if let Some(loading) = loading {
                    self.leave(now, loading, out);
                }
                self.set(id, State::Loading);
                if self.get(id).is_some_and(|pool| pool.proved) {
                    self.ready(now, id, out);
                }
                (id, Change::Restored)
            }
            None if self.count(&name) >= MOST_POOLS => {
                let blamed = current.or(loading).or_else(|| self.last_of(&name));
                out.extend(blamed.map(|pool| LineupAction::Changed { pool, change: Change::Refused }));
                return;
            }
            None => {
                if let Some(loading) = loading {
                    self.leave(now, loading, out);
                }
                let replaced = current.or(loading).is_some();
                let id = self.start(offer, State::Loading, out);
                (id, if replaced { Change::Replacing } else { Change::Added })
            }
        };
        if !self.names().any(|served| served == name) {
            self.names.push(name);
        }
        out.push(LineupAction::Changed { pool, change });
    }

    fn ready(&mut self, now: Timestamp, id: PoolId, out: &mut Vec<LineupAction>) {
        let Some(pool) = self.pools.iter_mut().find(|pool| pool.id == id) else { return };
        pool.proved = true;
        if pool.state != State::Loading {
            return;
        }
        let name = pool.offer.name().to_owned();
        if let Some(replaced) = self.with(&name, State::Current) {
            self.leave(now, replaced, out);
        }
        self.set(id, State::Current);
    }

    fn claimed(&mut self, now: Timestamp, claimed: &[PoolId]) {
        for pool in &mut self.pools {
            pool.claimed = claimed.contains(&pool.id);
            if let State::Leaving { since } = &mut pool.state {
                *since = if pool.claimed { None } else { since.or(Some(now)) };
            }
        }
    }

    fn ended(&mut self, id: PoolId) {
        self.pools.retain(|pool| pool.id != id);
        let pools = &self.pools;
        self.names.retain(|name| {
            let serves = |pool: &Pool<O>| matches!(pool.state, State::Current | State::Loading);
            pools.iter().any(|pool| pool.offer.name() == name && serves(pool))
        });
    }

    fn leave(&mut self, now: Timestamp, id: PoolId, out: &mut Vec<LineupAction>) {
        let Some(pool) = self.get(id) else { return };
        if pool.state == State::Loading && !pool.claimed {
            // Nobody ever got it, here or elsewhere.
            self.end(id, out);
        } else {
            let since = (!pool.claimed).then_some(now);
            self.set(id, State::Leaving { since });
        }
    }

    fn expire(&mut self, now: Timestamp, out: &mut Vec<LineupAction>) {
        let kept = self.config.keep;
        let over = |pool: &Pool<O>| match pool.state {
            State::Leaving { since: Some(since) } => now >= since.plus(kept),
            _ => false,
        };
        let over: Vec<PoolId> = self.pools.iter().filter(|pool| over(pool)).map(|pool| pool.id).collect();
        for pool in over {
            self.end(pool, out);
        }
    }

    fn end(&mut self, id: PoolId, out: &mut Vec<LineupAction>) {
        self.set(id, State::Ending);
        out.push(LineupAction::End { pool: id });
    }

    fn start(&mut self, offer: O, state: State, out: &mut Vec<LineupAction>) -> PoolId {
        let id = self.next;
        self.next = PoolId(id.0 + 1);
        self.pools.push(Pool { id, offer, state, proved: false, claimed: false });
        out.push(LineupAction::Start { pool: id });
        id
    }

    fn set(&mut self, id: PoolId, state: State) {
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.id == id) {
            pool.state = state;
        }
    }

    fn get(&self, id: PoolId) -> Option<&Pool<O>> {
        self.pools.iter().find(|pool| pool.id == id)
    }

    fn with(&self, name: &str, state: State) -> Option<PoolId> {
        let found = self.pools.iter().find(|pool| pool.offer.name() == name && pool.state == state);
        found.map(|pool| pool.id)
    }

    fn last_of(&self, name: &str) -> Option<PoolId> {
        self.pools.iter().rev().find(|pool| pool.offer.name() == name).map(|pool| pool.id)
    }

    fn count(&self, name: &str) -> usize {
        self.pools.iter().filter(|pool| pool.offer.name() == name).count()
    }
}

#[cfg(test)]
mod tests;
