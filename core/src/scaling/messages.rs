//! What the policy is told and what it says.

use std::time::Duration;

/// How a model is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScalingConfig {
    /// Decoders that are to be idle, so that so many callers may come at once and wait for nothing.
    pub idle_target: u32,
    /// Fewest decoders, whoever speaks.
    pub min: u32,
    /// Most decoders; wins over all else.
    pub max: u32,
    /// For so long nothing may have asked for a decoder before it is given up.
    pub cooldown: Duration,
    /// How often it is decided whether there are too many. That there are too few is decided at once.
    pub check_interval: Duration,
    /// Whether what is expected counts, too.
    pub predictive: bool,
}

impl Default for ScalingConfig {
    /// Five idle decoders, as contact centres have run recognition for years; a cooldown of 100 s and a look a minute.
    fn default() -> Self {
        Self {
            idle_target: 5,
            min: 0,
            max: u32::MAX,
            cooldown: Duration::from_secs(100),
            check_interval: Duration::from_secs(60),
            predictive: false,
        }
    }
}

/// What is asked of a model's decoders now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Demand {
    /// Sessions that have a decoder.
    pub busy: u32,
    /// Those that wait for one.
    pub waiting: u32,
    /// Decoders that must be free beside all others, for sessions that lose theirs (I9).
    pub reserve: u32,
}

/// Something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScalingEvent {
    /// What is asked for now. To be told at every change.
    Demanded(Demand),
    /// A session began; repeated where a session is only moved it would be expected twice.
    Arrived,
    /// A session is over that had its decoders for so long.
    Ended {
        /// From its first decoder to its end.
        lasted: Duration,
    },
    /// `next_timeout` has come.
    TimedOut,
}

/// Why there should be so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScalingReason {
    /// Nothing asks for more than the fewest.
    Minimum,
    /// Those in use, those who wait, the idle ones and the reserve.
    Demand,
    /// As many were asked for within the cooldown.
    Cooldown,
    /// More callers are expected.
    Forecast,
    /// More are asked for than there may be.
    Maximum,
}

impl ScalingReason {
    /// The name used as a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Minimum => "minimum",
            Self::Demand => "demand",
            Self::Cooldown => "cooldown",
            Self::Forecast => "forecast",
            Self::Maximum => "maximum",
        }
    }
}

/// How many decoders there should be from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scale {
    /// Decoders, the busy ones among them.
    pub desired: u32,
    /// Why.
    pub reason: ScalingReason,
}
