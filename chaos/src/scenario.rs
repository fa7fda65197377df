//! Scenarios, as they stand in `chaos/scenarios/`.
//!
//! Owns: what a scenario can say, and what it must not. Must never: do any of it.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

mod fault;

pub(crate) use self::fault::{Deed, Fault, Way};

/// The invariants of ARCHITECTURE.md that a run can look at: by what callers are told, and by what is left. Epochs (I5) and memory (I6) it
/// can't.
const OBSERVED: [&str; 9] = ["I1", "I2", "I3", "I4", "I7", "I8", "I9", "I10", "I11"];

/// What is done to which nodes under which load, and what callers may notice.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The file's name.
    #[serde(skip)]
    pub(crate) name: String,
    /// In a sentence.
    pub(crate) about: String,
    /// The invariants of ARCHITECTURE.md that it puts to the test.
    pub(crate) invariants: Vec<String>,
    /// Further tables of each node's configuration.
    #[serde(default)]
    pub(crate) settings: String,
    /// Where nodes and callers reach each other.
    #[serde(default)]
    pub(crate) network: Ground,
    /// The size of the disk that each node has for its log, its temporary files and its home. Otherwise it is this machine's.
    pub(crate) disk_mib: Option<u32>,
    /// Nodes that are started for it.
    #[serde(rename = "node")]
    pub(crate) nodes: Vec<NodePlan>,
    pub(crate) load: Load,
    #[serde(default, rename = "fault")]
    pub(crate) faults: Vec<Fault>,
    #[serde(default)]
    pub(crate) expect: Expect,
}

