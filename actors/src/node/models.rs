//! The models a node serves, and what a session's options become with each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ractor::ActorRef;
use starling_core::audio::{RateMap, Resampler};
use starling_core::placement::Candidate;
use starling_core::session::SessionConfig;
use starling_protocol::lease::DecodeOptions;
use starling_protocol::native::{ErrorBody, ErrorCode, SessionOptions, WarningCode};
use starling_protocol::replica::SessionFacts;
use tokio::sync::Semaphore;

use super::arguments::{ModelArguments, SessionLimits};
use crate::clock::Clock;
use crate::data::Peers;
use crate::decoders::{Decoders, Elsewhere};
use crate::pool::{OthersKnown, PoolMessage};
use crate::session::OpenRequest;

/// Steps that may be on their way to a decoder: two seconds, so that a replay keeps its host busy and a short stall of
/// the node starves nobody.
const WINDOW_STEPS: u16 = 20;

/// Unread finals at which a session stops decoding. Segments are seconds long: this is many minutes of speech.
const UNCONFIRMED_MAX: u64 = 256;

/// Pairs of rates whose filters are kept. Clients use a handful; the largest takes 6 MB.
const KEPT_RESAMPLERS: usize = 8;

/// A model that is being served.
pub(super) struct Model {
    pub(super) arguments: ModelArguments,
    pub(super) name: Arc<str>,
    pub(super) pool: ActorRef<PoolMessage>,
    pub(super) decoders: Decoders,
}

impl Model {
    pub(super) fn new(
        arguments: ModelArguments,
        pool: ActorRef<PoolMessage>,
        peers: Option<&PeerArguments>,
        limits: &SessionLimits,
    ) -> Self {
        let name: Arc<str> = arguments.name.as_str().into();
        let elsewhere = peers.map(|peers| Elsewhere {
            peers: Arc::clone(&peers.peers),
            model: Arc::clone(&name),
            digest: arguments.digest.as_str().into(),
            own_hosts: arguments.hosts > 0,
            queue_wait: limits.queue_wait,
            retry_after: limits.retry_after,
            queue: Arc::new(Semaphore::new(limits.queue_length)),
            names: Arc::clone(&peers.names),
            clock: peers.clock,
        });
        let decoders = Decoders { pool: pool.clone(), elsewhere };
        Self { arguments, name, pool, decoders }
    }
}

/// What the models of a node with peers have in common.
pub(super) struct PeerArguments {
    pub(super) peers: Arc<dyn Peers>,
    pub(super) names: Arc<AtomicU64>,
    pub(super) clock: Clock,
}

impl PeerArguments {
    /// What the peers have of a model, for this node's own pool.
    pub(super) fn others(&self, model: &ModelArguments) -> OthersKnown {
        let (peers, name, digest) = (Arc::clone(&self.peers), model.name.clone(), model.digest.clone());
        Box::new(move || peers.candidates(&name, &digest).iter().map(Candidate::node_slots).collect())
    }
}

/// What a new session is decided by.
pub(super) struct Resolved {
    pub(super) config: SessionConfig,
    pub(super) options: DecodeOptions,
    pub(super) model: Arc<str>,
    pub(super) digest: Arc<str>,
    pub(super) decoders: Decoders,
    pub(super) warnings: Vec<(WarningCode, String)>,
}

#[derive(Default)]
pub(super) struct Models {
    pub(super) all: Vec<Model>,
    /// The last used at the end.
    resamplers: VecDeque<(RateMap, Arc<Resampler>)>,
}

