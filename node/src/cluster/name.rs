//! The name of a node that was given none.

use starling_protocol::NodeName;
use starling_protocol::ids::NodeNameError;

/// What a host without a usable name is called.
const FALLBACK: &str = "starling-1";

/// The name that was set, or one made of the host's.
pub(super) fn chosen(set: &str) -> Result<NodeName, NodeNameError> {
    if !set.is_empty() {
        return NodeName::parse(set);
    }
    let host = rustix::system::uname();
    NodeName::parse(&usable(&host.nodename().to_string_lossy())).or_else(|_| NodeName::parse(FALLBACK))
}

/// Host names may have capitals, and on some systems underscores.
fn usable(host: &str) -> String {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let host = host.to_ascii_lowercase();
    host.chars().take(NodeName::MAX_BYTES).map(|c| if allowed(c) { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_set_stands_and_a_host_gives_a_usable_one() {
        assert_eq!(chosen("a").expect("fine").as_str(), "a");
        assert!(chosen("A").is_err());
        assert!(chosen("").is_ok());
        assert_eq!(usable("Büro_PC.lan"), "b-ro-pc.lan");
        assert_eq!(usable(&"x".repeat(70)).len(), 63);
        assert!(NodeName::parse(&usable("")).is_err(), "and then the fallback is taken");
    }
}
