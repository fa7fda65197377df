//! What is done to a cluster, and how it is written.
//!
//! A fault is written `KIND:WHERE[*AMOUNT]@AT[+FOR]`, times in milliseconds: `crash:n1@3200+2000`, `cut:n0-n2@5000+900`,
//! `oneway:n0>c1@700+300`, `slow:n0-n1*300@900+4000`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A node's process is killed; its machine lives, and says so. It starts again after a while, empty.
    Crash,
    /// A node's machine is gone without a word. It starts again after a while, empty.
    PowerOff,
    /// A node is stopped in order, with no time for its sessions, and starts again after a while.
    Restart,
    /// Nothing passes between two, and nobody is told.
    Cut,
    /// Nothing passes from one to the other; the way back is open.
    OneWay,
    /// A node stands still, with its sockets open, and goes on.
    Pause,
    /// What passes between two takes longer by an amount in milliseconds.
    Slow,
    /// A node's clocks jump ahead by an amount in milliseconds.
    Jump,
    /// A node is drained, stopped, and starts again after a while.
    Drain,
    /// A client reads nothing for a while.
    Stall,
    /// A decoder host is killed.
    Die,
    /// A decoder host dies of itself.
    Abort,
    /// A decoder's native call does not return.
    Hang,
    /// A decoder host stands still, with its socket open.
    Freeze,
    /// A client's audio kills what decodes it; the amount is the number of the block that does.
    Poison,
    /// A node has hardly any memory for copies, from its start.
    Full,
}

impl Kind {
    /// Each of them.
    pub const ALL: [Self; 16] = [
        Self::Crash,
        Self::PowerOff,
        Self::Restart,
        Self::Cut,
        Self::OneWay,
        Self::Pause,
        Self::Slow,
        Self::Jump,
        Self::Drain,
        Self::Stall,
        Self::Die,
        Self::Abort,
        Self::Hang,
        Self::Freeze,
        Self::Poison,
        Self::Full,
    ];

    /// Whether it makes nodes come and go, as others see them: what they say of themselves is not known to all for a while.
    #[must_use]
    pub const fn is_to_nodes(self) -> bool {
        matches!(
            self,
            Self::Crash
                | Self::PowerOff
                | Self::Restart
                | Self::Drain
                | Self::Cut
                | Self::OneWay
                | Self::Pause
                | Self::Jump
        )
    }

    /// Whether it goes on for a while, and has to be undone.
    #[must_use]
    pub const fn lasts(self) -> bool {
        matches!(self, Self::Cut | Self::OneWay | Self::Slow | Self::Pause | Self::Stall)
    }

    /// The word for it in schedules.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::PowerOff => "off",
            Self::Restart => "restart",
            Self::Cut => "cut",
            Self::OneWay => "oneway",
            Self::Pause => "pause",
            Self::Slow => "slow",
            Self::Jump => "jump",
            Self::Drain => "drain",
            Self::Stall => "stall",
            Self::Die => "die",
            Self::Abort => "abort",
            Self::Hang => "hang",
            Self::Freeze => "freeze",
            Self::Poison => "poison",
            Self::Full => "full",
        }
    }
}

/// What one level of simulation can do.
pub trait FaultKind: Copy + Eq + Send + Sync + 'static {
    /// Each of them.
    const EACH: &'static [Self];

    /// The word for it in schedules.
    fn word(self) -> &'static str;

    /// Whether it is done to one way between two, of which the way back is another.
    fn is_one_way(self) -> bool;

    /// The one of this word.
    ///
    /// # Errors
    /// There is none; the words that there are.
    fn of(text: &str) -> Result<Self> {
        let words = || Self::EACH.iter().map(|kind| kind.word()).collect::<Vec<_>>().join(", ");
        let found = Self::EACH.iter().find(|kind| kind.word() == text);
        found.copied().with_context(|| format!("{text:?} is no fault; there are {}", words()))
    }
}

impl FaultKind for Kind {
    const EACH: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        Self::word(self)
    }

    fn is_one_way(self) -> bool {
        self == Self::OneWay
    }
}

/// Somebody in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A node.
    Node(usize),
    /// A client.
    Client(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(index) => write!(f, "n{index}"),
            Self::Client(index) => write!(f, "c{index}"),
        }
    }
}

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let index = |text: &str| text.parse().ok();
        let place = match text.split_at_checked(1) {
            Some(("n", rest)) => index(rest).map(Self::Node),
            Some(("c", rest)) => index(rest).map(Self::Client),
            _ => None,
        };
        place.with_context(|| format!("{text:?} is neither a node, like n0, nor a client, like c0"))
    }
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fault<K = Kind> {
    /// What.
    pub kind: K,
    /// To whom.
    pub place: Place,
    /// And to whom else, for ways between two.
    pub other: Option<Place>,
    /// See [`Kind`].
    pub amount: u64,
    /// When, since the start.
    pub at_ms: u64,
    /// For how long.
    pub for_ms: u64,
}

impl<K: FaultKind> fmt::Display for Fault<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.word(), self.place)?;
        if let Some(other) = self.other {
            write!(f, "{}{other}", if self.kind.is_one_way() { '>' } else { '-' })?;
        }
        if self.amount > 0 {
            write!(f, "*{}", self.amount)?;
        }
        write!(f, "@{}", self.at_ms)?;
        if self.for_ms > 0 {
            write!(f, "+{}", self.for_ms)?;
        }
        Ok(())
    }
}

impl<K: FaultKind> FromStr for Fault<K> {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad =
            || format!("{text:?} is no fault; one is KIND:WHERE[*AMOUNT]@AT[+FOR], as crash:n1@3200+2000");
        let (kind, rest) = text.split_once(':').with_context(bad)?;
        let (place, time) = rest.split_once('@').with_context(bad)?;
        let (place, amount) = place.split_once('*').unwrap_or((place, "0"));
        let (place, other) = match place.split_once(['-', '>']) {
            Some((place, other)) => (place, Some(other.parse()?)),
            None => (place, None),
        };
        let (at, length) = time.split_once('+').unwrap_or((time, "0"));
        Ok(Self {
            kind: K::of(kind)?,
            place: place.parse()?,
            other,
            amount: amount.parse().with_context(bad)?,
            at_ms: at.parse().with_context(bad)?,
            for_ms: length.parse().with_context(bad)?,
        })
    }
}

/// All that is done, in the order of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule<K = Kind>(pub Vec<Fault<K>>);

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: FaultKind> fmt::Display for Schedule<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&faults.join(","))
    }
}

impl<K: FaultKind> FromStr for Schedule<K> {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let faults = text.split(',').filter(|fault| !fault.is_empty());
        faults.map(|fault| fault.trim().parse()).collect::<Result<_>>().map(Self)
    }
}
