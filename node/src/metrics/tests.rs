use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use starling_actors::{
    Capabilities, Dialect, ModelStatus, Observation, Observer, SessionPhase, SessionStanding,
};
use starling_core::lineup::Stage;
use starling_core::pool::HostEnd;
use starling_core::session::LossCause;
use starling_protocol::CutCause;
use starling_protocol::lease::EngineKind;

use super::*;
use crate::cluster::Cluster;
use crate::tenants::Tenants;

const SECOND: Duration = Duration::from_secs(1);

fn metrics(legacy_names: bool) -> Metrics {
    Metrics::new(["fake"], MetricsOptions { legacy_names, disk: PathBuf::from("/") })
}

fn pool(pool: u64, stage: Stage) -> ModelStatus {
    ModelStatus {
        name: "fake".to_owned(),
        pool,
        stage,
        digest: "ab12".to_owned(),
        determinism: None,
        language: "en".to_owned(),
        engine: EngineKind::Scripted,
        capabilities: Capabilities {
            words: true,
            alternatives: true,
            phrases: false,
            ..Capabilities::default()
        },
        sample_rate: 16_000,
        hosts_ready: 2,
        hosts_total: 2,
        slots_total: 8,
        slots_busy: 3,
        slots_idle: 5,
        slots_desired: 12,
        hosts_parked: 0,
        policy: starling_core::scaling::ScalingConfig::default(),
        scaling: None,
        waiting: 1,
        continuing: 0,
        restarts: 4,
        decoded: 40 * SECOND,
        decoding: 10 * SECOND,
        real_time_factor: Some(0.25),
        resident_bytes: 1 << 20,
        last_error: None,
    }
}

fn scraped(metrics: &Metrics, models: Vec<ModelStatus>) -> String {
    let status = NodeStatus { models, ..NodeStatus::default() };
    let cluster = Cluster::alone("node-1").expect("a name");
    let tenants = Tenants::new(Vec::new()).usage();
    let machine = metrics.read_machine();
    let scrape = Scrape {
        status: &status,
        cluster: &cluster.view(&status),
        scaling: &cluster.scaling(&status),
        ready: true,
        tenants: &tenants,
        machine: Some(&machine),
    };
    metrics.encode(&scrape).expect("fits")
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
}

/// One of each, as far as series need one to come to be.
fn observe_everything(metrics: &Metrics) {
    metrics.note_actuator_leads(true);
    metrics.note_actuator_action("grow", "done");
    let (model, dialect) = ("fake", Dialect::Native);
    let standing = SessionStanding { phase: SessionPhase::Away, lacks_copy: true };
    for observation in [
        Observation::SessionRequested { dialect },
        Observation::SessionAdmitted { dialect, model, queue_wait: SECOND },
        Observation::SessionRefused { dialect, reason: ErrorCode::Busy },
        Observation::SessionResumed { dialect },
        Observation::SessionTakenOver { dialect },
        Observation::SessionLeftAlone { dialect },
        Observation::SessionChanged { dialect, was: None, is: Some(standing) },
        Observation::SessionEnded { dialect, model, outcome: "done" },
        Observation::WordsLost { model, words: 2 },
        Observation::AudioReceived { dialect, audio: SECOND },
        Observation::FirstPartial { model, live: true, after: SECOND },
        Observation::FinalCommitted {
            model,
            live: false,
            cause: CutCause::NoSpeech,
            latency: SECOND,
            since_speech: Some(SECOND),
        },
        Observation::FinalReleased { model, took: SECOND },
        Observation::DecoderLost { model, cause: LossCause::NodeLost },
        Observation::StandbyPromoted { model },
        Observation::StandbyLost { model, cause: "differed" },
        Observation::Replayed { model, cause: "node_lost", audio: SECOND, took: SECOND },
        Observation::SegmentGivenUp { model },
        Observation::HostStarted { model, load: SECOND, prewarm: SECOND },
        Observation::HostExited { model, end: HostEnd::Crashed },
        Observation::HostLoadFailed { model, message: "no" },
        Observation::GossipRefused { reason: "own" },
        Observation::GossipAnswered { took: SECOND },
        Observation::StoodStill { pause: SECOND },
    ] {
        metrics.observe(&observation);
    }
    metrics.note_cluster_certificate(32_503_680_000);
    metrics.note_resumed(SECOND);
    metrics.note_resume_refused(ErrorCode::Gap);
    metrics.note_backpressure(SECOND);
    metrics.note_key_refused("no_key");
    metrics.note_suspect_audio("rate");
}

