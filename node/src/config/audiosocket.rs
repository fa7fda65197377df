//! `[audiosocket]` and `[wyoming]`: what is decided for clients whose protocols have no word for it.

use serde::{Deserialize, Serialize};

/// `[audiosocket]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AudioSocketSettings {
    /// The model that hears calls; empty for the node's default, or the one for `language`.
    pub model: String,
    /// Tag of the language that is spoken in them; empty for the model's.
    pub language: String,
    /// Whose calls they are, where keys are asked for.
    pub tenant: String,
}

/// `[wyoming]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WyomingSettings {
    /// Whose clients they are, where keys are asked for.
    pub tenant: String,
}
