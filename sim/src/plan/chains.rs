//! Faults that follow one another so closely that drawing each for itself would seldom bring it about.

use super::{Fault, Kind, Place, Plan, Speaks};
use crate::rng::Rng;

/// The time of one block of speech.
const BLOCK_MS: u64 = 100;

/// What a request takes to reach its node at most, and what a node's answer takes.
const ON_ITS_WAY_MS: u64 = 20;

/// Longer than a client looks for somebody who has the audio that is lost otherwise: three rounds, in each of which one that it does
/// not reach costs it two seconds.
const UNTIL_A_GAP_MS: u64 = 14_000;

/// When a client that hears nothing goes elsewhere, after the last that it heard.
const NOTICED_MS: u64 = 2_950;

/// Blocks of an utterance that is not over before a client has noticed that it is heard no more.
const LONG_BLOCKS: u32 = 60;

/// Blocks of audio that a client with a small memory holds: less than a long utterance.
const SMALL_RING_BLOCKS: u64 = 8;

impl Plan {
    /// A client asks for a final and the decoder stands still; before there is another, the copy is lost and made anew on the
    /// third node, and then the owner is lost. What was asked for is in the new copy alone: nobody says it again.
    pub(super) fn chase(&mut self, rng: &mut Rng) -> Option<Vec<Fault>> {
        let index = self.any_native(rng)?;
        let client = &mut self.clients[index];
        let asked = rng.below(client.utterances.len() as u64) as usize;
        if !client.finalizes.contains(&asked) {
            client.finalizes.push(asked);
            client.finalizes.sort_unstable();
        }
        // The words of the one that is asked for, too.
        let before = client.utterances[..asked].iter().map(|(words, silence)| words + silence).sum::<u32>();
        let blocks = u64::from(before + client.utterances[asked].0);
        let asks = client.start_ms + (blocks + 1) * BLOCK_MS + ON_ITS_WAY_MS;
        let (owner, keeper, _) = self.parts(index, rng);
        let held =
            fault(rng.pick(&[Kind::Freeze, Kind::Hang]), owner, asks.saturating_sub(rng.below(250)), 0);
        let lost = fault(Kind::Crash, keeper, asks + rng.below(200), rng.between(2_000, 4_000));
        let crash = fault(Kind::Crash, owner, lost.at_ms + rng.between(80, 500), rng.between(2_000, 4_000));
        self.one_copy();
        Some(vec![held, lost, crash])
    }

    /// An owner and a keeper are cut from each other, so that another copy is made and the first grows old; then the owner is lost,
    /// and the client, which holds little of what it said, does not reach the better copy but by way of the older.
    pub(super) fn part(&mut self, rng: &mut Rng) -> Option<Vec<Fault>> {
        let index = self.any_native(rng)?;
        let client = &mut self.clients[index];
        client.ring_blocks = SMALL_RING_BLOCKS;
        client
            .utterances
            .iter_mut()
            .for_each(|(words, _)| *words = (*words).max(SMALL_RING_BLOCKS as u32 + 8));
        let from = client.start_ms + rng.between(300, 1_500);
        let (owner, old, new) = self.parts(index, rng);
        let length = rng.between(3_000, 4_500);
        let mut cut = fault(Kind::Cut, owner, from, length);
        cut.other = Some(Place::Node(old));
        let lost_at = from + length - 300 + rng.below(1_100);
        let crash = fault(Kind::Crash, owner, lost_at, UNTIL_A_GAP_MS);
        let mut apart = fault(Kind::Cut, new, lost_at - 200, UNTIL_A_GAP_MS + 200);
        apart.other = Some(Place::Client(index));
        self.one_copy();
        Some(vec![cut, apart, crash])
    }

    /// A client does not reach its owner any more and goes on elsewhere; then the node is lost that it went to, about when that
    /// one makes a copy of its own. The client holds little of what it said, and the first owner had all of it.
    pub(super) fn follow(&mut self, rng: &mut Rng) -> Option<Vec<Fault>> {
        let index = self.any_native(rng)?;
        let client = &mut self.clients[index];
        client.ring_blocks = SMALL_RING_BLOCKS;
        client.utterances.iter_mut().for_each(|(words, _)| *words = (*words).max(LONG_BLOCKS));
        let from = client.start_ms + rng.between(1_500, 3_000);
        let (owner, next, _) = self.parts(index, rng);
        let mut cut = fault(Kind::Cut, owner, from, UNTIL_A_GAP_MS);
        cut.other = Some(Place::Client(index));
        let lost_at = from + NOTICED_MS + rng.below(250);
        self.one_copy();
        Some(vec![cut, fault(Kind::Crash, next, lost_at, rng.between(2_000, 4_000))])
    }

    fn any_native(&self, rng: &mut Rng) -> Option<usize> {
        let native = |index: &usize| self.clients[*index].speaks == Speaks::Native;
        let all: Vec<usize> = (0..self.clients.len()).filter(native).collect();
        (!all.is_empty()).then(|| rng.pick(&all))
    }

    /// A client's owner, and the others in any order: one of them keeps its copy, and which one no plan can tell.
    fn parts(&self, client: usize, rng: &mut Rng) -> (usize, usize, usize) {
        let (owner, nodes) = (self.clients[client].home, self.nodes.len());
        let turn = rng.between(1, nodes as u64 - 1) as usize;
        (owner, (owner + turn) % nodes, (owner + nodes - turn) % nodes)
    }

    fn one_copy(&mut self) {
        (self.copies, self.standby) = (1, false);
    }
}

const fn fault(kind: Kind, node: usize, at_ms: u64, for_ms: u64) -> Fault {
    Fault { kind, place: Place::Node(node), other: None, amount: 0, at_ms, for_ms }
}
