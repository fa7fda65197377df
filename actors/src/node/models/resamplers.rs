//! The filters between clients' rates and models'.

use std::collections::VecDeque;
use std::sync::Arc;

use starling_core::audio::{RateMap, Resampler};

/// Pairs of rates whose filters are kept. Clients use a handful; the largest takes 6 MB.
const KEPT: usize = 8;

/// The last used at the end.
#[derive(Default)]
pub(super) struct Resamplers(VecDeque<(RateMap, Arc<Resampler>)>);

impl Resamplers {
    /// The filter for a pair of rates, if it is there or costs nothing.
    pub(super) fn get(&mut self, rates: RateMap) -> Option<Arc<Resampler>> {
        if rates.is_identity() {
            return Some(Arc::new(Resampler::new(rates)));
        }
        let index = self.0.iter().position(|(kept, _)| *kept == rates)?;
        let kept = self.0.remove(index)?;
        let resampler = Arc::clone(&kept.1);
        self.0.push_back(kept);
        Some(resampler)
    }

    /// Keeps a filter, in place of the one that was not used for longest when there are too many.
    pub(super) fn keep(&mut self, rates: RateMap, resampler: Arc<Resampler>) {
        self.0.retain(|(kept, _)| *kept != rates);
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back((rates, resampler));
    }
}
