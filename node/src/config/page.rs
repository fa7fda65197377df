//! `[chaos]` and `[tracing]`: what the page shows beyond what there is to be seen anyway.

use serde::{Deserialize, Serialize};

/// Stands for a trace's id in `tracing.viewer_url`.
pub const TRACE_ID: &str = "{trace_id}";

/// `[chaos]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChaosSettings {
    /// Whether operators may kill this node's decoders, and drain nodes through it, to see what follows.
    pub enabled: bool,
}

/// `[tracing]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracingSettings {
    /// Where a trace is shown, with [`TRACE_ID`] in the place of its id; empty for nowhere.
    pub viewer_url: String,
}

impl TracingSettings {
    /// Whether it is an address, and has a place for the id.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let url = &self.viewer_url;
        let web = url.starts_with("https://") || url.starts_with("http://");
        url.is_empty() || (web && url.contains(TRACE_ID) && !url.contains(char::is_whitespace))
    }
}