#[test]
fn what_is_observed_is_counted() {
    let metrics = metrics(false);
    observe_everything(&metrics);
    let text = scraped(&metrics, vec![pool(0, Stage::Current)]);
    for line in [
        r#"starling_sessions_requested_total{dialect="native"} 1"#,
        r#"starling_sessions_refused_total{dialect="native",reason="busy"} 1"#,
        r#"starling_sessions{state="away",dialect="native"} 1"#,
        r#"starling_sessions_ended_total{dialect="native",model="fake",outcome="done"} 1"#,
        "starling_sessions_lacking_copy 1",
        r#"starling_words_lost_total{model="fake"} 2"#,
        r#"starling_finals_total{model="fake",cause="no_speech"} 1"#,
        r#"starling_final_latency_seconds_count{model="fake",pace="recording"} 1"#,
        // The recording rules name this bucket.
        r#"starling_final_latency_seconds_bucket{le="1.0",model="fake",pace="recording"} 1"#,
        r#"starling_failover_seconds_count{model="fake",cause="node_lost"} 1"#,
        // At an alert's threshold.
        r#"starling_failover_seconds_bucket{le="3.0",model="fake",cause="node_lost"} 1"#,
        r#"starling_hosts_exited_total{model="fake",cause="crashed"} 1"#,
        r#"starling_resumes_refused_total{reason="gap"} 1"#,
        "starling_backpressure_seconds_total 1.0",
        r#"starling_suspect_audio_total{reason="rate"} 1"#,
        "starling_clock_stalls_total 1",
        "starling_gossip_round_trip_seconds_count 1",
        r#"starling_certificate_expiry_timestamp_seconds{certificate="cluster"} 32503680000"#,
        r#"starling_node_info{node="node-1",zone="",roles=""} 1"#,
        "starling_ready 1",
    ] {
        has(&text, line);
    }
    assert!(!text.contains("worker"), "{text}");
}

#[test]
fn series_that_are_sure_to_come_begin_at_nothing() {
    let text = scraped(&metrics(false), Vec::new());
    for line in [
        r#"starling_sessions_refused_total{dialect="vosk",reason="internal"} 0"#,
        r#"starling_hosts_exited_total{model="fake",cause="load_failed"} 0"#,
        r#"starling_decoders_lost_total{model="fake",cause="node_lost"} 0"#,
        r#"starling_failover_seconds_count{model="fake",cause="taken_over"} 0"#,
        r#"starling_sessions_ended_total{dialect="http",model="fake",outcome="crashed"} 0"#,
        r#"starling_words_lost_total{model="fake"} 0"#,
    ] {
        has(&text, line);
    }
}

