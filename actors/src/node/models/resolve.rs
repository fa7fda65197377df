//! What a session's options become with its model.

use std::sync::Arc;
use std::time::Duration;

use starling_core::audio::RateMap;
use starling_core::session::SessionConfig;
use starling_protocol::lease::{CutOptions, DecodeOptions};
use starling_protocol::native::{Endpointing, ErrorBody, ErrorCode, SessionOptions, WarningCode};
use starling_protocol::replica::SessionFacts;

use super::pools::Model;
use crate::decoders::Decoders;
use crate::node::arguments::{SessionLimits, StandbyPolicy};
use crate::session::{Dialect, OpenRequest};

/// Steps that may be on their way to a decoder: two seconds, so that a replay keeps its host busy and a short stall of
/// the node starves nobody.
const WINDOW_STEPS: u16 = 20;

/// Where nobody waits for each step a decoder is heard of after every fourth: a third of what a step costs the nodes is to hear
/// that it was decoded. Four of the window's twenty are not missed.
const DECODED_INTERVAL_MS: u32 = 400;

/// Unread finals at which a session stops decoding. Segments are seconds long: this is many minutes of speech.
const UNCONFIRMED_MAX: u64 = 256;

/// What a new session is decided by.
pub(in crate::node) struct Resolved {
    pub(in crate::node) config: SessionConfig,
    pub(in crate::node) options: DecodeOptions,
    pub(in crate::node) model: Arc<str>,
    pub(in crate::node) digest: Arc<str>,
    pub(in crate::node) decoders: Decoders,
    pub(in crate::node) warnings: Vec<(WarningCode, String)>,
}

impl Model {
    pub(super) fn resolve(
        &self,
        request: &OpenRequest,
        limits: &SessionLimits,
    ) -> Result<Resolved, ErrorBody> {
        let rate = self.arguments.sample_rate;
        let rates = RateMap::new(request.sample_rate, rate).map_err(|error| {
            let allowed = "a whole number from 8000 to 48000";
            ErrorBody::field("format.sample_rate", error.rate.to_string(), allowed)
        })?;
        let (options, warnings) = self.decode_options(&request.options, limits);
        let config = session_config(rates, request.dialect, &request.options, request.linger, limits);
        Ok(self.resolved(config, options, warnings))
    }

    /// What a session that began elsewhere, with these very files, is decided by here.
    pub(super) fn resume(&self, facts: &SessionFacts, limits: &SessionLimits) -> Result<Resolved, ErrorBody> {
        let rates = RateMap::new(facts.source_hz, facts.decode_hz).map_err(|error| {
            ErrorBody::new(ErrorCode::Internal, format!("the session's copy can't be: {error}"))
        })?;
        let linger = Duration::from_millis(facts.linger_ms);
        // A dialect that this node does not know has nobody here who could speak it.
        let dialect = Dialect::of_label(&facts.dialect).unwrap_or(Dialect::Native);
        let config = session_config(rates, dialect, &facts.options, linger, limits);
        Ok(self.resolved(config, facts.decode.clone(), Vec::new()))
    }

    fn resolved(
        &self,
        config: SessionConfig,
        options: DecodeOptions,
        warnings: Vec<(WarningCode, String)>,
    ) -> Resolved {
        let (model, digest) = (Arc::clone(&self.name), self.arguments.digest.as_str().into());
        Resolved { config, options, model, digest, decoders: self.decoders(), warnings }
    }

    fn decode_options(
        &self,
        options: &SessionOptions,
        limits: &SessionLimits,
    ) -> (DecodeOptions, Vec<(WarningCode, String)>) {
        let can = self.arguments.capabilities;
        let mut warnings = Vec::new();
        let mut ignored = |option: &str| {
            let message = format!("model {} has no {option}; the option is left out", self.name);
            warnings.push((WarningCode::OptionIgnored, message));
        };
        if options.words && !can.words {
            ignored("word times");
        }
        if options.alternatives > 0 && !can.alternatives {
            ignored("alternatives");
        }
        if !options.phrases.is_empty() && !can.phrases {
            ignored("phrase lists");
        }
        let decode = DecodeOptions {
            words: options.words && can.words,
            alternatives: if can.alternatives { options.alternatives } else { 0 },
            phrases: if can.phrases { options.phrases.clone() } else { Vec::new() },
            cuts: cuts(limits.cuts, options.endpointing),
        };
        (decode, warnings)
    }
}

/// The node's lengths with those that a client wants. What they bound is bounded as before.
fn cuts(node: CutOptions, wanted: Endpointing) -> CutOptions {
    let max_ms = wanted.max_segment_ms.unwrap_or(node.max_ms);
    CutOptions {
        max_ms,
        pause_after_ms: node.pause_after_ms.min(max_ms),
        no_speech_ms: node.no_speech_ms.min(max_ms),
        silence_ms: wanted.silence_ms,
        ..node
    }
}

fn session_config(
    rates: RateMap,
    dialect: Dialect,
    options: &SessionOptions,
    linger: Duration,
    limits: &SessionLimits,
) -> SessionConfig {
    SessionConfig {
        rates,
        window: WINDOW_STEPS,
        partial_interval_ms: if options.partials { options.partial_interval_ms } else { 0 },
        decoded_interval_ms: if dialect.is_in_lockstep() { 0 } else { DECODED_INTERVAL_MS },
        linger: linger.min(limits.linger_max),
        idle: if options.batch { Duration::ZERO } else { limits.idle },
        slow_reader: limits.slow_reader,
        unconfirmed_max: UNCONFIRMED_MAX,
        standby: limits.standby != StandbyPolicy::Off && !options.batch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_lengths_and_the_node_the_others() {
        let node = CutOptions::default();
        assert_eq!(cuts(node, Endpointing::default()), node);
        let wanted = Endpointing { silence_ms: Some(300), max_segment_ms: None };
        assert_eq!(cuts(node, wanted), CutOptions { silence_ms: Some(300), ..node });
    }

    #[test]
    fn what_the_longest_segment_bounds_is_no_longer() {
        let wanted = Endpointing { silence_ms: None, max_segment_ms: Some(3_000) };
        let short = cuts(CutOptions::default(), wanted);
        assert_eq!((short.max_ms, short.pause_after_ms, short.no_speech_ms), (3_000, 3_000, 3_000));
        let long = cuts(CutOptions::default(), Endpointing { max_segment_ms: Some(30_000), ..wanted });
        assert_eq!((long.max_ms, long.pause_after_ms, long.no_speech_ms), (30_000, 6_000, 5_000));
    }
}
