//! What OpenTelemetry's variables say of traces.
//!
//! Owns: whether there are any, the protocol, the sampler. Must never: read what the exporter reads by itself.

use anyhow::Context as _;
use opentelemetry_otlp::Protocol;
use opentelemetry_sdk::trace::{OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_QUEUE_SIZE_DEFAULT, Sampler};
use thiserror::Error;

const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const CERTIFICATES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];

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
    /// What this process's variables ask for.
    ///
    /// # Errors
    /// See [`TraceSettingsError`].
    pub fn from_environment() -> Result<Option<Self>, TraceSettingsError> {
        Self::from_variables(&|name: &str| std::env::var(name).ok())
    }

    /// How it is chosen which spans are kept.
    #[must_use]
    pub const fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// What the variables ask for; `None` where they name no collector or switch traces off.
    ///
    /// # Errors
    /// See [`TraceSettingsError`].
    pub fn from_variables(
        variable: &impl Fn(&str) -> Option<String>,
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
        match get("OTEL_TRACES_EXPORTER").as_deref() {
            Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(value) => return Err(refused("OTEL_TRACES_EXPORTER", value, "otlp or none")),
            None if endpoint.is_none() => return Ok(None),
            None => {}
        }
        let Some(sampler) = sampler(&get)? else { return Ok(None) };
        let protocol = match first(PROTOCOLS) {
            None => Protocol::HttpBinary,
            Some((name, value)) => match value.as_str() {
                "grpc" => Protocol::Grpc,
                "http/protobuf" => Protocol::HttpBinary,
                "http/json" => Protocol::HttpJson,
                value => return Err(refused(name, value, "grpc, http/protobuf or http/json")),
            },
        };
        let named = get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let named = named.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.trim().to_owned()));
        let service = get("OTEL_SERVICE_NAME").map(|_| "service.name".to_owned());
        Ok(Some(Self {
            protocol,
            sampler,
            is_encrypted: endpoint.is_some_and(|endpoint| endpoint.starts_with("https://")),
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

/// `None` for one that takes nothing: then there are no traces at all.
fn sampler(get: &impl Fn(&str) -> Option<String>) -> Result<Option<Sampler>, TraceSettingsError> {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
    let ratio = || {
        let Some(text) = get(RATIO) else { return Ok(Sampler::AlwaysOn) };
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map(Sampler::TraceIdRatioBased).ok_or_else(|| refused(RATIO, &text, "a number from 0 to 1"))
    };
    let by_parent = |root: Sampler| Sampler::ParentBased(Box::new(root));
    Ok(Some(match get(NAME).as_deref() {
        None | Some("parentbased_always_on") => by_parent(Sampler::AlwaysOn),
        Some("parentbased_always_off") => by_parent(Sampler::AlwaysOff),
        Some("parentbased_traceidratio") => by_parent(ratio()?),
        Some("always_on") => Sampler::AlwaysOn,
        Some("always_off") => return Ok(None),
        Some("traceidratio") => ratio()?,
        Some(value) => {
            let allowed = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or \
                           parentbased_traceidratio";
            return Err(refused(NAME, value, allowed));
        }
    }))
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

    fn read(set: &[(&str, &str)]) -> Result<Option<TraceSettings>, TraceSettingsError> {
        TraceSettings::from_variables(&|name: &str| {
            set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        })
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
            ("OTEL_TRACES_EXPORTER", "zipkin", "otlp or none"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "udp", "grpc, http/protobuf or http/json"),
            ("OTEL_TRACES_SAMPLER", "some", "always_on"),
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
}