impl Load {
    /// So many callers with so much speech each, and everything else at its default.
    pub(crate) const fn plain(callers: usize, seconds: f64) -> Self {
        Self {
            callers,
            seconds,
            phrase_s: phrase(),
            spread_s: 0.0,
            chunk_ms: chunk(),
            liveness_s: None,
            partial_interval_ms: partials(),
            poisoned: 0,
            stuck: 0,
            hold_s: 0.0,
            at_first: false,
            requests: None,
            interval_s: 0.0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ground {
    #[default]
    Loopback,
    /// Each node in a network namespace of its own, and the callers in another.
    Namespaces,
}

impl Ground {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Namespaces => "network namespaces",
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodePlan {
    pub(crate) name: String,
    #[serde(default = "both")]
    pub(crate) roles: Vec<String>,
    /// Streams that it decodes at once, all hosts together.
    #[serde(default = "slots")]
    pub(crate) slots: u16,
    #[serde(default = "one")]
    pub(crate) hosts: u16,
    /// Further lines of `[cluster]`.
    #[serde(default)]
    pub(crate) cluster: String,
    /// Further lines of `[listen]`.
    #[serde(default = "no_other_ports")]
    pub(crate) listen: String,
    /// Further lines of `[sessions]`.
    #[serde(default)]
    pub(crate) sessions: String,
    /// Runs the programs that `--previous` names, until it is upgraded.
    #[serde(default)]
    pub(crate) previous: bool,
}

fn no_other_ports() -> String {
    "vosk = \"off\"".to_owned()
}

impl NodePlan {
    pub(crate) fn takes_callers(&self) -> bool {
        self.roles.iter().any(|role| role == "gateway")
    }

    pub(crate) fn decodes(&self) -> bool {
        self.roles.iter().any(|role| role == "decoder")
    }
}

/// Who speaks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Load {
    pub(crate) callers: usize,
    /// Speech of each, in seconds; with a real engine it is the recording's.
    pub(crate) seconds: f64,
    /// After so much speech each pauses, which ends a segment.
    #[serde(default = "phrase")]
    pub(crate) phrase_s: f64,
    /// Callers begin spread over so many seconds.
    #[serde(default)]
    pub(crate) spread_s: f64,
    /// Audio that is sent at once. Longer than speech has it makes thousands of callers affordable.
    #[serde(default = "chunk")]
    pub(crate) chunk_ms: u64,
    /// A caller that hears nothing for so long takes its connection for lost; the SDK's own is 15 s.
    pub(crate) liveness_s: Option<f64>,
    /// Text comes this often at the most.
    #[serde(default = "partials")]
    pub(crate) partial_interval_ms: u32,
    /// Of the callers, how many say something that kills every process that decodes it.
    #[serde(default)]
    pub(crate) poisoned: usize,
    /// Clients beside the callers that open a session on the first node and never read or say another word.
    #[serde(default)]
    pub(crate) stuck: usize,
    /// Each caller says nothing for so long when half is said, and sends nothing either.
    #[serde(default)]
    pub(crate) hold_s: f64,
    /// All callers begin at the first node that takes any, rather than at one after the other.
    #[serde(default)]
    pub(crate) at_first: bool,
    /// The load is that of `starling load`: each caller says the same so often.
    pub(crate) requests: Option<u32>,
    /// How long such a caller waits after each, in seconds; the first ones begin spread over this time.
    #[serde(default)]
    pub(crate) interval_s: f64,
}

/// What is to be seen, beyond that every caller gets every word once, in its place, in segments that are cut where they are without a fault.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    /// Connections that are lost and replaced: a fault that nobody noticed was none.
    #[serde(default)]
    pub(crate) reconnects_at_least: u64,
    pub(crate) reconnects_at_most: Option<u64>,
    /// Sessions with which no node went on, so that the SDK began them anew with what it held. Where a copy outlives the fault there are none.
    #[serde(default)]
    pub(crate) anew_at_least: u64,
    pub(crate) anew_at_most: Option<u64>,
    /// Decoders that nodes noticed to be lost.
    #[serde(default)]
    pub(crate) decoders_lost_at_least: u64,
    pub(crate) decoders_lost_at_most: Option<u64>,
    /// Sessions whose owner made another copy in the place of one that was lost.
    #[serde(default)]
    pub(crate) copies_moved_at_least: u64,
    /// How often a node takes another for dead.
    pub(crate) downs_at_most: Option<u64>,
    /// The longest time from the loss of a connection to its replacement.
    pub(crate) longest_reconnect_s: Option<f64>,
    /// Parts of errors that nodes may log. Any other, and any panic, is a failure though no caller noticed.
    #[serde(default)]
    pub(crate) may_log: Vec<String>,
    /// The longest time that a caller may be without new text.
    pub(crate) longest_gap_s: Option<f64>,
}

fn both() -> Vec<String> {
    vec!["gateway".to_owned(), "decoder".to_owned()]
}

const fn slots() -> u16 {
    32
}

const fn one() -> u16 {
    1
}

const fn phrase() -> f64 {
    4.0
}

/// Often enough to see gaps.
const fn partials() -> u32 {
    200
}

const fn chunk() -> u64 {
    100
}

impl Scenario {
    /// Those with these names, or all.
    pub(crate) fn load(folder: &Path, names: &[String]) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        let entries =
            std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                all.push(Self::parse(&name, &text).with_context(|| path.display().to_string())?);
            }
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        let known: Vec<String> = all.iter().map(|scenario| scenario.name.clone()).collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
            bail!("there is no scenario {unknown:?}; there are {}", known.join(", "));
        }
        all.retain(|scenario| names.is_empty() || names.contains(&scenario.name));
        ensure!(!all.is_empty(), "{} has no scenario", folder.display());
        Ok(all)
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        let mut scenario: Self = toml::from_str(text)?;
        scenario.name = name.to_owned();
        scenario.check()?;
        Ok(scenario)
    }

    /// The same with another number of callers, and what is expected of so many.
    pub(crate) fn with_callers(&mut self, callers: usize) -> Result<()> {
        let before = std::mem::replace(&mut self.load.callers, callers).max(1) as u64;
        let Expect {
            reconnects_at_least, anew_at_least, decoders_lost_at_least, copies_moved_at_least, ..
        } = &mut self.expect;
        for least in [reconnects_at_least, anew_at_least, decoders_lost_at_least, copies_moved_at_least] {
            // More callers than it was written for are not told to meet more.
            let share = (*least * callers as u64 / before).max(1);
            *least = share.min(*least);
        }
        self.check()
    }

    /// Whether it is done in namespaces of its own.
    pub(crate) fn is_apart(&self) -> bool {
        self.network == Ground::Namespaces || self.disk_mib.is_some()
    }

    pub(crate) fn does(&self, deed: Deed) -> bool {
        self.faults.iter().any(|fault| fault.deed == deed)
    }

    /// Whether a fault of it loses packets.
    pub(crate) fn drops_packets(&self) -> bool {
        self.faults.iter().any(|fault| fault.deed == Deed::Cut || fault.loss_percent > 0)
    }

    /// Says what it must not.
    pub(crate) fn check(&self) -> Result<()> {
        let Load { callers, seconds, phrase_s, poisoned, chunk_ms, .. } = self.load;
        ensure!(callers > 0, "load.callers is 0; somebody has to speak");
        ensure!(seconds > 0.0 && phrase_s > 0.0, "load.seconds and load.phrase_s must be more than 0");
        ensure!(
            poisoned < callers,
            "load.poisoned is {poisoned}; one of the {callers} callers must be innocent"
        );
        ensure!(
            self.load.requests != Some(0) && (self.load.requests.is_none() || poisoned == 0),
            "load.requests must be at least 1, and `starling load` speaks no poison"
        );
        ensure!(chunk_ms >= 20, "load.chunk_ms is {chunk_ms}; it must be at least 20");
        ensure!(self.nodes.iter().any(NodePlan::takes_callers), "no node has the role \"gateway\"");
        ensure!(self.nodes.iter().any(NodePlan::decodes), "no node has the role \"decoder\"");
        ensure!(self.disk_mib != Some(0), "disk_mib is 0; it must be at least 1");
        self.check_invariants()?;
        for (index, fault) in self.faults.iter().enumerate() {
            fault.check(index, self)?;
        }
        Ok(())
    }
}

