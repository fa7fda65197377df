use std::sync::Arc;
use std::time::Duration;

use starling_actors::{Member, MemberState};
use starling_protocol::gossip::{Addresses, LoadRecord, ModelLoad, Roles};
use starling_protocol::{Generation, NodeId, NodeName};

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp(Duration::from_secs(seconds))
}

fn id(name: &str) -> NodeId {
    NodeId { name: NodeName::parse(name).expect("a name"), generation: Generation(1) }
}

fn load(total: u16, busy: u16) -> ModelLoad {
    ModelLoad {
        name: "m".into(),
        slots_total: total,
        slots_busy: busy,
        slots_idle: total.saturating_sub(busy),
        real_time_factor_milli: None,
        determinism_class: None,
        files: None,
        leaving: false,
        on_demand: false,
    }
}

fn member(name: &str, models: Vec<ModelLoad>, change: impl FnOnce(&mut LoadRecord)) -> Member {
    let mut record = LoadRecord {
        name: id(name).name,
        generation: Generation(1),
        revision: 1,
        version: String::new(),
        zone: String::new(),
        roles: Roles { gateway: true, decoder: true },
        draining: false,
        leaving: false,
        addresses: Addresses::default(),
        replica_bytes_free: 0,
        models,
        models_omitted: 0,
    };
    change(&mut record);
    let address = ([127, 0, 0, 1], 1).into();
    Member { id: id(name), address, state: MemberState::Alive, load: Some(Arc::new(record)) }
}

fn asked(scaling: &ClusterScaling, second: u64, members: Vec<Member>, in_cluster: bool) -> ScalingReport {
    let view = ClusterView { me: id("a"), members };
    scaling.observe(at(second), &view, in_cluster, &NodeStatus::default())
}

fn of_model(report: &ScalingReport) -> (u32, u32, u32, u32, &str) {
    let [model] = &report.models[..] else { panic!("{report:?}") };
    (model.busy, model.idle, model.reserve, model.desired, &model.reason)
}

#[test]
fn a_node_on_its_own_has_five_more_than_are_in_use() {
    let scaling = ClusterScaling::default();
    let alone = || vec![member("a", vec![load(8, 3)], |_| {})];
    assert_eq!(of_model(&asked(&scaling, 0, alone(), false)), (3, 5, 0, 8, "demand"));
    let left = || vec![member("a", vec![load(8, 0)], |_| {})];
    assert_eq!(of_model(&asked(&scaling, 1, left(), false)), (0, 8, 0, 8, "cooldown"));
    // Fewer when nothing has asked for so many within 100 s, which is looked at every 60.
    assert_eq!(of_model(&asked(&scaling, 60, left(), false)).3, 8);
    assert_eq!(of_model(&asked(&scaling, 120, left(), false)), (0, 8, 0, 5, "demand"));
}

#[test]
fn nodes_are_added_up_and_any_may_be_lost() {
    let scaling = ClusterScaling::default();
    let members = vec![
        member("a", vec![load(8, 4)], |_| {}),
        member("b", vec![load(4, 4), load(4, 1)], |_| {}),
        member("c", vec![load(8, 2)], |record| record.draining = true),
    ];
    let report = asked(&scaling, 0, members, true);
    // 16 with the idle ones; when 8 are lost, the others decode them on 8 that take two each.
    assert_eq!(of_model(&report), (11, 7, 0, 16, "demand"));
    assert_eq!((report.nodes, report.models[0].total), (3, 16));
    let few = vec![member("a", vec![load(8, 1)], |_| {}), member("b", vec![load(8, 0)], |_| {})];
    let report = asked(&ClusterScaling::default(), 0, few, true);
    assert_eq!(of_model(&report), (1, 15, 5, 11, "demand"), "one node would be none too few, and no reserve");
}

#[test]
fn who_is_gone_does_not_count_and_what_nobody_serves_is_forgotten() {
    let scaling = ClusterScaling::default();
    let mut gone = member("b", vec![load(8, 8)], |_| {});
    gone.state = MemberState::Down;
    let report = asked(&scaling, 0, vec![member("a", vec![load(4, 0)], |_| {}), gone], false);
    assert_eq!(of_model(&report), (0, 4, 0, 5, "demand"));
    assert_eq!(asked(&scaling, 1, vec![member("a", vec![], |_| {})], false).models, []);
    assert!(scaling.models.lock().expect("no panic").is_empty());
}
