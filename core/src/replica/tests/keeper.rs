//! The keeper's rules, one by one.

use std::time::Duration;

use starling_protocol::replica::{CopyStart, EntryKind, ToReplica, View};
use starling_protocol::{Attempt, DecodeOffset, Epoch, Segment, SourceOffset};

use super::owner::{facts, final_of, session};
use super::world::{keeper_config, shape_of};
use crate::Timestamp;
use crate::replica::{
    CutReason, KeeperAction, KeeperConfig, KeeperEvent, KeeperMachine, PromoteAnswer, Refusal, SessionCopy,
    Shape, StreamId, Unfit,
};

fn at(seconds: u64) -> Timestamp {
    Timestamp(Duration::from_secs(seconds))
}

fn handle(machine: &mut KeeperMachine, now: Timestamp, event: KeeperEvent) -> Vec<KeeperAction> {
    let mut out = Vec::new();
    machine.handle(now, event, &mut out);
    assert_eq!(machine.check(), Ok(()));
    out
}

fn copy() -> SessionCopy {
    let start = CopyStart {
        facts: facts(),
        epoch: Epoch(1),
        view: View(1),
        confirmed: Segment(0),
        next_segment: Segment(0),
        final_end: SourceOffset(0),
        committed: DecodeOffset(0),
        audio_from: SourceOffset(0),
        ended: false,
        recent: Vec::new(),
        attempt: Attempt(1),
    };
    SessionCopy::begin(start)
}

fn audio(from: u64, pcm: Vec<u8>) -> ToReplica {
    ToReplica::Audio { from: SourceOffset(from), pcm, attempt: Attempt(1) }
}

fn whole(bytes: usize) -> Shape {
    let mut copy = copy();
    copy.apply(audio(0, vec![0; bytes])).expect("fits");
    copy.apply(ToReplica::Whole).expect("fits");
    shape_of(&copy)
}

const STREAM: StreamId = StreamId(1);

fn opened(epoch: u64) -> KeeperEvent {
    KeeperEvent::Opened { stream: STREAM, session: session(), epoch: Epoch(epoch) }
}

/// A machine that keeps a whole copy.
fn keeping() -> KeeperMachine {
    let mut machine = KeeperMachine::new(keeper_config());
    handle(&mut machine, at(0), opened(1));
    let out =
        handle(&mut machine, at(0), KeeperEvent::Applied { stream: STREAM, shape: whole(100), over: false });
    let installed = KeeperAction::Install { stream: STREAM, session: session() };
    assert_eq!(out, [installed, KeeperAction::Confirm { stream: STREAM }]);
    machine
}

#[test]
fn who_was_promoted_is_obeyed_and_nobody_below() {
    let mut machine = keeping();
    let promote = |epoch| KeeperEvent::Promote { session: session(), epoch: Epoch(epoch) };
    let out = handle(&mut machine, at(1), promote(1));
    assert_eq!(out, [KeeperAction::Answer(PromoteAnswer::Fenced { epoch: Epoch(1) })]);
    let out = handle(&mut machine, at(1), promote(3));
    let fenced = CutReason::Fenced { epoch: Epoch(3) };
    assert!(out.contains(&KeeperAction::Cut { stream: STREAM, reason: fenced }), "{out:?}");
    assert!(
        matches!(out.last(), Some(KeeperAction::Answer(PromoteAnswer::Promoted(held))) if held.epoch == Epoch(1))
    );
    assert!(machine.is_promoted(session(), Epoch(3)) && !machine.is_promoted(session(), Epoch(1)));
    let late = KeeperEvent::Applied { stream: STREAM, shape: whole(200), over: false };
    assert_eq!(handle(&mut machine, at(1), late), [], "a zombie is not heard");
    let again = KeeperEvent::Opened { stream: StreamId(2), session: session(), epoch: Epoch(2) };
    let refusal = Refusal::Fenced { epoch: Epoch(3) };
    assert_eq!(handle(&mut machine, at(1), again), [KeeperAction::Refuse { stream: StreamId(2), refusal }]);
    let out = handle(&mut machine, at(1), promote(2));
    assert_eq!(out, [KeeperAction::Answer(PromoteAnswer::Fenced { epoch: Epoch(3) })]);
}