#[test]
fn the_pools_of_a_model_are_counted_together_and_one_that_is_gone_not_at_all() {
    let metrics = metrics(false);
    let text = scraped(&metrics, vec![pool(0, Stage::Current), pool(1, Stage::Loading)]);
    has(&text, r#"starling_slots{model="fake"} 16"#);
    has(&text, r#"starling_slots_desired{model="fake"} 24"#);
    has(&text, r#"starling_desired_decoders{model="fake"} 10"#);
    has(&text, r#"starling_decoded_audio_seconds_total{model="fake"} 80.0"#);
    // The first pool has done its part, and its sums go with it.
    let grown = ModelStatus { decoded: 50 * SECOND, ..pool(1, Stage::Current) };
    let text = scraped(&metrics, vec![grown]);
    has(&text, r#"starling_slots{model="fake"} 8"#);
    has(&text, r#"starling_decoded_audio_seconds_total{model="fake"} 90.0"#);
    has(&text, r#"starling_decoding_cpu_seconds_total{model="fake"} 20.0"#);
    let text = scraped(&metrics, Vec::new());
    assert!(!text.contains("starling_slots{"), "{text}");
}

#[test]
fn the_older_systems_names_are_there_where_they_are_asked_for() {
    let metrics = metrics(true);
    observe_everything(&metrics);
    let text = scraped(&metrics, vec![pool(0, Stage::Current), pool(1, Stage::Leaving)]);
    for line in [
        "number_of_request_receive_by_master_total 1",
        "number_of_request_received_by_master_total 1",
        "number_of_request_reject_total 1",
        "number_of_worker_available 10",
        r#"worker_status{model="fake",status="busy"} 6"#,
        r#"worker_status{model="fake",status="loading"} 8"#,
        r#"worker_model{model="fake"} 16"#,
    ] {
        has(&text, line);
    }
}

/// A metric as it is scraped.
#[derive(Default)]
struct Described {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

fn described(text: &str) -> BTreeMap<String, Described> {
    let mut metrics: BTreeMap<String, Described> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().help = help.trim_end_matches('.').to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((sample, rest)) = line.split_once('{') {
            let labels = rest.split_once('}').expect("closed").0;
            let names = labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name);
            let of = |name: &str| {
                let rest = sample.strip_prefix(name);
                rest.is_some_and(|rest| ["", "_total", "_info", "_bucket", "_sum", "_count"].contains(&rest))
            };
            let name = metrics.keys().filter(|name| of(name)).max_by_key(|name| name.len()).cloned();
            let metric = metrics.get_mut(&name.expect("is described before")).expect("is there");
            metric.labels.extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
    metrics
}

fn table(text: &str) -> String {
    let mut rows = "| metric | type | labels | what it is |\n|---|---|---|---|\n".to_owned();
    for (name, Described { kind, help, labels }) in described(text) {
        let suffix = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        rows += &format!("| `{name}{suffix}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    rows
}

/// The list in docs/metrics.md is what a node exports. `STARLING_WRITE_DOCS=1 cargo test -p starling --lib metrics` writes it.
#[test]
fn the_list_of_metrics_is_what_is_exported() {
    let metrics = metrics(true);
    observe_everything(&metrics);
    let list = table(&scraped(&metrics, vec![pool(0, Stage::Current)]));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = std::fs::read_to_string(&path).expect("docs/metrics.md");
    let (begin, end) = ("<!-- list -->\n", "<!-- end of list -->\n");
    let (before, rest) = page.split_once(begin).expect("the list's beginning");
    let (found, after) = rest.split_once(end).expect("the list's end");
    if std::env::var_os("STARLING_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{begin}\n{list}\n{end}{after}")).expect("written");
    } else {
        assert_eq!(found.trim(), list.trim(), "see this test for how the list is written anew");
    }
}

fn deployed(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn what_rules_and_dashboard_ask_for_is_exported() {
    let metrics = metrics(false);
    observe_everything(&metrics);
    let exported = described(&scraped(&metrics, vec![pool(0, Stage::Current)]));
    let recording = deployed("deploy/prometheus/recording.yml");
    let recorded: BTreeSet<&str> =
        recording.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    let alerts = deployed("deploy/prometheus/alerts.yml");
    let dashboard = deployed("deploy/grafana/starling.json");
    let mut asked = 0;
    for (file, text) in
        [("recording.yml", &recording), ("alerts.yml", &alerts), ("starling.json", &dashboard)]
    {
        let names = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        for name in names
            .filter(|name| ["starling_", "starling:", "process_"].iter().any(|own| name.starts_with(own)))
        {
            let suffixes = ["", "_total", "_bucket", "_count", "_sum", "_info"];
            let is_exported = suffixes
                .iter()
                .any(|suffix| name.strip_suffix(suffix).is_some_and(|name| exported.contains_key(name)));
            assert!(is_exported || recorded.contains(name), "{file} asks for {name}");
            asked += 1;
        }
    }
    assert!(asked > 150, "{asked}");
}

/// The chart puts both files into one object, and Prometheus reads none of its groups if a name is there twice.
#[test]
fn no_two_groups_of_rules_have_one_name() {
    let files = ["alerts", "recording"].map(|name| deployed(&format!("deploy/prometheus/{name}.yml")));
    let mut names: Vec<&str> = files
        .iter()
        .flat_map(|text| text.lines().filter_map(|line| line.trim_start().strip_prefix("- name: ")))
        .collect();
    let found = names.len();
    names.sort_unstable();
    names.dedup();
    assert!(found > 5 && names.len() == found, "{names:?}");
}

#[test]
fn each_alert_has_its_section_in_the_runbook() {
    let (alerts, runbook) = (deployed("deploy/prometheus/alerts.yml"), deployed("docs/runbook.md"));
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let sections: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert!(!names.is_empty());
    assert_eq!(names.iter().collect::<BTreeSet<_>>(), sections.iter().collect());
    for name in names {
        let url = format!("runbook_url: docs/runbook.md#{}", name.to_lowercase());
        assert!(alerts.lines().any(|line| line.trim() == url), "{url}");
    }
}
