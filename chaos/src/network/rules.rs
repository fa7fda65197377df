//! What the switch drops, as nftables reads it.
//!
//! Owns: the text. Must never: apply it.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    /// All of it.
    Drop { from: Ipv4Addr, to: Ipv4Addr },
    /// So many of a hundred packets, each way.
    Lose { of: Ipv4Addr, percent: u8 },
}

/// Takes the place of whatever there was. Devices that begin with `i` belong to a link that makes packets late: what goes over
/// them has come over the floor already, or will.
pub(super) fn ruleset<'a>(rules: impl Iterator<Item = &'a Rule>) -> String {
    let mut text = "table bridge chaos\ndelete table bridge chaos\ntable bridge chaos {\n  chain forward {\n    \
                    type filter hook forward priority 0; policy accept;\n    iifname \"i*\" accept\n    oifname \"i*\" accept\n"
        .to_owned();
    for rule in rules {
        // Writing into a String does not fail.
        let _ = match rule {
            Rule::Drop { from, to } => writeln!(text, "    ip saddr {from} ip daddr {to} counter drop"),
            // Where the runner asks nodes, nothing is lost.
            Rule::Lose { of, percent } => writeln!(
                text,
                "    ip saddr {of} numgen random mod 100 < {percent} counter drop\n    ip daddr {of} numgen random mod 100 < {percent} counter drop"
            ),
        };
    }
    text.push_str("  }\n}\n");
    text
}

/// The sum of all counters, in what nftables lists.
pub(super) fn packets(listed: &str) -> u64 {
    let counts = listed.split("counter packets ").skip(1);
    counts.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_one_line_and_a_loss_two() {
        let [a, b] = [1, 2].map(|host| Ipv4Addr::new(10, 88, 0, host));
        let rules = [Rule::Drop { from: a, to: b }, Rule::Lose { of: b, percent: 20 }];
        let text = ruleset(rules.iter());
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(
            lines[7..],
            [
                "ip saddr 10.88.0.1 ip daddr 10.88.0.2 counter drop",
                "ip saddr 10.88.0.2 numgen random mod 100 < 20 counter drop",
                "ip daddr 10.88.0.2 numgen random mod 100 < 20 counter drop",
                "}",
                "}"
            ]
        );
        let listed = "ip saddr 10.88.0.1 counter packets 3 bytes 180 drop\n ip daddr 10.88.0.1 counter packets 40 bytes 9 drop";
        assert_eq!(packets(listed), 43);
        assert!(!ruleset([].into_iter()).contains("drop"));
    }
}
