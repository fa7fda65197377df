//! The membership protocol without its socket: bytes and times in, bytes and changes out.

use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foca::{AccumulatingRuntime, Config, Foca, Incarnation, OwnedNotification, PeriodicParams, State, Timer};
use rand::SeedableRng;
use rand::rngs::StdRng;
use starling_core::Timestamp;
use starling_core::sabotage::{Bug, is};
use starling_protocol::NodeId;
use starling_protocol::gossip::packet::MAX_GOSSIP_BYTES;
use starling_protocol::gossip::{LoadEncodeError, LoadRecord};

use super::arguments::{LoadReport, MembershipTimings};
use super::peer::{Peer, PeerCodec};
use super::probes::{ProbeClock, Probes};
use super::records::Records;
use super::roster::Roster;
use super::timers::Timers;
use super::view::{ClusterChange, ClusterView};

/// Members that are asked to probe another one, and that a piece of news goes to at once.
const FAN_OUT: NonZeroUsize = NonZeroUsize::new(3).expect("not zero");

/// How often each node passes a piece of news on. Enough for a few hundred nodes.
const TRANSMISSIONS: NonZeroU8 = NonZeroU8::new(10).expect("not zero");

/// How often news is passed on beside the probes, which alone would take a second for a handful of nodes.
const GOSSIP_EVERY: Duration = Duration::from_millis(200);

/// How often a random member is asked for everybody it knows.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// How often nodes that were given up are asked whether they are back: what heals a parted network.
const ASK_DOWN_EVERY: Duration = Duration::from_secs(5);

/// How long a node that is gone is remembered, for people to see and for healing.
const REMEMBER_DOWN: Duration = Duration::from_secs(600);

/// What a node says of itself is said anew this often even if nothing changed: broadcasts may all have been lost.
const REFRESH: Duration = Duration::from_secs(5);

/// Something to be sent.
pub(crate) type Outgoing = (SocketAddr, Bytes);

pub(crate) struct Swim {
    foca: Foca<Peer, PeerCodec, StdRng, Records>,
    timings: MembershipTimings,
    random: StdRng,
    runtime: AccumulatingRuntime<Peer>,
    timers: Timers<Timer<Peer>>,
    records: Records,
    roster: Roster,
    me: NodeId,
    address: SocketAddr,
    report: LoadReport,
    revision: u64,
    leaving: bool,
    said_at: Timestamp,
    said: Option<(Arc<LoadRecord>, Vec<u8>)>,
    said_anew: bool,
    models_omitted: u16,
    probes: Probes,
    probe_clock: ProbeClock,
}

/// What came of an event.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) changes: Vec<ClusterChange>,
    /// The view is another one.
    pub(super) different: bool,
    /// The last member was lost, or we must make ourselves known anew.
    pub(super) announce: bool,
    /// How long a probe's answer took, if one came.
    pub(super) answered: Option<Duration>,
}

impl Swim {
    pub(crate) fn new(
        me: NodeId,
        address: SocketAddr,
        timings: MembershipTimings,
        report: LoadReport,
        mut random: StdRng,
    ) -> Self {
        let peer = Peer::new(me.clone(), address);
        let records = Records::default();
        let probes = Probes::default();
        let codec = PeerCodec { me: peer.clone(), probes: probes.clone() };
        let rng = StdRng::from_rng(&mut random);
        let foca = Foca::with_custom_broadcast(peer, config(timings), rng, codec, records.clone());
        Self {
            foca,
            timings,
            random,
            runtime: AccumulatingRuntime::new(),
            timers: Timers::new(),
            records,
            roster: Roster::new(me.clone(), address),
            me,
            address,
            report,
            revision: 0,
            leaving: false,
            said_at: Timestamp::default(),
            said: None,
            said_anew: false,
            models_omitted: 0,
            probes,
            probe_clock: ProbeClock::default(),
        }
    }

    /// This run of this node.
    pub(super) const fn node(&self) -> &NodeId {
        &self.me
    }

