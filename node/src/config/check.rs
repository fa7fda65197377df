//! The ranges of settings, as [`super::keys`] words them.

use std::net::SocketAddr;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use starling_protocol::NodeName;
use starling_protocol::limits::MAX_ALTERNATIVES;

use super::tenant::is_name;
use super::{ModelSettings, Role, Settings, is_object_name};
use crate::gateway::is_origin;
use crate::tenants::{KeyHash, TenantFacts};

/// The key of the first setting that is out of its range.
#[must_use]
pub fn first_out_of_range(settings: &Settings) -> Option<String> {
    general(settings)
        .into_iter()
        .find(|(_, fine)| !fine)
        .map(|(key, _)| key.to_owned())
        .or_else(|| models(settings))
        .or_else(|| tenants(settings))
}

/// The key of the first setting that asks for what this program was built without.
#[must_use]
pub fn first_not_built(settings: &Settings, scales_pods: bool) -> Option<&'static str> {
    (settings.kubernetes.enabled && !scales_pods).then_some("kubernetes.enabled")
}

/// Listening addresses that others can reach.
#[must_use]
pub fn open_addresses(settings: &Settings) -> Vec<(&'static str, SocketAddr)> {
    settings
        .listen
        .all()
        .into_iter()
        .filter_map(|(key, address)| address.map(|address| (key, address)))
        .filter(|(_, address)| !address.ip().to_canonical().is_loopback())
        .collect()
}

/// Of those, the ones of protocols that carry no key: whoever reaches them is served as the tenant that the settings name.
#[must_use]
pub fn keyless_addresses(settings: &Settings) -> Vec<(&'static str, SocketAddr)> {
    let keyless = |key: &str| key.starts_with("listen.audiosocket") || key.starts_with("listen.wyoming");
    open_addresses(settings).into_iter().filter(|(key, _)| keyless(key)).collect()
}

/// The key of the first setting that should name a tenant and does not, or names one that there is not.
#[must_use]
pub fn first_unknown_tenant(settings: &Settings, tenants: &[TenantFacts]) -> Option<String> {
    let listen = &settings.listen;
    let named = [
        ("audiosocket.tenant", listen.takes_calls(), &settings.audiosocket.tenant),
        (
            "wyoming.tenant",
            listen.wyoming.is_some() || listen.wyoming_tls.is_some(),
            &settings.wyoming.tenant,
        ),
    ];
    let known = |name: &str| match tenants {
        [] => name.is_empty(),
        tenants => tenants.iter().any(|tenant| tenant.name == name),
    };
    let wrong = named.into_iter().find(|(_, listens, name)| *listens && !known(name));
    wrong.map(|(key, ..)| key.to_owned())
}

