//! Whole sessions of random moves, with a node that is played: it cuts where it likes, and always where it was asked to.

use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;
use serde_json::Value;

use super::{a_final, mark};
use crate::realtime::{Config, Mark, Teller, TurnDetection};
use crate::{CutCause, SourceOffset};

#[derive(Debug, Clone)]
enum Move {
    Append(u64),
    Commit,
    Clear,
    Detect(bool),
    /// So many words of the open segment's text are heard.
    Partial(usize),
    /// The open segment is cut, at a place of its own when `early` and there is room, with a hole when `dies`.
    Cut {
        early: bool,
        dies: bool,
    },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        (0u64..9_000).prop_map(Move::Append),
        Just(Move::Commit),
        Just(Move::Clear),
        any::<bool>().prop_map(Move::Detect),
        (0usize..5).prop_map(Move::Partial),
        (any::<bool>(), 0u8..8).prop_map(|(early, dice)| Move::Cut { early, dies: dice == 0 }),
    ];
    proptest::collection::vec(one, 0..80)
}

/// Samples are made of so many frames on each side.
const AHEAD: u64 = 24;

/// The node's side, and what it must come to.
struct Played {
    teller: Teller,
    out: Vec<String>,
    detects: bool,
    received: u64,
    from: u64,
    /// Where finals are asked for, and whether for an item.
    asked: VecDeque<(u64, bool)>,
    segments: usize,
    /// Words of the item that grows.
    growing: Vec<String>,
    /// Words that have to be told as final, in order, by item; `None` where a hole excuses.
    due: Vec<Option<Vec<String>>>,
    holed: bool,
    /// By asked item: what was in it when it was asked for.
    begun: VecDeque<(Vec<String>, bool)>,
}

impl Played {
    fn new() -> Self {
        Self {
            teller: Teller::new("s", Config::default(), false),
            out: Vec::new(),
            detects: true,
            received: 0,
            from: 0,
            asked: VecDeque::new(),
            segments: 0,
            growing: Vec::new(),
            due: Vec::new(),
            holed: false,
            begun: VecDeque::new(),
        }
    }

    fn here(&self) -> Mark {
        Mark { cut: SourceOffset(self.received.saturating_sub(AHEAD)), ..mark(self.received) }
    }

    /// What the open segment says: none, one, two or three words that no other has.
    fn words(&self) -> Vec<String> {
        (0..self.segments % 4).map(|word| format!("w{}-{word}", self.segments)).collect()
    }

    fn take(&mut self, step: &Move) {
        match *step {
            Move::Append(frames) => self.received += frames,
            Move::Detect(detects) => {
                self.detects = detects;
                let turn_detection = if detects { TurnDetection::ServerVad } else { TurnDetection::Off };
                let config = Config { turn_detection, ..self.teller.config().clone() };
                self.teller.updated(config, false, &mut self.out);
            }
            Move::Commit => {
                let here = self.here();
                if self.teller.commit(here, None, &mut self.out) {
                    self.asked.push_back((here.cut.0.max(self.from), true));
                    self.begun
                        .push_back((std::mem::take(&mut self.growing), std::mem::take(&mut self.holed)));
                }
            }
            Move::Clear => {
                let here = self.here();
                if self.teller.clear(here, &mut self.out) {
                    self.asked.push_back((here.cut.0.max(self.from), false));
                }
                self.growing.clear();
                self.holed = false;
            }
            Move::Partial(count) => {
                let words = self.words();
                let text = words[..count.min(words.len())].join(" ");
                self.teller.partial(SourceOffset(self.from), &text, &mut self.out);
            }
            Move::Cut { early, dies } => self.cut(early, dies),
        }
    }

