//! What OpenTelemetry's variables say of traces.
//!
//! Owns: whether there are any, the protocol, the sampler. Must never: read what the exporter reads by itself.
//!
//! A word of a fixed list that is not known here is left out with a warning, as the specification wants it: such variables are set for
//! all programs of a cluster at once, and some know more words than others.

use anyhow::Context as _;
use opentelemetry_otlp::Protocol;
use opentelemetry_sdk::trace::{OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_QUEUE_SIZE_DEFAULT, Sampler};
use thiserror::Error;

const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const CERTIFICATES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
const INSECURE: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"];
const COMPRESSIONS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
const OF_A_CLIENT: [&str; 4] = [
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
];

/// Where collectors listen, by the registry of ports.
const GRPC_PORT: u16 = 4317;

/// The specification's.
const TIMEOUT_MS: u64 = 10_000;

/// A variable says what can't be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{variable} is {value:?}; it must be {allowed}")]
pub struct TraceSettingsError {
    variable: &'static str,
    value: String,
    allowed: &'static str,
}

/// See the module.
#[derive(Debug)]
pub struct TraceSettings {
    pub(super) protocol: Protocol,
    pub(super) sampler: Sampler,
    pub(super) is_encrypted: bool,
    pub(super) queue_length: usize,
    pub(super) timeout_ms: u64,
    certificates: Option<String>,
    /// Attributes of the service that the operator has named.
    named: Vec<String>,
}

impl TraceSettings {
    /// What this process's variables ask for, and what is to be said of them once there is a log.
    ///
    /// # Errors
    /// See [`TraceSettingsError`].
    pub fn from_environment() -> Result<(Option<Self>, Vec<String>), TraceSettingsError> {
        let mut warnings = Vec::new();
        let settings = Self::from_variables(&|name: &str| std::env::var(name).ok(), &mut warnings)?;
        Ok((settings, warnings))
    }

    /// How it is chosen which spans are kept.
    #[must_use]
    pub const fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// What the variables ask for; `None` where they name no collector or switch traces off. What is left out of it is added to
    /// `warnings`.
    ///
    /// # Errors
    /// See [`TraceSettingsError`].
    pub fn from_variables(
        variable: &impl Fn(&str) -> Option<String>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>, TraceSettingsError> {
        // An empty variable is as good as none, says the specification.
        let get = |name: &str| {
            variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| get(name).map(|value| (name, value)))
        };
        if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let endpoint = first(ENDPOINTS).map(|(_, endpoint)| endpoint);
        if !is_sent(&get, warnings).unwrap_or(endpoint.is_some()) {
            return Ok(None);
        }
        let Some(sampler) = sampler(&get, warnings)? else { return Ok(None) };
        let protocol = protocol(&get, warnings);
        let is_grpc = protocol == Protocol::Grpc;
        if !is_grpc && endpoint.as_deref().and_then(port) == Some(GRPC_PORT) {
            // Without the endpoint, in which there may be a password.
            warnings.push(format!(
                "spans go over HTTP to port {GRPC_PORT}, which is that of OTLP over gRPC: {} must be grpc, or the endpoint's port 4318",
                PROTOCOLS[1]
            ));
        }
        warn_of_what_has_no_effect(&get, warnings);
        // As the exporter reads it, which takes an empty variable for a word too.
        let is_insecure = INSECURE.into_iter().find_map(variable);
        let is_insecure = is_insecure.is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let is_encrypted = |endpoint: &str| match by_scheme(endpoint).0 {
            Some(scheme) => scheme.eq_ignore_ascii_case("https"),
            None => is_grpc && !is_insecure,
        };
        let named = get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let named = named.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.trim().to_owned()));
        let service = get("OTEL_SERVICE_NAME").map(|_| "service.name".to_owned());
        Ok(Some(Self {
            protocol,
            sampler,
            is_encrypted: endpoint.as_deref().is_some_and(is_encrypted),
            queue_length: number(get(OTEL_BSP_MAX_QUEUE_SIZE), OTEL_BSP_MAX_QUEUE_SIZE)?
                .map_or(OTEL_BSP_MAX_QUEUE_SIZE_DEFAULT, |length| {
                    usize::try_from(length).unwrap_or(usize::MAX)
                }),
            timeout_ms: match first(TIMEOUTS) {
                Some((name, value)) => number(Some(value), name)?.unwrap_or(TIMEOUT_MS),
                None => TIMEOUT_MS,
            },
            certificates: first(CERTIFICATES).map(|(_, path)| path),
            named: named.chain(service).collect(),
        }))
    }

    pub(super) const fn protocol_name(&self) -> &'static str {
        match self.protocol {
            Protocol::Grpc => "grpc",
            Protocol::HttpJson => "http/json",
            _ => "http/protobuf",
        }
    }

    /// Whether the operator has said this of the service.
    pub(super) fn names(&self, attribute: &str) -> bool {
        self.named.iter().any(|name| name == attribute)
    }

    /// The authorities that the collector's certificate may be of (PEM); `None` for the machine's.
    pub(super) fn certificates(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(path) = &self.certificates else { return Ok(None) };
        let pem = std::fs::read(path).with_context(|| format!("{} is {path:?}", CERTIFICATES[1]))?;
        Ok(Some(pem))
    }
}

