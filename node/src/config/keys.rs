//! Every key of `cluster.toml` with what its value may be: for messages, for suggestions, and for the test that holds the
//! sample file to it.

/// A key and what is allowed there.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its path; a model's keys begin with `model.` whatever the model's place in the list.
    pub path: &'static str,
    /// What the value may be, to follow "it must be".
    pub allowed: &'static str,
}

const ADDRESS: &str = "an IP address and a port such as \"127.0.0.1:8080\" or \"[::1]:8080\", or \"off\"; one listener at least has to be on";
const GOSSIP: &str = "an IP address and a port such as \"127.0.0.1:7400\", or \"off\" for a node on its own";
const SHORT: &str = "a time with its unit from \"100ms\" to \"10m\", such as \"10s\"";
const LONG: &str = "a time with its unit from \"0s\" to \"24h\", such as \"60s\"";
const CUT: &str = "a time with its unit from \"100ms\" to \"60s\", such as \"15s\"";

const LISTENERS_TENANT: &str = "the name of a tenant that there is where keys are asked for, as this protocol carries none and its clients count \
                               as that tenant's; and \"\" where none are";

/// All of them, in the sample file's order.
pub const KEYS: &[Key] = &[
    key("listen.http", ADDRESS),
    key("listen.vosk", ADDRESS),
    key("listen.audiosocket", ADDRESS),
    key("listen.wyoming", ADDRESS),
    key("listen.https", ADDRESS),
    key("listen.vosk_tls", ADDRESS),
    key("listen.audiosocket_tls", ADDRESS),
    key("listen.wyoming_tls", ADDRESS),
    key("listen.quic", ADDRESS),
    key("listen.max_connections", "a whole number from 1 to 1000000"),
    key("listen.max_connections_per_address", "a whole number from 0 to 1000000"),
    key("tls.cert_file", "the path of a PEM file, with a listener over TLS such as listen.https; or \"\""),
    key("tls.key_file", "the path of a PEM file if tls.cert_file is one, and \"\" if that is"),
    key("cluster.node_id", "1 to 63 of the characters a-z, 0-9, - and ., or \"\" for the host's name"),
    key("cluster.zone", "at most 32 letters, digits, -, _ and ."),
    key("cluster.roles", "\"gateway\", \"decoder\" or both, in a list"),
    key("cluster.listen", GOSSIP),
    key(
        "cluster.advertise",
        "the IP address and port at which others reach cluster.listen; \"\" is its own, if that is not 0.0.0.0 or [::]",
    ),
    key("cluster.seeds", "a list of at most 64 of \"host:port\""),
    key("cluster.secret_file", "the path of a file with the secret, or \"\""),
    key(
        "cluster.data",
        "an IP address and a port such as \"10.0.0.7:7401\"; \"\" is a port of the system's choice on the address of cluster.listen",
    ),
    key(
        "cluster.control",
        "an IP address and a port such as \"10.0.0.7:7402\"; \"\" is a port of the system's choice on the address of cluster.listen",
    ),
    key(
        "cluster.ca_file",
        "the path of a PEM file; \"\" if cluster.cert_file and cluster.key_file are \"\" too",
    ),
    key("cluster.cert_file", "the path of a PEM file, or \"\""),
    key("cluster.key_file", "the path of a PEM file, or \"\""),
    key("cluster.copies", "0, 1 or 2"),
    key("cluster.copy_memory", "a size with its unit from \"0B\" to \"64GiB\", such as \"256MiB\""),
    key("cluster.copy_patience", "a time with its unit from \"100ms\" to \"60s\", such as \"2s\""),
    key("cluster.probe", "a time with its unit from \"50ms\" to \"10s\", such as \"200ms\""),
    key("cluster.suspicion", "a time with its unit from cluster.probe to \"60s\", such as \"600ms\""),
    key("gateway.handshake_timeout", SHORT),
    key("gateway.ping_interval", SHORT),
    key(
        "gateway.peer_timeout",
        "a time with its unit, longer than gateway.ping_interval and at most \"10m\"",
    ),
    key("gateway.write_timeout", SHORT),
    key("gateway.vosk_reply_timeout", SHORT),
    key("gateway.max_recording", "a size with its unit from \"64KiB\" to \"4GiB\", such as \"256MiB\""),
    key("gateway.gstreamer_workers", "\"number\" or \"models\""),
    key("gateway.gstreamer_hypotheses", "a whole number from 0 to 10"),
    key("gateway.reference_dir", "the path of a folder, or \"\""),
    key("gateway.allowed_origins", "a list of origins such as \"https://app.example\", or [\"*\"] for any"),
    key(
        "jwt.jwks_file",
        "the path of a file with a JSON Web Key Set, which takes a [[tenant]] for tokens to name; or \"\"",
    ),
    key("jwt.issuer", "what a token's iss has to be, or \"\" for anything"),
    key("jwt.audience", "what a token's aud has to have in it, or \"\" for anything"),
    key("jwt.tenant_claim", "the name of a claim"),
    key("audiosocket.model", "a model's name, or \"\" for the node's default"),
    key("audiosocket.language", "the tag of a language such as \"en\", or \"\" for that of the model"),
    key("audiosocket.tenant", LISTENERS_TENANT),
    key("wyoming.tenant", LISTENERS_TENANT),
    key("sessions.journal", "a size with its unit from \"2MiB\" to \"1GiB\", such as \"4MiB\""),
    key("sessions.linger", LONG),
    key("sessions.queue_wait", "a time with its unit from \"0s\" to \"60s\", such as \"2s\""),
    key("sessions.queue_length", "a whole number from 0 to 100000"),
    key("sessions.retry_after", SHORT),
    key("sessions.slow_reader", SHORT),
    key("sessions.idle", LONG),
    key("sessions.max_audio", "a time with its unit from \"0s\" to \"1000000h\", such as \"24h\""),
    key("sessions.standby", "\"off\", \"warm\" or \"idle\""),
    key("sessions.standby_idle_slots", "a whole number from 0 to 100000"),
    key("sessions.cuts.pause_after", CUT),
    key("sessions.cuts.pause", "a time with its unit from \"100ms\" to \"5s\", such as \"250ms\""),
    key(
        "sessions.cuts.max",
        "a time with its unit from sessions.cuts.pause_after to \"30s\", such as \"15s\"",
    ),
    key("sessions.cuts.no_speech", "a time with its unit from \"1s\" to sessions.cuts.max, such as \"5s\""),
    key("scaling.on_demand", "true or false"),
    key("kubernetes.enabled", "true with cluster.listen, or false"),
    key(
        "kubernetes.stateful_set",
        "the name of a StatefulSet: up to 57 of the characters a-z, 0-9, - and ., the first and last of them a letter or digit",
    ),
    key("kubernetes.namespace", "the name of a namespace, or \"\" for that of the pod"),
    key(
        "kubernetes.lease",
        "the name of a Lease, or \"\" for that of the StatefulSet with -scaler behind it",
    ),
    key("kubernetes.min_pods", "a whole number from 1 to kubernetes.max_pods"),
    key("kubernetes.max_pods", "a whole number from 1 to 1000"),
    key(
        "kubernetes.decoders_per_pod",
        "a whole number from 0 to 16384, and not 0 with a model's scaling.enabled and no scaling.max",
    ),
    key("kubernetes.check_interval", "a time with its unit from \"1s\" to \"10m\", such as \"5s\""),
    key("kubernetes.drain_deadline", LONG),
    key("kubernetes.dry_run", "true or false"),
    key("decoder.program", "the path of a program, or \"\" for starling-decoder beside the running binary"),
    key("log.format", "\"human\" or \"json\""),
    key("log.level", "error, warn, info, debug or trace, or directives such as \"info,starling_node=debug\""),
    key("metrics.legacy_names", "true or false"),
    key(
        "tracing.viewer_url",
        "an address such as \"https://traces.example/trace/{trace_id}\" with {trace_id} in it, or \"\"",
    ),
    key("chaos.enabled", "true or false"),
    key("shutdown.drain_deadline", LONG),
    key("model.name", "a model's name, as `starling models list` gives it, once in the file"),
    key("model.hosts", "a whole number from 1 to 64, or 0 with the model's scaling.enabled"),
    key("model.slots", "a whole number from 1 to 256"),
    key("model.threads", "a whole number from 0 to 256"),
    key("model.prewarm", "a whole number from 0 to the model's slots"),
    key("model.recognizer_audio_budget", LONG),
    key(
        "model.memory_budget",
        "a size with its unit from \"64MiB\", such as \"2GiB\", or \"0B\" for no limit",
    ),
    key("model.load_deadline", "a time with its unit from \"1s\" to \"30m\", such as \"60s\""),
    key("model.nice", "a whole number from -20 to 19"),
    key("model.scaling.enabled", "true or false"),
    key(
        "model.scaling.min",
        "a whole number from 0 to the model's scaling.max, if that is not 0, and at most 16384",
    ),
    key("model.scaling.max", "a whole number from the model's hosts times its slots to 16384, or 0"),
    key("model.scaling.idle_target", "a whole number from 0 to 10000"),
    key("model.scaling.cooldown", LONG),
    key("model.scaling.check_interval", "a time with its unit from \"1s\" to \"1h\", such as \"60s\""),
    key("model.scaling.idle_ttl", LONG),
    key("model.scaling.unused_ttl", LONG),
    key("model.scaling.load_wait", "a time with its unit from \"0s\" to \"10m\", such as \"20s\""),
    key("model.scaling.predictive", "true or false"),
    key(
        "tenant.name",
        "1 to 63 letters, digits, -, _ and ., of which the first is a letter or digit, once in the file",
    ),
    key(
        "tenant.keys",
        "a list of \"sha256:\" with 64 hexadecimal digits, as `starling keys new` prints them",
    ),
    key("tenant.keys_file", "the path of a file with a hash a line, or \"\""),
    key("tenant.models", "a list of models' names"),
    key("tenant.operator", "true or false"),
    key("tenant.sessions", "a whole number from 0 to 1000000"),
    key("tenant.opens_per_second", "a whole number from 0 to 100000"),
    key("tenant.audio_per_day", "a time with its unit from \"0s\" to \"1000000h\", such as \"100h\""),
];