    /// Bytes of another member.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Result<(), foca::Error> {
        self.foca.handle_data(bytes, &mut self.runtime)
    }

    /// Runs one timer that is due; false when none is.
    pub(crate) fn run_timer(&mut self, now: Timestamp) -> bool {
        let Some(timer) = self.timers.pop(now) else { return false };
        if let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer
            && !self.is_suspect(member_id, *incarnation)
        {
            // The library would leave it a member and tell it all the same that it was given up.
            return true;
        }
        if let Err(error) = self.foca.handle_timer(timer, &mut self.runtime) {
            tracing::debug!(%error, "a timer of the membership protocol failed");
        }
        true
    }

    /// Whether a member is still the suspect that it was.
    fn is_suspect(&self, peer: &Peer, incarnation: Incarnation) -> bool {
        let mut members = self.foca.iter_members();
        members.any(|member| {
            member.id() == peer && member.incarnation() == incarnation && member.state() == State::Suspect
        })
    }

    pub(super) fn next_timer(&self) -> Option<Timestamp> {
        self.timers.next_at()
    }

    /// Makes ourselves known at these addresses, unless a member is there.
    pub(crate) fn announce(&mut self, addresses: &[SocketAddr]) {
        let known: Vec<SocketAddr> =
            self.foca.iter_members().map(|member| member.id().address).chain([self.address]).collect();
        for address in addresses.iter().filter(|address| !known.contains(address)) {
            if let Err(error) = self.foca.announce(Peer::anybody_at(*address), &mut self.runtime) {
                tracing::debug!(%error, %address, "cannot announce");
            }
        }
    }

    /// Where nodes were that are gone: for one that is alone, as good as seeds.
    pub(super) fn last_known_addresses(&self) -> Vec<SocketAddr> {
        self.roster.others().map(|member| member.address).collect()
    }

    pub(super) fn is_alone(&self) -> bool {
        self.foca.num_members() == 0
    }

    /// Says what there is to say of this node, if it is new or was long not said.
    pub(crate) fn say(&mut self, now: Timestamp, report: Option<LoadReport>) -> Result<(), LoadEncodeError> {
        let news = report.as_ref().is_some_and(|report| *report != self.report);
        if let Some(report) = report {
            self.report = report;
        }
        let is_fresh = now.since(self.said_at) < REFRESH || is(Bug::LoadNotSaidAgain);
        if self.said.is_some() && !news && is_fresh {
            return Ok(());
        }
        let was_draining = self.said.as_ref().is_some_and(|(said, _)| said.draining);
        self.say_now(now)?;
        if self.report.draining != was_draining {
            self.spread();
        }
        Ok(())
    }

    fn say_now(&mut self, now: Timestamp) -> Result<(), LoadEncodeError> {
        self.revision += 1;
        let mut record = self.report.record(&self.me, self.revision, self.leaving);
        let bytes = record.encode_what_fits()?;
        if record.models_omitted > 0 && record.models_omitted != self.models_omitted {
            tracing::warn!(
                omitted = record.models_omitted,
                "this node serves more models than it can tell the others of"
            );
        }
        self.models_omitted = record.models_omitted;
        self.said_at = now;
        self.said = Some((Arc::new(record), bytes));
        self.said_anew = true;
        // A record may come before its member is known; one that still has none by now is of a node that is gone.
        let (roster, me) = (&self.roster, &self.me);
        self.records.retain(|name| *name == me.name || roster.knows(name));
        self.repeat();
        Ok(())
    }

    /// Says again what was said last, for somebody who was not there.
    fn repeat(&mut self) {
        if let Some((_, bytes)) = &self.said
            && let Err(error) = self.foca.add_broadcast(bytes)
        {
            tracing::warn!(%error, "the load record cannot be gossiped");
        }
    }

    /// Passes news on now rather than with the next probe.
    pub(super) fn spread(&mut self) {
        if let Err(error) = self.foca.gossip(&mut self.runtime) {
            tracing::debug!(%error, "cannot gossip");
        }
    }

    /// Says goodbye.
    pub(super) fn leave(&mut self, now: Timestamp) {
        self.leaving = true;
        if let Err(error) = self.say_now(now) {
            tracing::debug!(%error, "leaving without a word");
        }
        if let Err(error) = self.foca.leave_cluster(&mut self.runtime) {
            tracing::debug!(%error, "cannot leave in good order");
        }
    }

    /// What is to be sent.
    pub(crate) fn take_outgoing(&mut self) -> Option<Outgoing> {
        self.runtime.to_send().map(|(peer, bytes)| (peer.address, bytes))
    }

    /// Takes stock after an event.
    pub(crate) fn settle(&mut self, now: Timestamp) -> Outcome {
        let answered = self.probe_clock.take(now, self.probes.take());
        let mut outcome = Outcome { answered, ..Outcome::default() };
        let (mut somebody_came, mut was_given_up) = (false, false);
        while let Some(notification) = self.runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(_) => somebody_came = true,
                OwnedNotification::Idle => outcome.announce = true,
                OwnedNotification::Rejoin(_) => {
                    outcome.announce = true;
                    was_given_up = true;
                    outcome.changes.push(ClusterChange::DeclaredDown);
                }
                _ => {}
            }
        }
        if was_given_up {
            self.begin_anew();
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timers.add(now.plus(after), timer);
        }
        if somebody_came && !is(Bug::LoadNotSaidAgain) {
            self.repeat();
        }
        let peers = self.foca.iter_membership_state().map(|member| (member.id(), member.state()));
        outcome.different = self.roster.update(peers, &self.records, &mut outcome.changes);
        outcome.different |= std::mem::take(&mut self.said_anew);
        outcome
    }

    /// Keeps the members that are there, and forgets whom it has given up itself. Whoever was given up may have been the one that
    /// was cut off; what it believed of the others meanwhile, it is not to tell to those who can hear each other.
    fn begin_anew(&mut self) {
        let there: Vec<_> = self.foca.iter_members().cloned().collect();
        // They are the former one's.
        self.timers = Timers::new();
        while self.runtime.to_schedule().is_some() {}
        let codec = PeerCodec { me: Peer::new(self.me.clone(), self.address), probes: self.probes.clone() };
        self.foca = Foca::with_custom_broadcast(
            self.foca.identity().clone(),
            config(self.timings),
            StdRng::from_rng(&mut self.random),
            codec,
            self.records.clone(),
        );
        if let Err(error) = self.foca.apply_many(there.into_iter(), false, &mut self.runtime) {
            tracing::debug!(%error, "members are forgotten");
        }
        self.repeat();
        self.spread();
    }

    pub(crate) fn view(&self) -> ClusterView {
        self.roster.view(self.said.as_ref().map(|(record, _)| Arc::clone(record)))
    }
}

fn config(timings: MembershipTimings) -> Config {
    let every = |frequency, members| {
        Some(PeriodicParams {
            frequency,
            num_members: NonZeroUsize::new(members).unwrap_or(NonZeroUsize::MIN),
        })
    };
    Config {
        probe_period: timings.probe,
        // The rest of the period is for others to try.
        probe_rtt: timings.probe * 2 / 5,
        num_indirect_probes: FAN_OUT,
        max_transmissions: TRANSMISSIONS,
        suspect_to_down_after: timings.suspicion,
        remove_down_after: Some(REMEMBER_DOWN),
        max_packet_size: NonZeroUsize::new(MAX_GOSSIP_BYTES).unwrap_or(NonZeroUsize::MIN),
        notify_down_members: true,
        periodic_announce: every(ASK_EVERY, 1),
        periodic_announce_to_down_members: every(ASK_DOWN_EVERY, 2),
        periodic_gossip: every(GOSSIP_EVERY, FAN_OUT.get()),
    }
}

#[cfg(test)]
mod tests;
