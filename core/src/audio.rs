//! From the client's samples to the decoder's, as a pure function of positions.

mod rates;
mod resampler;
mod store;

pub use rates::{RateError, RateMap};
pub use resampler::Resampler;
pub use store::SourceStore;