#[test]
fn a_promise_is_kept_without_a_copy_until_it_is_forgotten() {
    let mut machine = KeeperMachine::new(keeper_config());
    let out = handle(&mut machine, at(0), KeeperEvent::Promote { session: session(), epoch: Epoch(4) });
    assert_eq!(out, [KeeperAction::Answer(PromoteAnswer::NotHeld)]);
    let refusal = Refusal::Fenced { epoch: Epoch(4) };
    assert_eq!(handle(&mut machine, at(1), opened(3)), [KeeperAction::Refuse { stream: STREAM, refusal }]);
    let due = machine.next_timeout().expect("it is forgotten in time");
    handle(&mut machine, due, KeeperEvent::TimedOut);
    assert_eq!(handle(&mut machine, due, opened(3)), [KeeperAction::Accept { stream: STREAM }]);
}

#[test]
fn what_an_owner_leaves_is_kept_until_there_is_better() {
    let offered = |bytes| KeeperEvent::Offered { session: session(), shape: whole(bytes) };
    let adopt = KeeperAction::Adopt { session: session() };
    let mut machine = KeeperMachine::new(keeper_config());
    assert_eq!(handle(&mut machine, at(0), offered(100)), [adopt]);
    assert_eq!(handle(&mut machine, at(0), offered(50)), [], "what is here is better");
    let promoted = handle(&mut machine, at(1), KeeperEvent::Promote { session: session(), epoch: Epoch(2) });
    assert!(matches!(promoted[..], [KeeperAction::Answer(PromoteAnswer::Promoted(_))]), "{promoted:?}");
    assert_eq!(handle(&mut machine, at(1), opened(1)).len(), 1, "and who is behind is refused");
    assert!(!machine.obeys(STREAM));

    // The next owner fills a copy here while the last one still speaks.
    let mut machine = KeeperMachine::new(keeper_config());
    handle(&mut machine, at(0), opened(2));
    let filling = Shape { epoch: Epoch(2), whole: false, ..whole(20) };
    handle(&mut machine, at(0), KeeperEvent::Applied { stream: STREAM, shape: filling, over: false });
    assert_eq!(handle(&mut machine, at(0), offered(100)), [adopt], "it may never become whole");
    assert_eq!(machine.obeyed(session()), Some(Epoch(2)));
    let filled = Shape { whole: true, ..filling };
    let out =
        handle(&mut machine, at(0), KeeperEvent::Applied { stream: STREAM, shape: filled, over: false });
    assert_eq!(out[0], KeeperAction::Install { stream: STREAM, session: session() });
    assert_eq!(handle(&mut machine, at(0), offered(100)), [], "the next owner's is whole");
    handle(&mut machine, at(0), KeeperEvent::Applied { stream: STREAM, shape: filled, over: true });
    assert_eq!(handle(&mut machine, at(0), offered(100)), [], "nobody goes on with what is over");
    assert_eq!(machine.copies(), 0);
}

#[test]
fn a_copy_outlives_its_owner_for_a_while() {
    let mut machine = keeping();
    assert_eq!(machine.next_timeout(), None, "not while the owner writes");
    handle(&mut machine, at(10), KeeperEvent::Closed { stream: STREAM });
    assert_eq!(machine.next_timeout(), Some(at(100)));
    assert_eq!(handle(&mut machine, at(99), KeeperEvent::TimedOut), []);
    let held = machine.held(session()).expect("is held");
    assert_eq!(
        handle(&mut machine, at(100), KeeperEvent::TimedOut),
        [KeeperAction::RanOut { session: session(), held }, KeeperAction::DropCopy { session: session() }]
    );
    assert_eq!((machine.bytes(), machine.copies()), (0, 0));
}

#[test]
fn of_a_copy_that_somebody_went_on_from_nobody_says_that_it_ran_out() {
    let mut machine = keeping();
    handle(&mut machine, at(1), KeeperEvent::Promote { session: session(), epoch: Epoch(2) });
    let due = machine.next_timeout().expect("it is kept for a while");
    assert_eq!(
        handle(&mut machine, due, KeeperEvent::TimedOut),
        [KeeperAction::DropCopy { session: session() }]
    );
}

#[test]
fn a_fill_takes_the_place_of_a_copy_only_when_it_is_whole() {
    let mut machine = keeping();
    let again = KeeperEvent::Opened { stream: StreamId(2), session: session(), epoch: Epoch(2) };
    let out = handle(&mut machine, at(1), again);
    assert!(out.contains(&KeeperAction::Accept { stream: StreamId(2) }), "{out:?}");
    let filling = Shape { whole: false, epoch: Epoch(2), ..whole(50) };
    handle(&mut machine, at(1), KeeperEvent::Applied { stream: StreamId(2), shape: filling, over: false });
    assert_eq!(machine.held(session()).map(|held| held.audio_end), Some(SourceOffset(50)), "the old one");
    let out = handle(&mut machine, at(1), KeeperEvent::Closed { stream: StreamId(2) });
    assert_eq!(out, [KeeperAction::DropFill { stream: StreamId(2) }]);
    assert_eq!(machine.copies(), 1);
}

