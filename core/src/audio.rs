//! From the client's samples to the decoder's, as a pure function of positions.

mod pcm;
mod rates;
mod resampler;
mod store;
mod suspicion;

pub use pcm::PcmReader;
pub use rates::{RateError, RateMap};
pub use resampler::Resampler;
pub use store::SourceStore;
pub use suspicion::{AudioCheck, Suspicion};