const fn key(path: &'static str, allowed: &'static str) -> Key {
    Key { path, allowed }
}

/// The path without a model's index: `model.2.hosts` becomes `model.hosts`.
#[must_use]
pub fn without_index(path: &str) -> String {
    let parts: Vec<&str> = path
        .split('.')
        .enumerate()
        .filter(|(place, part)| *place != 1 || part.parse::<usize>().is_err())
        .map(|(_, part)| part)
        .collect();
    parts.join(".")
}

/// What is allowed at `path`, where it is a key.
#[must_use]
pub fn allowed(path: &str) -> Option<&'static str> {
    let path = without_index(path);
    KEYS.iter().find(|key| key.path == path).map(|key| key.allowed)
}

/// Whether `path` is a table with keys below it.
#[must_use]
pub fn is_table(path: &str) -> bool {
    let path = without_index(path);
    KEYS.iter().any(|key| key.path.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.')))
}

/// The key or table that somebody who wrote `path` most likely meant.
#[must_use]
pub fn nearest(path: &str) -> Option<&'static str> {
    let path = without_index(path);
    let mut candidates: Vec<&'static str> = Vec::new();
    for key in KEYS {
        let borders = key.path.match_indices('.').map(|(at, _)| &key.path[..at]);
        candidates.extend(borders);
        candidates.push(key.path);
    }
    let split = |path: &'_ str| {
        let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
        (table.to_owned(), name.to_owned())
    };
    let (table, name) = split(&path);
    candidates
        .into_iter()
        .filter(|candidate| !path.starts_with(&format!("{candidate}.")))
        .map(|candidate| {
            let (its_table, its_name) = split(candidate);
            // Of two names equally like it, the one in the same table was meant.
            let nearness = strsim::jaro_winkler(&its_table, &table);
            (strsim::jaro_winkler(&its_name, &name), nearness, candidate)
        })
        // Below it the two have little more than a few letters in common.
        .filter(|(score, ..)| *score > 0.8)
        .max_by(|one, other| one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1)))
        .map(|(.., candidate)| candidate)
}