impl Scenario {
    /// Nothing is claimed that is not looked at.
    fn check_invariants(&self) -> Result<()> {
        let claims = |name: &str| self.invariants.iter().any(|claimed| claimed == name);
        ensure!(!self.invariants.is_empty(), "invariants is []; a scenario puts something to the test");
        if let Some(unseen) = self.invariants.iter().find(|name| !OBSERVED.contains(&&***name)) {
            bail!("invariants has {unseen:?}, at which no run looks; it must be of {}", OBSERVED.join(", "));
        }
        ensure!(
            !claims("I4") || self.expect.anew_at_most == Some(0),
            "invariants has \"I4\", which takes expect.anew_at_most = 0: what is in a copy is not begun anew"
        );
        ensure!(
            !claims("I8") || self.expect.longest_gap_s.is_some(),
            "invariants has \"I8\", which takes expect.longest_gap_s"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "about = \"a\"\ninvariants = [\"I2\"]\n[[node]]\nname = \"a\"\n[load]\ncallers = 2\nseconds = 1\n";

    #[test]
    fn all_that_are_in_the_folder_are_right() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let all = Scenario::load(&folder, &[]).expect("right");
        assert!(all.len() >= 10, "{}", all.len());
        assert!(Scenario::load(&folder, &["nothing".to_owned()]).is_err());
    }

    #[test]
    fn mistakes_are_named() {
        assert!(Scenario::parse("a", HEAD).is_ok());
        for (more, expected) in [
            ("poisoned = 2\n", "poisoned is 2"),
            ("[[fault]]\nat_s = 1\ndo = \"pause\"\nwhom = \"owner\"\n", "for_s is missing"),
            ("[[fault]]\nat_s = 1\ndo = \"kill\"\nwhom = \"b\"\n", "whom is \"b\""),
            ("[[fault]]\nat_s = 1\ndo = \"kill\"\n", "whom is \"\""),
            ("[[fault]]\nat_s = 1\ndo = \"dance\"\n", "dance"),
            ("colour = 1\n", "colour"),
            (
                "[[fault]]\nat_s = 1\ndo = \"cut\"\nwhom = \"a\"\nfrom = \"callers\"\nfor_s = 1\n",
                "namespaces",
            ),
            ("[[fault]]\nat_s = 1\ndo = \"kill\"\nwhom = \"a\"\nfrom = \"callers\"\n", "for cut alone"),
            ("[[fault]]\nat_s = 1\ndo = \"kill\"\nwhom = \"a\"\nloss_percent = 5\n", "loss_percent 5"),
            ("[[fault]]\nat_s = 1\ndo = \"fill-disk\"\nwhom = \"a\"\nfor_s = 1\n", "disk_mib"),
            ("[[fault]]\nat_s = 1\ndo = \"upgrade\"\n", "previous"),
        ] {
            let error = Scenario::parse("a", &(HEAD.to_owned() + more)).expect_err(more);
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
    }

    #[test]
    fn what_is_claimed_is_looked_at() {
        let claims = |names: &str, more: &str| {
            let text = HEAD.replace("[\"I2\"]", names) + more;
            Scenario::parse("a", &text).map(drop).map_err(|error| error.to_string())
        };
        for (names, why) in [
            ("[]", "invariants is []"),
            ("[\"I12\"]", "has \"I12\""),
            ("[\"I2\", \"I5\"]", "has \"I5\""),
            ("[\"I4\"]", "anew_at_most"),
            ("[\"I8\"]", "longest_gap_s"),
        ] {
            let error = claims(names, "").expect_err(names);
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(claims("[\"I4\", \"I8\"]", "[expect]\nanew_at_most = 0\nlongest_gap_s = 5\n"), Ok(()));
        assert!(claims("[\"I4\"]", "[expect]\nanew_at_most = 1\n").is_err());
    }

    #[test]
    fn fewer_callers_have_to_notice_less() {
        let text = format!("{HEAD}[expect]\nreconnects_at_least = 2\ndecoders_lost_at_least = 6\n");
        for (callers, expected) in [(1, (1, 0, 3)), (2, (2, 0, 6)), (20, (2, 0, 6))] {
            let mut scenario = Scenario::parse("a", &text).expect("right");
            scenario.with_callers(callers).expect("right");
            let Expect { reconnects_at_least, anew_at_least, decoders_lost_at_least, .. } = scenario.expect;
            assert_eq!((reconnects_at_least, anew_at_least, decoders_lost_at_least), expected, "{callers}");
        }
    }

    #[test]
    fn a_cut_parts_one_node_from_something_else() {
        let head = format!("network = \"namespaces\"\n{HEAD}");
        for (whom, from, fine) in [
            ("owner", "replica", true),
            ("a", "all", true),
            ("decoder", "replica", false),
            ("all", "callers", false),
            ("a", "a", false),
            ("a", "", false),
        ] {
            let text = format!(
                "{head}[[fault]]\nat_s = 1\ndo = \"cut\"\nwhom = {whom:?}\nfrom = {from:?}\nway = \"to\"\nfor_s = 1\n"
            );
            let parsed = Scenario::parse("a", &text);
            assert_eq!(parsed.is_ok(), fine, "{whom} from {from}: {parsed:?}");
        }
    }
}
