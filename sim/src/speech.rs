//! What clients say, and what has to be heard of it: the finals are a pure function of the audio, worked out with the engine
//! alone.

use starling_engine::scripted::{self, BLOCK_SAMPLES, Scripted};
use starling_engine::{Engine, Step};
use starling_protocol::CutCause;
use starling_protocol::lease::DecodeOptions;

use crate::plan::ClientPlan;

/// The first two samples of a block that says something, as the scripted engine finds them.
fn magic() -> [i16; 2] {
    let block = scripted::encode(&["."]);
    [block[0], block[1]]
}

/// Whether a step begins with a block that does harm: its third sample says what a block is, and words are 0.
#[must_use]
pub fn is_harm(samples: &[i16]) -> bool {
    samples.len() > 2 && samples[..2] == magic() && samples[2] != 0
}

/// What a client says.
#[derive(Debug, Clone)]
pub struct Speech {
    /// Its audio. Each block says its number and who speaks.
    pub samples: Vec<i16>,
    /// Where it asks for finals: the frames before each request.
    pub requests: Vec<u64>,
}

impl Speech {
    /// What a client of this plan says. With `poison` the block of that number kills; such a client asks for nothing, as what is
    /// given up of its audio may end at a request.
    #[must_use]
    pub fn of(client: usize, plan: &ClientPlan, poison: Option<u64>) -> Self {
        let requests = if poison.is_none() { requests(plan) } else { Vec::new() };
        Self { samples: audio(client, plan, poison), requests }
    }

    /// The finals that it has to get.
    #[must_use]
    pub fn transcript(&self) -> Vec<Expected> {
        transcript(&self.samples, &self.requests)
    }
}

fn audio(client: usize, plan: &ClientPlan, poison: Option<u64>) -> Vec<i16> {
    let mut audio = Vec::new();
    for (words, silence) in &plan.utterances {
        for _ in 0..*words {
            let number = (audio.len() / BLOCK_SAMPLES) as u32;
            if poison == Some(u64::from(number)) {
                audio.extend(scripted::harm(number, scripted::Harm::Abort, None));
            } else {
                audio.extend(scripted::encode_from(number, &[format!("c{client}")]));
            }
        }
        audio.extend(scripted::silence(*silence as usize));
    }
    audio
}

fn requests(plan: &ClientPlan) -> Vec<u64> {
    let (mut blocks, mut requests) = (0, Vec::new());
    for (index, (words, silence)) in plan.utterances.iter().enumerate() {
        blocks += u64::from(*words);
        if plan.finalizes.contains(&index) {
            requests.push(blocks * BLOCK_SAMPLES as u64);
        }
        blocks += u64::from(*silence);
    }
    requests
}

/// A final that has to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its first frame.
    pub from: u64,
    /// The frame after its last.
    pub to: u64,
    /// Why it ends there.
    pub cause: CutCause,
    /// Its text.
    pub text: String,
}

/// The finals of some audio that nothing disturbs, with these requests.
fn transcript(audio: &[i16], requests: &[u64]) -> Vec<Expected> {
    let open = || Scripted::new().open(&DecodeOptions::default()).expect("its own options");
    let (mut recognizer, mut finals) = (open(), Vec::new());
    let (mut from, mut at) = (0, 0);
    for step in audio.chunks(BLOCK_SAMPLES) {
        at += step.len() as u64;
        let (cause, text) = if is_harm(step) {
            recognizer = open();
            (CutCause::GivenUp, String::new())
        } else {
            match recognizer.accept(step).expect("its own encoding") {
                Step::Speech if requests.contains(&at) => {
                    (CutCause::Finalize, recognizer.finish().expect("its own encoding").text)
                }
                Step::Speech => continue,
                Step::Endpoint(cause) => (cause, recognizer.finish().expect("its own encoding").text),
            }
        };
        finals.push(Expected { from, to: at, cause, text });
        from = at;
    }
    if at > from {
        let text = recognizer.finish().expect("its own encoding").text;
        finals.push(Expected { from, to: at, cause: CutCause::End, text });
    }
    finals
}

/// A text without the mark that says which attempt it is of.
#[must_use]
pub fn unmarked(text: &str) -> &str {
    text.split_once('@').map_or(text, |(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Speaks;

    #[test]
    fn finals_cover_all_audio_and_say_each_block_once() {
        let plan = ClientPlan {
            speaks: Speaks::Native,
            start_ms: 0,
            utterances: vec![(3, 7), (2, 3), (1, 7)],
            finalizes: Vec::new(),
            ring_blocks: 600,
            home: 0,
        };
        let finals = transcript(&audio(4, &plan, None), &[]);
        let texts: Vec<&str> = finals.iter().map(|last| last.text.as_str()).collect();
        assert_eq!(texts, ["0:c4 1:c4 2:c4", "10:c4 11:c4 15:c4", ""]);
        assert_eq!(finals.last().map(|last| last.to), Some(23 * 1_600));
        let finals = transcript(&audio(4, &plan, Some(1)), &[]);
        assert_eq!(finals[0].cause, CutCause::GivenUp);
        assert_eq!((finals[0].to, finals[1].text.as_str()), (2 * 1_600, "2:c4"));
        let plan = ClientPlan { finalizes: vec![1], ..plan };
        assert_eq!(requests(&plan), [12 * 1_600]);
        let finals = transcript(&audio(4, &plan, None), &requests(&plan));
        let asked = finals.iter().find(|last| last.cause == CutCause::Finalize).expect("is answered");
        assert_eq!((asked.to, asked.text.as_str()), (12 * 1_600, "10:c4 11:c4"));
    }
}