fn unknown(variable: &str, value: &str, known: &str) -> String {
    format!("{variable} is {value:?} and is left out; it can be {known}")
}

/// Whether spans are to be sent, if that is said.
fn is_sent(get: &impl Fn(&str) -> Option<String>, warnings: &mut Vec<String>) -> Option<bool> {
    const NAME: &str = "OTEL_TRACES_EXPORTER";
    let mut is_sent = None;
    // A list, by the specification.
    for value in get(NAME)?.split(',').map(str::trim).filter(|value| !value.is_empty()) {
        match value.to_ascii_lowercase().as_str() {
            "otlp" => is_sent = Some(true),
            "none" => is_sent = is_sent.or(Some(false)),
            _ => warnings.push(unknown(NAME, value, "otlp or none")),
        }
    }
    is_sent
}

fn protocol(get: &impl Fn(&str) -> Option<String>, warnings: &mut Vec<String>) -> Protocol {
    let known = PROTOCOLS.into_iter().find_map(|name| {
        let value = get(name)?;
        match value.to_ascii_lowercase().as_str() {
            "grpc" => Some(Protocol::Grpc),
            "http/protobuf" => Some(Protocol::HttpBinary),
            "http/json" => Some(Protocol::HttpJson),
            _ => {
                warnings.push(unknown(name, &value, "grpc, http/protobuf or http/json"));
                None
            }
        }
    });
    known.unwrap_or(Protocol::HttpBinary)
}

/// `None` for one that takes nothing: then there are no traces at all.
fn sampler(
    get: &impl Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<Option<Sampler>, TraceSettingsError> {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
    const KNOWN: &str = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or \
                         parentbased_traceidratio";
    let ratio = || {
        let Some(text) = get(RATIO) else { return Ok(Sampler::AlwaysOn) };
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map(Sampler::TraceIdRatioBased).ok_or_else(|| refused(RATIO, &text, "a number from 0 to 1"))
    };
    let by_parent = |root: Sampler| Sampler::ParentBased(Box::new(root));
    let value = get(NAME);
    Ok(Some(match value.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("parentbased_always_on") => by_parent(Sampler::AlwaysOn),
        Some("parentbased_always_off") => by_parent(Sampler::AlwaysOff),
        Some("parentbased_traceidratio") => by_parent(ratio()?),
        Some("always_on") => Sampler::AlwaysOn,
        Some("always_off") => return Ok(None),
        Some("traceidratio") => ratio()?,
        Some(_) => {
            warnings.push(unknown(NAME, value.as_deref().unwrap_or_default(), KNOWN));
            by_parent(Sampler::AlwaysOn)
        }
    }))
}

fn warn_of_what_has_no_effect(get: &impl Fn(&str) -> Option<String>, warnings: &mut Vec<String>) {
    for name in COMPRESSIONS {
        let value =
            get(name).filter(|it| !["gzip", "none"].iter().any(|known| it.eq_ignore_ascii_case(known)));
        warnings.extend(value.map(|value| unknown(name, &value, "gzip or none")));
    }
    for name in OF_A_CLIENT.into_iter().filter(|name| get(name).is_some()) {
        warnings
            .push(format!("{name} is left out: no certificate of a client's own is shown to a collector"));
    }
}

/// An endpoint's scheme, if it names one, and the rest.
fn by_scheme(endpoint: &str) -> (Option<&str>, &str) {
    let named = endpoint.split_once("://").filter(|(scheme, _)| !scheme.contains(['/', '?', '#']));
    named.map_or((None, endpoint), |(scheme, rest)| (Some(scheme), rest))
}

fn port(endpoint: &str) -> Option<u16> {
    let authority = by_scheme(endpoint).1.split(['/', '?', '#']).next()?;
    authority.rsplit_once(':')?.1.parse().ok()
}

fn number(value: Option<String>, variable: &'static str) -> Result<Option<u64>, TraceSettingsError> {
    let Some(value) = value else { return Ok(None) };
    let number = value.parse().ok().filter(|number| *number > 0);
    number.map(Some).ok_or_else(|| refused(variable, &value, "a whole number from 1"))
}

