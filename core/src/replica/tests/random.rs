//! A keeper of many sessions against a list of promises, and a copy against lists of what it was told, in any order.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use starling_protocol::replica::{Commit, CopyStart, EntryKind, ToReplica, View};
use starling_protocol::{Attempt, DecodeOffset, Epoch, Segment, SessionId, SourceOffset};

use super::owner::{facts, final_of};
use crate::Timestamp;
use crate::replica::{
    KeeperAction, KeeperConfig, KeeperEvent, KeeperMachine, PromoteAnswer, Refusal, SessionCopy, Shape,
    StreamId,
};

const CONFIG: KeeperConfig =
    KeeperConfig { max_bytes: 1_000, max_sessions: 3, remember: Duration::from_secs(60) };

#[derive(Debug, Clone, Copy)]
enum Move {
    Open { session: u8, epoch: u64 },
    Apply { stream: u8, bytes: u64, whole: bool, over: bool, raise: u64 },
    Unfit(u8),
    Close(u8),
    Offer { session: u8, bytes: u64, epoch: u64 },
    Promote { session: u8, epoch: u64 },
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (0u8..5, 1u64..6).prop_map(|(session, epoch)| Move::Open { session, epoch }),
        6 => (any::<u8>(), 0u64..600, any::<bool>(), proptest::bool::weighted(0.1), 0u64..3).prop_map(
            |(stream, bytes, whole, over, raise)| Move::Apply { stream, bytes, whole, over, raise }
        ),
        1 => any::<u8>().prop_map(Move::Unfit),
        2 => any::<u8>().prop_map(Move::Close),
        1 => (0u8..5, 0u64..600, 1u64..6).prop_map(|(session, bytes, epoch)| Move::Offer { session, bytes, epoch }),
        3 => (0u8..5, 1u64..8).prop_map(|(session, epoch)| Move::Promote { session, epoch }),
        2 => (0u64..100).prop_map(Move::Wait),
    ];
    proptest::collection::vec(one, 0..150)
}

fn id(session: u8) -> SessionId {
    SessionId::parse(&format!("{session:032x}")).expect("an id")
}