#[test]
fn memory_has_its_caps() {
    let config = KeeperConfig { max_bytes: 1_000, max_sessions: 1, ..keeper_config() };
    let mut machine = KeeperMachine::new(config);
    handle(&mut machine, at(0), opened(1));
    let other = starling_protocol::SessionId::random();
    let second = KeeperEvent::Opened { stream: StreamId(2), session: other, epoch: Epoch(1) };
    let refused = KeeperAction::Refuse { stream: StreamId(2), refusal: Refusal::Full };
    assert_eq!(handle(&mut machine, at(0), second), [refused]);
    let out = handle(
        &mut machine,
        at(0),
        KeeperEvent::Applied { stream: STREAM, shape: whole(1_100), over: false },
    );
    assert!(out.contains(&KeeperAction::Cut { stream: STREAM, reason: CutReason::Full }), "{out:?}");
    assert_eq!((machine.bytes(), machine.free()), (0, 1_000));
    assert_eq!(
        handle(&mut machine, at(1), second),
        [KeeperAction::Accept { stream: StreamId(2) }],
        "a bare epoch goes"
    );
}

#[test]
fn the_end_of_a_session_ends_its_copies() {
    let mut machine = keeping();
    let out =
        handle(&mut machine, at(1), KeeperEvent::Applied { stream: STREAM, shape: whole(100), over: true });
    assert!(out.contains(&KeeperAction::DropCopy { session: session() }), "{out:?}");
    let out = handle(&mut machine, at(2), KeeperEvent::Promote { session: session(), epoch: Epoch(2) });
    assert_eq!(out, [KeeperAction::Answer(PromoteAnswer::NotHeld)]);
}

#[test]
fn a_copy_takes_nothing_that_does_not_adjoin() {
    let mut copy = copy();
    let pcm = || vec![0; 64];
    copy.apply(audio(0, pcm())).expect("fits");
    let before = copy.clone();
    let commit = |segment, from, to| {
        let last = final_of(segment, from, to);
        let needed_from = last.to;
        let to = DecodeOffset(needed_from.0);
        let (answered, times, attempt) = (false, None, Attempt(2));
        ToReplica::Commit(Box::new(starling_protocol::replica::Commit {
            last,
            to,
            answered,
            needed_from,
            times,
            attempt,
        }))
    };
    for (message, why) in [
        (audio(33, pcm()), "audio does not adjoin"),
        (audio(32, vec![0; 3]), "a piece of audio has no allowed length"),
        (commit(1, 0, 10), "a commit is not the next one"),
        (commit(0, 5, 10), "a commit is not the next one"),
        (ToReplica::Kept(Box::new(final_of(0, 0, 1))), "a final is not the next one"),
    ] {
        assert_eq!(copy.apply(message), Err(Unfit(why)));
        assert_eq!(copy, before);
    }
    let mut asked = copy.clone();
    asked.apply(ToReplica::Entry { at: DecodeOffset(5), kind: EntryKind::Finalize }).expect("fits");
    assert_eq!(asked.apply(commit(0, 0, 10)), Err(Unfit("a commit passes an entry")));
    let behind = CopyStart { next_segment: Segment(2), ..copy.start().clone() };
    let mut behind = SessionCopy::begin(behind);
    assert_eq!(
        behind.apply(commit(2, 0, 10)),
        Err(Unfit("a commit comes before the finals that were there")),
        "finals would be out of order"
    );
    copy.apply(commit(0, 0, 10)).expect("fits");
    assert_eq!((copy.next_segment(), copy.audio_end()), (Segment(1), SourceOffset(32)));
    copy.apply(ToReplica::Over).expect("fits");
    assert!(copy.apply(ToReplica::Whole).is_err());
}

#[test]
fn a_copy_knows_the_last_attempt_whichever_message_said_it() {
    let mut copy = copy();
    let mut say = |from, attempt| {
        copy.apply(ToReplica::Audio { from: SourceOffset(from), pcm: vec![0; 64], attempt }).expect("fits");
        copy.start().attempt
    };
    assert_eq!([say(0, Attempt(4)), say(32, Attempt(3)), say(64, Attempt(0))], [Attempt(4); 3]);
}
