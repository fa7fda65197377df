use super::*;
use proptest::prelude::*;

pub(super) fn record() -> LoadRecord {
    LoadRecord {
        name: NodeName::parse("node-1").expect("a name"),
        generation: Generation(1_790_000_000_123),
        revision: 7,
        version: "0.1.0".to_owned(),
        zone: "eu-1a".to_owned(),
        roles: Roles { gateway: true, decoder: true },
        draining: false,
        leaving: false,
        addresses: Addresses {
            control: Some("10.0.0.1:7401".parse().expect("address")),
            data: Some("10.0.0.1:7402".parse().expect("address")),
            http: Some("[fd00::1]:8080".parse().expect("address")),
        },
        replica_bytes_free: 512 << 20,
        models: vec![ModelLoad {
            name: "vosk-ko-small".to_owned(),
            slots_total: 8,
            slots_busy: 3,
            slots_idle: 5,
            real_time_factor_milli: Some(231),
            determinism_class: Some(0x1122_3344_5566_7788),
            files: Some(0x99aa_bbcc),
            leaving: false,
            on_demand: false,
        }],
        models_omitted: 0,
    }
}

/// A model's part as nodes of the version before wrote and read it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Earlier {
    n: String,
    t: u16,
    b: u16,
    i: u16,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    l: bool,
}

#[test]
fn a_model_that_is_loaded_on_demand_has_no_slots_for_older_nodes_and_theirs_never_are() {
    let cold = ModelLoad { slots_total: 0, slots_busy: 0, slots_idle: 0, on_demand: true, ..model("m") };
    let bytes = rmp_serde::to_vec_named(&cold).expect("encodes");
    let earlier = Earlier { n: "m".to_owned(), t: 0, b: 0, i: 0, l: false };
    assert_eq!(rmp_serde::from_slice::<Earlier>(&bytes).expect("reads"), earlier);
    let bytes = rmp_serde::to_vec_named(&earlier).expect("encodes");
    let read: ModelLoad = rmp_serde::from_slice(&bytes).expect("reads");
    assert!(!read.on_demand && read.slots_total == 0);
}

fn model(name: &str) -> ModelLoad {
    ModelLoad { name: name.to_owned(), ..record().models.remove(0) }
}

#[test]
fn a_record_looks_like_this() {
    let bytes = record().encode().expect("fits");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    insta::assert_snapshot!(hex);
}

#[test]
fn four_models_with_long_names_fit_and_more_are_left_out_and_counted() {
    let mut whole = record();
    whole.models = (0..4).map(|n| model(&format!("moonshine-tiny-en-{n}"))).collect();
    assert_eq!(whole.models.len(), 4);
    whole.encode().expect("fits");

    let mut long = record();
    long.models = (0..20).map(|n| model(&format!("moonshine-tiny-en-{n}"))).collect();
    assert!(matches!(long.encode(), Err(LoadEncodeError::TooLong { .. })));
    let bytes = long.encode_what_fits().expect("fits");
    assert!(bytes.len() <= MAX_RECORD_BYTES);
    let read = LoadRecord::decode(&bytes).expect("reads");
    assert_eq!(read, long);
    assert!(read.models.len() >= 4);
    assert_eq!(read.models.len() + usize::from(read.models_omitted), 20);
}

#[test]
fn a_record_that_fits_with_no_model_either_is_an_error() {
    let mut record = record();
    record.zone = "z".repeat(MAX_RECORD_BYTES);
    assert!(matches!(record.encode_what_fits(), Err(LoadEncodeError::TooLong { .. })));
}

/// What a later version may send: one field more.
#[derive(Serialize)]
struct Later {
    n: &'static str,
    g: u64,
    s: u64,
    r: u8,
    later: [u8; 3],
}

#[test]
fn fields_of_later_versions_are_skipped_and_missing_ones_are_empty() {
    let mut bytes = vec![RECORD_FORMAT];
    let later = Later { n: "b", g: 3, s: 4, r: 0b1000_0010, later: [1, 2, 3] };
    rmp_serde::encode::write_named(&mut bytes, &later).expect("encodes");
    let read = LoadRecord::decode(&bytes).expect("reads");
    assert_eq!(read.node().to_string(), "b#3");
    assert_eq!(read.roles, Roles { gateway: false, decoder: true });
    assert!(read.models.is_empty() && read.addresses == Addresses::default());

    bytes[0] = RECORD_FORMAT + 1;
    assert!(matches!(LoadRecord::decode(&bytes), Err(LoadDecodeError::Format(2))));
    assert!(matches!(LoadRecord::decode(&[]), Err(LoadDecodeError::Empty)));
    assert!(matches!(LoadRecord::decode(&[0; 401]), Err(LoadDecodeError::TooLong { bytes: 401 })));
}

#[test]
fn a_later_run_outranks_any_revision_of_an_earlier_one() {
    let old = record();
    let mut new = old.clone();
    (new.generation, new.revision) = (old.generation.next(), 1);
    assert!(new.is_later_than(&old) && !old.is_later_than(&new) && !old.is_later_than(&old));
}

fn models() -> impl Strategy<Value = Vec<ModelLoad>> {
    let one = (
        "[a-z0-9-]{1,24}",
        any::<u16>(),
        any::<u16>(),
        any::<u16>(),
        any::<Option<u32>>(),
        any::<Option<u64>>(),
        any::<(Option<u32>, bool, bool)>(),
    )
        .prop_map(
            |(name, slots_total, slots_busy, slots_idle, factor, class, (files, leaving, on_demand))| {
                ModelLoad {
                    name,
                    slots_total,
                    slots_busy,
                    slots_idle,
                    real_time_factor_milli: factor,
                    determinism_class: class,
                    files,
                    leaving,
                    on_demand,
                }
            },
        );
    proptest::collection::vec(one, 0..12)
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        models in models(),
        zone in "[a-z0-9-]{0,16}",
        bits in 0u8..4,
        numbers in any::<(u64, u64, u64)>(),
        flags in any::<(bool, bool)>(),
    ) {
        let mut written = LoadRecord {
            models, zone,
            roles: Roles::from(bits),
            generation: Generation(numbers.0),
            revision: numbers.1,
            replica_bytes_free: numbers.2,
            draining: flags.0,
            leaving: flags.1,
            ..record()
        };
        let bytes = written.encode_what_fits().expect("fits");
        prop_assert!(bytes.len() <= MAX_RECORD_BYTES);
        prop_assert_eq!(LoadRecord::decode(&bytes).expect("reads"), written);
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 1..450)) {
        let _ = LoadRecord::decode(&bytes);
        bytes[0] = RECORD_FORMAT;
        let _ = LoadRecord::decode(&bytes);
    }
}
