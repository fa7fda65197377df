use unicode_width::UnicodeWidthStr as _;

use super::*;
use crate::cluster::{HostsReport, ModelReport, NodeReport, SessionEntry, SlotsReport};

fn a_cluster() -> ClusterReport {
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
        hosts: HostsReport::default(),
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
        ..SessionEntry::default()
    };
    let mut gone = node("node-3", "down", "");
    (gone.roles, gone.version) = (Vec::new(), String::new());
    ClusterReport {
        node: "node-1".to_owned(),
        nodes: vec![node("node-1", "alive", "eu-1a"), node("node-2", "draining", "eu-1b"), gone],
        models: vec![model("moonshine-tiny-en", Some(0.0451)), model("vosk-ko-small", None)],
        sessions: vec![
            session("6f2c1f5e-08a3-4b0e-9f0d-3f6f0f5f7a11", &["node-2"], Some("node-2")),
            session("9a41c2d0-5b7e-4f8e-8d57-2f0c9a1e4b33", &[], None),
        ],
    }
}

#[test]
fn a_cluster_is_shown_like_this() {
    insta::assert_snapshot!(table(&a_cluster()));
}

#[test]
fn a_terminal_shows_it_like_this() {
    let mut report = a_cluster();
    let mut model = report.models[0].clone();
    model.hosts = HostsReport { ready: 2, total: 2 };
    report.nodes[0].models = vec![model.clone(), report.models[1].clone()];
    model.hosts.ready = 1;
    report.nodes[1].models = vec![model];
    let plain = Terminal { columns: 120, rows: 40, colours: false };
    insta::assert_snapshot!(screen(&report, "17:13:41 UTC", plain));
    for terminal in
        [plain, Terminal { columns: 40, rows: 7, ..plain }, Terminal { columns: 1, rows: 1, ..plain }]
    {
        let text = screen(&report, "17:13:41 UTC", terminal);
        assert!(text.lines().count() < terminal.rows.max(2), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= terminal.columns), "{text}");
    }
    let coloured = screen(&report, "17:13:41 UTC", Terminal { colours: true, ..plain });
    assert!(coloured.contains("\x1b[32m● alive"), "{coloured}");
    let uncoloured: String =
        coloured.split("\x1b[").map(|part| part.split_once('m').map_or(part, |(_, rest)| rest)).collect();
    assert!(uncoloured.contains("● alive"), "{uncoloured}");
}

#[test]
fn what_a_server_makes_up_neither_breaks_the_screen_nor_the_table() {
    let mut report = a_cluster();
    report.nodes[0].zone = "\x1b[2J\n한국".repeat(30_000);
    report.nodes[0].models = report.models.clone();
    for model in report.models.iter_mut().chain(&mut report.nodes[0].models) {
        model.slots = SlotsReport { total: u64::MAX, busy: u64::MAX, idle: 0 };
    }
    let terminal = Terminal { columns: 100, rows: 20, colours: false };
    let (screen, table) = (screen(&report, "17:13:41 UTC", terminal), table(&report));
    assert!(screen.lines().all(|line| line.width() <= terminal.columns), "{screen}");
    assert!(screen.lines().count() < terminal.rows, "{screen}");
    assert!(!table.contains('\x1b') && !screen.contains('\x1b'), "{screen}");
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[2..].iter().all(|line| line.len() < 1_000), "one long word has widened every line");
}