fn general(settings: &Settings) -> Vec<(&'static str, bool)> {
    let (listen, gateway, sessions) = (&settings.listen, &settings.gateway, &settings.sessions);
    let (cuts, cluster, tls) = (&sessions.cuts, &settings.cluster, &settings.tls);
    let kubernetes = &settings.kubernetes;
    let over_tls = listen.all().iter().any(|(key, address)| is_over_tls(key) && address.is_some());
    vec![
        ("listen.http", listen.all().iter().any(|(_, address)| address.is_some())),
        ("listen.max_connections_per_address", listen.max_connections_per_address <= 1_000_000),
        ("listen.max_connections", (1..=1_000_000).contains(&listen.max_connections)),
        ("tls.cert_file", !over_tls || !tls.cert_file.as_os_str().is_empty()),
        ("tls.key_file", tls.key_file.as_os_str().is_empty() == tls.cert_file.as_os_str().is_empty()),
        ("cluster.node_id", cluster.node_id.is_empty() || NodeName::parse(&cluster.node_id).is_ok()),
        ("cluster.zone", zone(&cluster.zone)),
        ("cluster.roles", matches!(cluster.roles[..], [_]) || both(&cluster.roles)),
        ("cluster.advertise", cluster.advertised().is_none_or(|address| !address.ip().is_unspecified())),
        ("cluster.seeds", cluster.seeds.len() <= 64 && cluster.seeds.iter().all(|seed| host_and_port(seed))),
        ("cluster.ca_file", cluster.certificates_are_whole()),
        ("cluster.copies", cluster.copies <= 2),
        ("cluster.copy_memory", cluster.copy_memory <= 64 << 30),
        ("cluster.copy_patience", between(cluster.copy_patience, 100, 60_000)),
        ("cluster.probe", between(cluster.probe, 50, 10_000)),
        ("cluster.suspicion", cluster.suspicion >= cluster.probe && between(cluster.suspicion, 50, 60_000)),
        ("gateway.handshake_timeout", short(gateway.handshake_timeout)),
        ("gateway.ping_interval", short(gateway.ping_interval)),
        ("gateway.peer_timeout", gateway.peer_timeout > gateway.ping_interval && short(gateway.peer_timeout)),
        ("gateway.write_timeout", short(gateway.write_timeout)),
        ("gateway.vosk_reply_timeout", short(gateway.vosk_reply_timeout)),
        ("gateway.max_recording", (64 << 10..=4 << 30).contains(&gateway.max_recording)),
        ("gateway.gstreamer_hypotheses", gateway.gstreamer_hypotheses <= MAX_ALTERNATIVES),
        ("gateway.allowed_origins", gateway.allowed_origins.iter().all(|origin| is_origin(origin))),
        ("jwt.jwks_file", !settings.jwt.is_on() || !settings.tenants.is_empty()),
        ("jwt.tenant_claim", !settings.jwt.tenant_claim.is_empty()),
        ("sessions.journal", (2 << 20..=1 << 30).contains(&sessions.journal)),
        ("sessions.linger", long(sessions.linger)),
        ("sessions.queue_wait", sessions.queue_wait <= Duration::from_secs(60)),
        ("sessions.queue_length", sessions.queue_length <= 100_000),
        ("sessions.retry_after", short(sessions.retry_after)),
        ("sessions.slow_reader", short(sessions.slow_reader)),
        ("sessions.idle", long(sessions.idle)),
        ("sessions.max_audio", sessions.max_audio <= Duration::from_secs(1_000_000 * 3_600)),
        ("sessions.standby_idle_slots", sessions.standby_idle_slots <= 100_000),
        ("sessions.cuts.pause_after", between(cuts.pause_after, 100, 60_000)),
        ("sessions.cuts.pause", between(cuts.pause, 100, 5_000)),
        ("sessions.cuts.max", cuts.max >= cuts.pause_after && between(cuts.max, 100, 30_000)),
        ("sessions.cuts.no_speech", cuts.no_speech <= cuts.max && between(cuts.no_speech, 1_000, 30_000)),
        ("kubernetes.enabled", !kubernetes.enabled || cluster.listen.is_some()),
        ("kubernetes.stateful_set", !kubernetes.enabled || is_object_name(&kubernetes.stateful_set, 57)),
        (
            "kubernetes.namespace",
            kubernetes.namespace.is_empty() || is_object_name(&kubernetes.namespace, 63),
        ),
        ("kubernetes.lease", kubernetes.lease.is_empty() || is_object_name(&kubernetes.lease, 253)),
        ("kubernetes.min_pods", (1..=kubernetes.max_pods).contains(&kubernetes.min_pods)),
        ("kubernetes.max_pods", (1..=1_000).contains(&kubernetes.max_pods)),
        (
            "kubernetes.decoders_per_pod",
            kubernetes.decoders_per_pod <= 64 * 256 && kubernetes.knows_decoders(&settings.models),
        ),
        ("kubernetes.check_interval", between(kubernetes.check_interval, 1_000, 10 * 60_000)),
        ("kubernetes.drain_deadline", long(kubernetes.drain_deadline)),
        ("log.level", log_level(&settings.log.level)),
        ("tracing.viewer_url", settings.tracing.is_whole()),
        ("shutdown.drain_deadline", long(settings.shutdown.drain_deadline)),
    ]
}

