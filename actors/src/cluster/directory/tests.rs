use starling_protocol::gossip::{Addresses, Roles};
use starling_protocol::{Generation, NodeId};

use super::*;
use crate::MemberState;

fn id(name: &str) -> NodeId {
    NodeId { name: NodeName::parse(name).expect("a name"), generation: Generation(1) }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn member(name: &str, change: impl FnOnce(&mut LoadRecord)) -> Member {
    let mut record = LoadRecord {
        name: id(name).name,
        generation: Generation(1),
        revision: 1,
        version: String::new(),
        zone: "a".into(),
        roles: Roles { gateway: true, decoder: true },
        draining: false,
        leaving: false,
        addresses: Addresses { data: Some(address(7)), ..Addresses::default() },
        replica_bytes_free: 0,
        models: vec![ModelLoad {
            name: "m".into(),
            slots_total: 4,
            slots_busy: 1,
            slots_idle: 3,
            real_time_factor_milli: None,
            determinism_class: None,
            files: None,
            leaving: false,
            on_demand: false,
        }],
        models_omitted: 0,
    };
    change(&mut record);
    Member { id: id(name), address: address(1), state: MemberState::Alive, load: Some(Arc::new(record)) }
}

fn directory(members: Vec<Member>) -> Directory {
    let directory = Directory::default();
    let view = ClusterView { me: id("me"), members };
    directory.follow(watch::channel(Arc::new(view)).1);
    directory
}

fn names(directory: &Directory) -> Vec<String> {
    directory.candidates("m", "00000001").iter().map(|candidate| candidate.node.to_string()).collect()
}

#[test]
fn only_peers_that_decode_the_model_and_can_be_reached_are_candidates() {
    let mut gone = member("gone", |_| {});
    gone.state = MemberState::Down;
    let mut new = member("new", |_| {});
    new.load = None;
    let directory = directory(vec![
        member("me", |_| {}),
        member("b", |_| {}),
        member("gateway", |record| record.roles.decoder = false),
        member("hidden", |record| record.addresses.data = None),
        member("loading", |record| (record.models[0].slots_total, record.models[0].slots_busy) = (0, 0)),
        member("losing", |record| record.models[0].slots_total = 0),
        member("asleep", |record| {
            let model = &mut record.models[0];
            (model.slots_total, model.slots_busy, model.slots_idle, model.on_demand) = (0, 0, 0, true);
        }),
        member("awake", |record| record.models[0].on_demand = true),
        member("other", |record| record.models[0].name = "n".into()),
        gone,
        new,
    ]);
    assert_eq!(
        names(&directory),
        ["b", "losing", "asleep", "awake"],
        "who has no host any more has streams that count"
    );
    let loads = directory.candidates("m", "00000001");
    assert_eq!(loads.iter().map(|load| load.on_demand).collect::<Vec<_>>(), [false, false, true, false]);
    let load = &loads[0];
    assert_eq!((load.slots, load.busy, load.idle), (4, 1, 3), "what admission counts with");
    assert_eq!(directory.address_of(&id("b").name), Some(address(7)));
    assert_eq!(directory.address_of(&id("gone").name), None);
    assert!(Directory::default().candidates("m", "00000001").is_empty(), "nobody is known at first");
}

#[test]
fn a_session_is_sent_where_its_files_are() {
    let with = |name: &str, files: &[u32]| {
        member(name, |record| {
            let load = record.models.remove(0);
            let loads = files.iter().map(|files| ModelLoad { files: Some(*files), ..load.clone() });
            record.models = loads.collect();
            // What is being left follows what is served.
            record.models.iter_mut().skip(1).for_each(|load| (load.leaving, load.slots_idle) = (true, 0));
        })
    };
    let directory = directory(vec![
        with("alike", &[1]),
        with("newer", &[2]),
        with("changing", &[2, 1]),
        member("silent", |_| {}),
    ]);
    assert_eq!(names(&directory), ["alike", "changing", "silent"]);
    let idle: Vec<u32> = directory.candidates("m", "00000001").iter().map(|found| found.idle).collect();
    assert_eq!(idle, [3, 0, 3], "new sessions are better off elsewhere");
    let all = directory.candidates("m", "of unknown form");
    assert_eq!(all.len(), 4);
}

#[test]
fn a_class_is_told_in_this_nodes_words() {
    let own = determinism_class("vosk; haswell", "digest");
    let directory = directory(vec![
        member("alike", |record| record.models[0].determinism_class = Some(own)),
        member("other", |record| record.models[0].determinism_class = Some(own + 1)),
        member("unknown", |_| {}),
    ]);
    let classes = || -> Vec<String> {
        directory.candidates("m", "00000001").into_iter().map(|candidate| candidate.class).collect()
    };
    assert_eq!(classes(), ["", "", ""], "nothing is known of this node's own yet");
    directory.learn(&status("vosk; haswell", "digest"));
    let other = format!("class {:016x}", own + 1);
    assert_eq!(classes(), ["vosk; haswell", &other, ""]);
}

fn status(determinism: &str, digest: &str) -> NodeStatus {
    use crate::{Capabilities, ModelStatus};
    let model = ModelStatus {
        name: "m".into(),
        pool: 0,
        stage: starling_core::lineup::Stage::Current,
        digest: digest.into(),
        determinism: Some(determinism.into()),
        language: "en".into(),
        engine: starling_protocol::lease::EngineKind::Scripted,
        capabilities: Capabilities {
            words: false,
            alternatives: false,
            phrases: false,
            ..Capabilities::default()
        },
        sample_rate: 16_000,
        hosts_ready: 1,
        hosts_total: 1,
        slots_total: 4,
        slots_busy: 0,
        slots_idle: 4,
        waiting: 0,
        continuing: 0,
        restarts: 0,
        slots_desired: 8,
        hosts_parked: 0,
        policy: starling_core::scaling::ScalingConfig::default(),
        scaling: None,
        real_time_factor: None,
        decoded: std::time::Duration::from_secs(40),
        decoding: std::time::Duration::from_secs(10),
        resident_bytes: 0,
        last_error: None,
    };
    NodeStatus {
        models: vec![model],
        sessions: 0,
        relayed: 0,
        copies: 0,
        copies_bytes: 0,
        copies_free_bytes: 0,
        draining: false,
    }
}

#[test]
fn pages_of_a_node_that_is_gone_are_still_the_clusters() {
    let seen = |members| Arc::new(ClusterView { me: id("me"), members });
    let (views, view) = watch::channel(seen(vec![]));
    let directory = Directory::default();
    directory.follow(view);
    let at = |port: u16| member("b", |record| record.addresses.http = Some(address(port)));
    views.send_replace(seen(vec![at(8)]));
    directory.learn(&NodeStatus::default());
    assert_eq!(directory.http_addresses(), [(id("b").name, address(8))]);
    views.send_replace(seen(vec![]));
    directory.learn(&NodeStatus::default());
    assert_eq!(directory.http_addresses(), []);
    assert_eq!((directory.has_served(address(8)), directory.has_served(address(9))), (true, false));
}
