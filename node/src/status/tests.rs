use super::*;
use crate::cluster::{ModelReport, NodeReport, SessionEntry, SlotsReport};

#[test]
fn a_cluster_is_shown_like_this() {
    let node = |name: &str, state: &str, zone: &str| NodeReport {
        name: name.to_owned(),
        generation: 1_790_000_000_123,
        state: state.to_owned(),
        zone: zone.to_owned(),
        roles: vec!["gateway".to_owned(), "decoder".to_owned()],
        version: "0.1.0".to_owned(),
        gossip: None,
        http: None,
        models: Vec::new(),
    };
    let model = |name: &str, real_time_factor| ModelReport {
        name: name.to_owned(),
        nodes: 2,
        slots: SlotsReport { total: 16, busy: 3, idle: 13 },
        real_time_factor,
    };
    let session = |id: &str, copies: &[&str], decoder: Option<&str>| SessionEntry {
        session: id.to_owned(),
        owner: "node-1".to_owned(),
        dialect: "native".to_owned(),
        model: "moonshine-tiny-en".to_owned(),
        copies: copies.iter().map(|copy| (*copy).to_owned()).collect(),
        durable: !copies.is_empty(),
        connected: decoder.is_some(),
        decoder: decoder.map(str::to_owned),
        standby: decoder.map(|_| "node-4".to_owned()),
        attempt: 2,
        epoch: 1,
        lag_ms: 340,
    };
    let mut gone = node("node-3", "down", "");
    (gone.roles, gone.version) = (Vec::new(), String::new());
    let report = ClusterReport {
        node: "node-1".to_owned(),
        nodes: vec![node("node-1", "alive", "eu-1a"), node("node-2", "draining", "eu-1b"), gone],
        models: vec![model("moonshine-tiny-en", Some(0.0451)), model("vosk-ko-small", None)],
        sessions: vec![
            session("6f2c1f5e-08a3-4b0e-9f0d-3f6f0f5f7a11", &["node-2"], Some("node-2")),
            session("9a41c2d0-5b7e-4f8e-8d57-2f0c9a1e4b33", &[], None),
        ],
    };
    insta::assert_snapshot!(table(&report));
}