fn models(settings: &Settings) -> Option<String> {
    let names: Vec<&str> = settings.models.iter().map(|model| model.name.as_str()).collect();
    settings.models.iter().enumerate().find_map(|(index, model)| {
        let fields = [
            ("name", !model.name.trim().is_empty() && !names[..index].contains(&model.name.as_str())),
            ("hosts", (u16::from(!model.scaling.enabled)..=64).contains(&model.hosts)),
            ("slots", (1..=256).contains(&model.slots)),
            ("threads", model.threads <= 256),
            ("prewarm", model.prewarm <= model.slots),
            ("recognizer_audio_budget", long(model.recognizer_audio_budget)),
            ("memory_budget", model.memory_budget == 0 || model.memory_budget >= 64 << 20),
            ("load_deadline", between(model.load_deadline, 1_000, 30 * 60_000)),
            ("nice", (-20..=19).contains(&model.nice)),
        ];
        let (field, _) = fields.into_iter().chain(scaling(model)).find(|(_, fine)| !fine)?;
        Some(format!("model.{index}.{field}"))
    })
}

fn scaling(model: &ModelSettings) -> [(&'static str, bool); 8] {
    let scaling = &model.scaling;
    let (always, most) = (u32::from(model.hosts) * u32::from(model.slots), 64 * 256);
    let unbounded = scaling.max == 0;
    [
        ("scaling.min", scaling.min <= if unbounded { most } else { scaling.max }),
        ("scaling.max", unbounded || (always..=most).contains(&scaling.max)),
        ("scaling.idle_target", scaling.idle_target <= 10_000),
        ("scaling.cooldown", long(scaling.cooldown)),
        ("scaling.check_interval", between(scaling.check_interval, 1_000, 3_600_000)),
        ("scaling.idle_ttl", long(scaling.idle_ttl)),
        ("scaling.unused_ttl", long(scaling.unused_ttl)),
        ("scaling.load_wait", scaling.load_wait <= Duration::from_secs(600)),
    ]
}

fn tenants(settings: &Settings) -> Option<String> {
    let names: Vec<&str> = settings.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    settings.tenants.iter().enumerate().find_map(|(index, tenant)| {
        let day = Duration::from_secs(1_000_000 * 3_600);
        let fields = [
            ("name", is_name(&tenant.name) && !names[..index].contains(&tenant.name.as_str())),
            ("keys", tenant.keys.iter().all(|key| key.parse::<KeyHash>().is_ok())),
            ("models", tenant.models.iter().all(|model| !model.trim().is_empty())),
            ("sessions", tenant.sessions <= 1_000_000),
            ("opens_per_second", tenant.opens_per_second <= 100_000),
            ("audio_per_day", tenant.audio_per_day <= day),
        ];
        let (field, _) = fields.into_iter().find(|(_, fine)| !fine)?;
        Some(format!("tenant.{index}.{field}"))
    })
}

fn is_over_tls(key: &str) -> bool {
    matches!(key, "listen.https" | "listen.quic") || key.ends_with("_tls")
}

fn zone(name: &str) -> bool {
    // A load record has 400 bytes for everything.
    name.len() <= 32 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn both(roles: &[Role]) -> bool {
    roles.len() == 2 && roles.contains(&Role::Gateway) && roles.contains(&Role::Decoder)
}

fn host_and_port(seed: &str) -> bool {
    let named = |(host, port): (&str, &str)| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !host.is_empty() && host.chars().all(allowed) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    seed.parse::<SocketAddr>().is_ok() || seed.rsplit_once(':').is_some_and(named)
}

fn short(value: Duration) -> bool {
    between(value, 100, 10 * 60_000)
}

fn long(value: Duration) -> bool {
    between(value, 0, 24 * 60 * 60_000)
}

fn between(value: Duration, least_ms: u64, most_ms: u64) -> bool {
    (Duration::from_millis(least_ms)..=Duration::from_millis(most_ms)).contains(&value)
}

/// A bare word that is no level would be taken for a target's name, and a misspelt level would log everything.
fn log_level(directives: &str) -> bool {
    let words_are_levels = directives
        .split(',')
        .filter(|directive| !directive.contains(['=', '[']))
        .all(|word| word.trim().parse::<LevelFilter>().is_ok());
    words_are_levels && EnvFilter::try_new(directives).is_ok()
}