impl Models {
    /// The model a client named, or the default.
    pub(super) fn find(&self, name: Option<&str>) -> Result<&Model, ErrorBody> {
        let found = match name {
            None => self.all.first(),
            Some(name) => self.all.iter().find(|model| &*model.name == name),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = self.all.iter().map(|model| &*model.name).collect();
            let allowed = format!("one of {}", names.join(", "));
            let mut body = ErrorBody::field("model", format!("{:?}", name.unwrap_or_default()), allowed);
            body.code = ErrorCode::UnknownModel;
            body
        })
    }

    /// The model with these very files, which a session began with.
    pub(super) fn find_exact(&self, name: &str, digest: &str) -> Option<&Model> {
        self.all.iter().find(|model| &*model.name == name && model.arguments.digest == digest)
    }

    /// What a session that lived elsewhere is decided by here.
    pub(super) fn resume(&self, facts: &SessionFacts, limits: &SessionLimits) -> Result<Resolved, ErrorBody> {
        let served = self.find_exact(&facts.model, &facts.digest);
        let model =
            served.filter(|model| model.arguments.sample_rate == facts.decode_hz).ok_or_else(|| {
                let message = format!("this node has no model {} with the session's files", facts.model);
                ErrorBody::new(ErrorCode::UnknownModel, message)
            })?;
        let rates = RateMap::new(facts.source_hz, facts.decode_hz).map_err(|error| {
            ErrorBody::new(ErrorCode::Internal, format!("the session's copy can't be: {error}"))
        })?;
        let linger = Duration::from_millis(facts.linger_ms);
        let config = session_config(rates, &facts.options, linger, limits);
        let decoders = model.decoders.clone();
        let (model, digest) = (Arc::clone(&model.name), model.arguments.digest.as_str().into());
        Ok(Resolved { config, options: facts.decode.clone(), model, digest, decoders, warnings: Vec::new() })
    }

    pub(super) fn resolve(
        &self,
        request: &OpenRequest,
        limits: &SessionLimits,
    ) -> Result<Resolved, ErrorBody> {
        let model = self.find(request.model.as_deref())?;
        let rate = model.arguments.sample_rate;
        let rates = RateMap::new(request.sample_rate, rate).map_err(|error| {
            let allowed = "a whole number from 8000 to 48000";
            ErrorBody::field("format.sample_rate", error.rate.to_string(), allowed)
        })?;
        let (options, warnings) = decode_options(&request.options, model, limits);
        let config = session_config(rates, &request.options, request.linger, limits);
        let decoders = model.decoders.clone();
        let (model, digest) = (Arc::clone(&model.name), model.arguments.digest.as_str().into());
        Ok(Resolved { config, options, model, digest, decoders, warnings })
    }

    /// The filter for a pair of rates, if it is there or costs nothing.
    pub(super) fn resampler(&mut self, rates: RateMap) -> Option<Arc<Resampler>> {
        if rates.is_identity() {
            return Some(Arc::new(Resampler::new(rates)));
        }
        let index = self.resamplers.iter().position(|(kept, _)| *kept == rates)?;
        let kept = self.resamplers.remove(index)?;
        let resampler = Arc::clone(&kept.1);
        self.resamplers.push_back(kept);
        Some(resampler)
    }

    /// Keeps a filter, in place of the one that was not used for longest when there are too many.
    pub(super) fn keep(&mut self, rates: RateMap, resampler: Arc<Resampler>) {
        self.resamplers.retain(|(kept, _)| *kept != rates);
        if self.resamplers.len() >= KEPT_RESAMPLERS {
            self.resamplers.pop_front();
        }
        self.resamplers.push_back((rates, resampler));
    }
}

fn session_config(
    rates: RateMap,
    options: &SessionOptions,
    linger: Duration,
    limits: &SessionLimits,
) -> SessionConfig {
    SessionConfig {
        rates,
        window: WINDOW_STEPS,
        partial_interval_ms: if options.partials { options.partial_interval_ms } else { 0 },
        linger: linger.min(limits.linger_max),
        idle: if options.batch { Duration::ZERO } else { limits.idle },
        slow_reader: limits.slow_reader,
        unconfirmed_max: UNCONFIRMED_MAX,
    }
}

fn decode_options(
    options: &SessionOptions,
    model: &Model,
    limits: &SessionLimits,
) -> (DecodeOptions, Vec<(WarningCode, String)>) {
    let can = model.arguments.capabilities;
    let mut warnings = Vec::new();
    let mut ignored = |option: &str| {
        let message = format!("model {} has no {option}; the option is left out", model.name);
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
        cuts: limits.cuts,
    };
    (decode, warnings)
}