fn shape(epoch: u64, bytes: u64, whole: bool) -> Shape {
    Shape {
        epoch: Epoch(epoch),
        view: View(1),
        next_segment: Segment(0),
        audio_end: SourceOffset(bytes),
        bytes,
        whole,
        keep: Duration::from_secs(90),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// I5 and I6: an epoch is promised once and kept for as long as it is remembered, one stream of a session is obeyed at a time
    /// and none of a lower epoch, and what is kept has its bounds.
    #[test]
    fn promises_are_kept_and_memory_is_bounded(moves in moves()) {
        let mut machine = KeeperMachine::new(CONFIG);
        let mut now = Timestamp::default();
        // Streams that are open, with whose they are and the highest epoch that was said on each.
        let mut streams: BTreeMap<StreamId, (u8, u64)> = BTreeMap::new();
        let mut opened = 0;
        for step in moves {
            let promised: Vec<Option<Epoch>> = (0..5).map(|session| machine.obeyed(id(session))).collect();
            let pick = |which: u8| {
                streams.iter().nth(usize::from(which) % streams.len().max(1)).map(|(stream, of)| (*stream, *of))
            };
            let mut out = Vec::new();
            let mut forgets = false;
            match step {
                Move::Open { session, epoch } => {
                    opened += 1;
                    let stream = StreamId(opened);
                    machine.handle(now, KeeperEvent::Opened { stream, session: id(session), epoch: Epoch(epoch) }, &mut out);
                    let obeyed = promised[usize::from(session)].map_or(0, |obeyed| obeyed.0);
                    match out.last() {
                        Some(KeeperAction::Accept { .. }) => {
                            prop_assert!(epoch >= obeyed, "I5: epoch {} was taken after {}", epoch, obeyed);
                            streams.insert(stream, (session, epoch));
                        }
                        Some(KeeperAction::Refuse { refusal: Refusal::Fenced { epoch: by }, .. }) => {
                            prop_assert!(epoch < obeyed && by.0 == obeyed);
                        }
                        Some(KeeperAction::Refuse { refusal: Refusal::Full, .. }) => forgets = true,
                        other => prop_assert!(false, "unanswered: {:?}", other),
                    }
                    // One of which only an epoch was left may have made room.
                    forgets |= promised[usize::from(session)].is_none();
                }
                Move::Apply { stream, bytes, whole, over, raise } => {
                    let Some((stream, (session, epoch))) = pick(stream) else { continue };
                    let epoch = epoch + raise;
                    streams.insert(stream, (session, epoch));
                    machine.handle(now, KeeperEvent::Applied { stream, shape: shape(epoch, bytes, whole), over }, &mut out);
                }
                Move::Unfit(stream) => {
                    let Some((stream, _)) = pick(stream) else { continue };
                    machine.handle(now, KeeperEvent::Unfit { stream }, &mut out);
                }
                Move::Close(stream) => {
                    let Some((stream, _)) = pick(stream) else { continue };
                    machine.handle(now, KeeperEvent::Closed { stream }, &mut out);
                    streams.remove(&stream);
                }
                Move::Offer { session, bytes, epoch } => {
                    let (before, offered) = (machine.held(id(session)), shape(epoch, bytes, true));
                    machine.handle(now, KeeperEvent::Offered { session: id(session), shape: offered }, &mut out);
                    let after = machine.held(id(session));
                    prop_assert!(after >= before, "a copy made way for a worse one: {:?}, {:?}", before, after);
                    let adopted = out.contains(&KeeperAction::Adopt { session: id(session) });
                    prop_assert_eq!(adopted, after != before, "what is kept is what is told of");
                    // One of which only an epoch was left may have made room.
                    forgets = promised[usize::from(session)].is_none();
                }
                Move::Promote { session, epoch } => {
                    machine.handle(now, KeeperEvent::Promote { session: id(session), epoch: Epoch(epoch) }, &mut out);
                    let obeyed = promised[usize::from(session)].map_or(0, |obeyed| obeyed.0);
                    let answer = out.iter().find_map(|action| match action {
                        KeeperAction::Answer(answer) => Some(*answer),
                        _ => None,
                    });
                    let fenced = answer == Some(PromoteAnswer::Fenced { epoch: Epoch(obeyed) });
                    prop_assert_eq!(fenced, epoch <= obeyed, "I5: an epoch speaks once: {:?}", answer);
                    forgets = promised[usize::from(session)].is_none();
                }
                Move::Wait(seconds) => {
                    now = now.plus(Duration::from_secs(seconds));
                    machine.handle(now, KeeperEvent::TimedOut, &mut out);
                    forgets = true;
                    prop_assert!(machine.next_timeout().is_none_or(|at| at > now), "nothing is kept beyond its time");
                }
            }
            for action in out {
                if let KeeperAction::Cut { stream, .. } = action {
                    prop_assert!(streams.remove(&stream).is_some(), "a stream is cut once");
                }
            }
            prop_assert_eq!(machine.check(), Ok(()));
            for (session, before) in (0..5u8).zip(promised) {
                let after = machine.obeyed(id(session));
                prop_assert!(after >= before || (forgets && after.is_none()), "I5: {:?} after {:?}", after, before);
                let obeyed = streams.iter().filter(|(stream, of)| of.0 == session && machine.obeys(**stream)).count();
                prop_assert!(obeyed <= 1, "two owners are obeyed");
            }
            let open = streams.keys().filter(|stream| machine.obeys(**stream)).count();
            prop_assert_eq!(open, streams.len(), "each stream that was not cut is obeyed");
        }
        // I10: when nobody writes any more all is let go in time.
        for stream in streams.into_keys() {
            machine.handle(now, KeeperEvent::Closed { stream }, &mut Vec::new());
        }
        while let Some(at) = machine.next_timeout() {
            machine.handle(at, KeeperEvent::TimedOut, &mut Vec::new());
        }
        prop_assert_eq!(machine, KeeperMachine::new(CONFIG));
    }
}

#[derive(Debug, Clone, Copy)]
enum Told {
    Kept(u64),
    Audio { from: u64, frames: u64 },
    Entry { at: u64, end: bool },
    Whole,
    Commit { segment: u64, from: u64, length: u64, answered: bool },
    Confirmed(u64),
    Epoch(u64),
    View(u64),
    Over,
}

/// What a message says of the session's attempts.
fn attempt_of(message: &ToReplica) -> Attempt {
    match message {
        ToReplica::Audio { attempt, .. } => *attempt,
        ToReplica::Commit(commit) => commit.attempt,
        _ => Attempt(0),
    }
}

fn told() -> impl Strategy<Value = Vec<(bool, Told)>> {
    let one = prop_oneof![
        2 => (0u64..4).prop_map(Told::Kept),
        6 => (0u64..300, 1u64..60).prop_map(|(from, frames)| Told::Audio { from, frames }),
        2 => (0u64..300, proptest::bool::weighted(0.2)).prop_map(|(at, end)| Told::Entry { at, end }),
        2 => Just(Told::Whole),
        4 => (0u64..5, 0u64..200, 0u64..60, any::<bool>())
            .prop_map(|(segment, from, length, answered)| Told::Commit { segment, from, length, answered }),
        2 => (0u64..6).prop_map(Told::Confirmed),
        1 => (0u64..9).prop_map(Told::Epoch),
        1 => (0u64..9).prop_map(Told::View),
        1 => Just(Told::Over),
    ];
    // Mostly what fits, so that something comes of it.
    proptest::collection::vec((proptest::bool::weighted(0.8), one), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// I1: what does not adjoin is refused and changes nothing; what was taken is what a list of it says; and the copy that is read
    /// out is the copy.
    #[test]
    fn a_copy_is_what_it_was_told(kept in 0u64..3, told in told()) {
        let start = CopyStart {
            facts: facts(),
            epoch: Epoch(1),
            view: View(1),
            confirmed: Segment(0),
            next_segment: Segment(kept),
            final_end: SourceOffset(kept * 10),
            committed: DecodeOffset(kept * 10),
            audio_from: SourceOffset(kept * 10),
            ended: false,
            recent: Vec::new(),
            attempt: Attempt(0),
        };
        let mut copy = SessionCopy::begin(start);
        let (mut end, mut next, mut final_end) = (kept * 10, kept, kept * 10);
        let (mut finals, mut confirmed, mut entries) = (Vec::new(), 0u64, 0usize);
        for (fits, told) in told {
            let message = match told {
                Told::Kept(segment) => {
                    let segment = if fits { confirmed + finals.len() as u64 } else { segment };
                    ToReplica::Kept(Box::new(final_of(segment, segment * 10, segment * 10 + 10)))
                }
                Told::Audio { from, frames } => ToReplica::Audio {
                    from: SourceOffset(if fits { end } else { from }),
                    pcm: vec![7; frames as usize * 2],
                    attempt: Attempt(frames as u32 % 5),
                },
                Told::Entry { at, end: last } => ToReplica::Entry {
                    at: DecodeOffset(if fits { end } else { at }),
                    kind: if last { EntryKind::End } else { EntryKind::Finalize },
                },
                Told::Whole => ToReplica::Whole,
                Told::Commit { segment, from, length, answered } => {
                    let (segment, from) = if fits { (next, final_end) } else { (segment, from) };
                    let to = if fits { (from + length).min(end).max(from) } else { from + length };
                    ToReplica::Commit(Box::new(Commit {
                        last: final_of(segment, from, to),
                        to: DecodeOffset(to),
                        answered: answered && fits && entries > 0,
                        needed_from: SourceOffset(to),
                        times: None,
                        attempt: Attempt(length as u32 % 7),
                    }))
                }
                Told::Confirmed(through) => ToReplica::Confirmed { through: Segment(through) },
                Told::Epoch(epoch) => ToReplica::Epoch { epoch: Epoch(epoch) },
                Told::View(view) => ToReplica::View { view: View(view) },
                Told::Over => ToReplica::Over,
            };
            let before = copy.clone();
            if copy.apply(message.clone()).is_err() {
                prop_assert_eq!(&copy, &before, "what is refused changes nothing");
                continue;
            }
            prop_assert!(!before.is_over(), "nothing follows the end");
            let (said, known) = (attempt_of(&message), before.start().attempt);
            prop_assert_eq!(copy.start().attempt, known.max(said), "the last attempt is known");
            match message {
                ToReplica::Audio { from, pcm, .. } => {
                    prop_assert_eq!(from.0, end);
                    end += pcm.len() as u64 / 2;
                }
                ToReplica::Kept(last) => finals.push(last.segment.0),
                ToReplica::Entry { .. } => entries += 1,
                ToReplica::Commit(commit) => {
                    prop_assert_eq!((commit.last.segment.0, commit.last.from.0), (next, final_end), "I1");
                    finals.push(next);
                    (next, final_end) = (next + 1, commit.last.to.0);
                    entries -= usize::from(commit.answered);
                }
                ToReplica::Confirmed { through } => {
                    finals.retain(|segment| *segment > through.0);
                    confirmed = confirmed.max((through.0 + 1).min(next));
                }
                _ => {}
            }
            prop_assert!(copy.epoch() >= before.epoch() && copy.view() >= before.view(), "I5");
            prop_assert_eq!((copy.next_segment().0, copy.audio_end().0), (next, end));
            prop_assert_eq!((copy.start().final_end.0, copy.start().confirmed.0), (final_end, confirmed));
            if copy.is_whole() && !copy.is_over() {
                let read = copy.messages().fold(None, |made: Option<SessionCopy>, message| match (made, message) {
                    (None, ToReplica::Begin(start)) => Some(SessionCopy::begin(*start)),
                    (made, message) => made.and_then(|mut made| made.apply(message).map(|()| made).ok()),
                });
                prop_assert_eq!(read.as_ref(), Some(&copy), "a copy that is read is the copy");
            }
            let (_, held, audio, waiting) = copy.clone().into_parts();
            prop_assert_eq!(held.iter().map(|last| last.segment.0).collect::<Vec<_>>(), finals.clone());
            prop_assert_eq!((audio.end().0, waiting.len()), (end, entries));
        }
    }
}