    fn cut(&mut self, early: bool, dies: bool) {
        let asked = self.asked.front().copied();
        let end = asked.map_or(self.received.saturating_sub(AHEAD), |(at, _)| at);
        let half = self.from + end.saturating_sub(self.from) / 2;
        let answers = asked.is_some() && !(early && half > self.from && half < end);
        let to = if answers { end } else { half };
        if asked.is_none() && to <= self.from {
            return;
        }
        let cause = match (dies, answers) {
            (true, _) => CutCause::GivenUp,
            (false, true) => CutCause::Finalize,
            (false, false) => CutCause::Pause,
        };
        let words = if dies { Vec::new() } else { self.words() };
        self.teller.last(&a_final(self.from, to, &words.join(" "), cause), &mut self.out);
        match asked {
            Some((_, true)) => {
                let (begun, holed) = self.begun.front_mut().expect("an item for each");
                begun.extend(words);
                *holed |= dies;
            }
            Some((_, false)) => {}
            None if self.detects => {
                let mut item = std::mem::take(&mut self.growing);
                item.extend(words);
                let holed = std::mem::take(&mut self.holed) || dies;
                self.due.push((!holed).then_some(item));
            }
            None => {
                self.growing.extend(words);
                self.holed |= dies;
            }
        }
        if answers {
            self.asked.pop_front();
            if asked.is_some_and(|(_, item)| item) {
                let (words, holed) = self.begun.pop_front().expect("an item for each");
                self.due.push((!holed).then_some(words));
            }
        }
        self.from = to;
        self.segments += 1;
    }

    /// Whatever was appended is committed and decoded.
    fn end(&mut self) {
        self.take(&Move::Append(24_000));
        self.take(&Move::Commit);
        while !self.asked.is_empty() {
            self.cut(false, false);
        }
    }
}

#[derive(Debug, Default)]
struct Item {
    started: bool,
    stopped: bool,
    committed: bool,
    over: bool,
    deltas: String,
}

proptest! {
    #[test]
    fn every_item_is_told_in_order_and_every_word_once(moves in moves()) {
        let mut played = Played::new();
        moves.iter().for_each(|step| played.take(step));
        played.end();
        let mut items: HashMap<String, Item> = HashMap::new();
        let (mut ids, mut previous, mut told) = (HashSet::new(), Value::Null, Vec::new());
        for text in &played.out {
            let event: Value = serde_json::from_str(text).expect("JSON");
            prop_assert!(ids.insert(event["event_id"].as_str().expect("an id").to_owned()), "{}", text);
            let Some(id) = event["item_id"].as_str() else { continue };
            let item = items.entry(id.to_owned()).or_default();
            prop_assert!(!item.over, "{} after its end", text);
            let kind = event["type"].as_str().expect("a type");
            match kind.rsplit('.').next().expect("a kind") {
                "speech_started" => prop_assert!(!std::mem::replace(&mut item.started, true)),
                "speech_stopped" => {
                    prop_assert!(item.started && !item.committed);
                    prop_assert!(!std::mem::replace(&mut item.stopped, true));
                }
                "committed" => {
                    prop_assert!(!std::mem::replace(&mut item.committed, true));
                    prop_assert_eq!(&event["previous_item_id"], &previous);
                    previous = id.into();
                }
                "delta" => item.deltas.push_str(event["delta"].as_str().expect("text")),
                "completed" => {
                    prop_assert!(item.committed);
                    item.over = true;
                    let transcript = event["transcript"].as_str().expect("text");
                    prop_assert_eq!(transcript, item.deltas.as_str(), "partials of this node never change");
                    told.push(Some(transcript.split_whitespace().map(str::to_owned).collect::<Vec<_>>()));
                }
                "failed" => {
                    prop_assert!(item.committed);
                    item.over = true;
                    told.push(None);
                }
                other => prop_assert!(false, "{}", other),
            }
        }
        for (id, item) in &items {
            prop_assert!(item.over || !item.committed, "{} was committed and has no end", id);
        }
        // Silence makes no item by itself, but may be committed.
        let said = |items: Vec<Option<Vec<String>>>| -> Vec<Option<Vec<String>>> {
            items.into_iter().filter(|words| words.as_ref().is_none_or(|words| !words.is_empty())).collect()
        };
        prop_assert_eq!(said(told), said(played.due));
    }
}