fn refused(variable: &'static str, value: &str, allowed: &'static str) -> TraceSettingsError {
    TraceSettingsError { variable, value: value.to_owned(), allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(set: &[(&str, &str)]) -> Result<(Option<TraceSettings>, Vec<String>), TraceSettingsError> {
        let variable =
            |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        let mut warnings = Vec::new();
        let settings = TraceSettings::from_variables(&variable, &mut warnings)?;
        Ok((settings, warnings))
    }

    /// Of which there is nothing to be said.
    fn read(set: &[(&str, &str)]) -> Result<Option<TraceSettings>, TraceSettingsError> {
        let (settings, warnings) = told(set)?;
        assert_eq!(warnings, [""; 0], "{set:?}");
        Ok(settings)
    }

    const COLLECTOR: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");

    #[test]
    fn without_a_collector_or_with_a_word_against_it_there_are_no_traces() {
        for set in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[COLLECTOR, ("OTEL_SDK_DISABLED", "True")],
            &[COLLECTOR, ("OTEL_TRACES_EXPORTER", "none")],
            &[COLLECTOR, ("OTEL_TRACES_SAMPLER", "always_off")],
        ] {
            assert!(read(set).expect("is right").is_none(), "{set:?}");
        }
    }

    #[test]
    fn an_endpoint_is_enough_and_the_narrower_variable_counts() {
        let settings = read(&[COLLECTOR]).expect("is right").expect("is on");
        assert_eq!((settings.protocol, settings.is_encrypted), (Protocol::HttpBinary, false));
        let settings = read(&[
            COLLECTOR,
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_SERVICE_NAME", "speech"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test, service.version=7"),
        ]);
        let settings = settings.expect("is right").expect("is on");
        assert_eq!((settings.protocol, settings.is_encrypted), (Protocol::Grpc, true));
        assert!(settings.names("service.name") && settings.names("service.version"));
        assert!(!settings.names("service.instance.id"));
        assert!(read(&[("OTEL_TRACES_EXPORTER", "otlp")]).expect("is right").is_some());
    }

    #[test]
    fn what_can_t_be_is_named_with_what_would_be_right() {
        for (variable, value, allowed) in [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "a whole number from 1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "a whole number from 1"),
        ] {
            let told = read(&[COLLECTOR, (variable, value)]).expect_err("is refused").to_string();
            assert!(told.starts_with(&format!("{variable} is {value:?}; it must be {allowed}")), "{told}");
        }
        let ratio = [COLLECTOR, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "1.5")];
        let told = read(&ratio).expect_err("is refused").to_string();
        assert_eq!(told, "OTEL_TRACES_SAMPLER_ARG is \"1.5\"; it must be a number from 0 to 1");
    }

    #[test]
    fn a_word_that_is_not_known_is_left_out_and_told_of() {
        let on = |set: &[(&str, &str)]| {
            let (settings, warnings) = told(&[&[COLLECTOR], set].concat()).expect("is right");
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            (settings.expect("is on"), warnings.concat())
        };
        for (variable, value, known) in [
            ("OTEL_TRACES_EXPORTER", "console", "otlp or none"),
            ("OTEL_TRACES_EXPORTER", "otlp,console", "otlp or none"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "udp", "grpc, http/protobuf or http/json"),
            ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote", "always_on"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip or none"),
        ] {
            let (settings, warning) = on(&[(variable, value), ("OTEL_TRACES_SAMPLER_ARG", "endpoint=x")]);
            let value = value.rsplit(',').next().expect("a word");
            let begin = format!("{variable} is {value:?} and is left out; it can be {known}");
            assert!(warning.starts_with(&begin), "{warning}");
            assert_eq!(settings.protocol, Protocol::HttpBinary);
            assert!(format!("{:?}", settings.sampler).starts_with("ParentBased"), "{settings:?}");
        }
        let (settings, _) =
            on(&[("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "udp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "GRPC")]);
        assert_eq!(settings.protocol, Protocol::Grpc, "the wider variable counts");
        let alone = told(&[("OTEL_TRACES_EXPORTER", "console")]).expect("is right");
        assert!(alone.0.is_none() && alone.1.len() == 1, "{alone:?}");
        let (_, warning) = on(&[("OTEL_EXPORTER_OTLP_CLIENT_KEY", "key.pem")]);
        assert!(warning.starts_with("OTEL_EXPORTER_OTLP_CLIENT_KEY is left out"), "{warning}");
    }

    #[test]
    fn an_endpoint_without_a_scheme_is_encrypted_over_grpc_unless_it_is_said_not_to_be() {
        const GRPC: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let is_encrypted = |endpoint, more: &[(&str, &str)]| {
            let set = [&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), GRPC], more].concat();
            read(&set).expect("is right").expect("is on").is_encrypted
        };
        let insecure = |value| [("OTEL_EXPORTER_OTLP_INSECURE", value)];
        assert!(is_encrypted("collector:4317", &[]));
        assert!(is_encrypted("collector:4317/a://b", &insecure("false")));
        assert!(!is_encrypted("collector:4317", &insecure("True")));
        assert!(is_encrypted("HTTPS://collector:4317", &insecure("true")));
        assert!(!is_encrypted("http://collector:4317", &[]));
        let narrower = [("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false"), insecure("true")[0]];
        assert!(is_encrypted("collector:4317", &narrower));
    }

    #[test]
    fn http_to_the_port_of_grpc_is_told_of() {
        let warned = |endpoint, protocol| {
            let set = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)];
            told(&set).expect("is right").1.concat()
        };
        let warning = warned("http://collector:4317/", "http/protobuf");
        assert!(warning.starts_with("spans go over HTTP to port 4317"), "{warning}");
        for (endpoint, protocol) in [
            ("http://collector:4317", "grpc"),
            ("http://collector:4318", "http/json"),
            ("http://[::1]:4318/:4317", "http/json"),
            ("http://collector", "http/json"),
        ] {
            assert_eq!(warned(endpoint, protocol), "", "{endpoint}");
        }
    }
}
