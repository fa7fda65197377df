//! The one place that reads the wall clock, to find moments again in the nodes' logs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time of day by UTC.
#[expect(clippy::disallowed_methods, reason = "the nodes' logs have no other clock")]
pub(crate) fn time_of_day() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::new(since.as_secs() % 86_400, since.subsec_nanos())
}
