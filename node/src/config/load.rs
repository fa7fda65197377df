//! Merges flags over the environment over the file over the defaults, and says of each wrong value where it came from.
//!
//! A setting's variable is `STARLING_` and its path in capitals with two underscores for each dot:
//! `STARLING_LISTEN__HTTP`. Variables without two underscores are no settings (orchestrators make some of their own out of
//! a service's name).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::{ConfigError, Origin};
use super::locate::Positions;
use super::secret::{self, SECRET_VARIABLE, Secret};
use super::tenant::{KEYS_VARIABLE, keys_in, keys_of_variable};
use super::{Settings, TenantSettings, check, keys};
use crate::tenants::{TenantFacts, TokenVerifier};

const VARIABLE_PREFIX: &str = "STARLING_";
const FLAG_LAYER: &str = "flag";
const ENVIRONMENT_LAYER: &str = "environment";
const FILE_LAYER: &str = "file";

/// A setting given on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The setting's path.
    pub key: &'static str,
    /// The flag as it is typed.
    pub flag: &'static str,
    /// Its value.
    pub value: Value,
}

/// Settings that were found to be usable.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The file they came from, if there was one.
    pub file: Option<PathBuf>,
    /// Listening addresses beyond loopback at which no key is asked for, allowed by hand or with the name of a tenant; to be
    /// warned of at each start.
    pub open: Vec<String>,
    /// The cluster's secret, if there is one.
    pub secret: Option<Secret>,
    /// Who may use the node, by their keys; empty for everybody who reaches it.
    pub tenants: Vec<TenantFacts>,
    /// Whose tokens are taken for keys.
    pub tokens: Option<Arc<TokenVerifier>>,
}

/// Reads and checks the settings.
///
/// # Errors
/// The first thing that is wrong, with its key, value, origin and what would be right.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[Flag],
    insecure_open: bool,
) -> Result<Loaded, ConfigError> {
    let (mut secret, mut further_keys) = (None, String::new());
    let environment = environment.into_iter().inspect(|(name, value)| {
        if name == SECRET_VARIABLE && !value.is_empty() {
            secret = Some(Secret::new(value));
        }
        if name == KEYS_VARIABLE {
            further_keys.clone_from(value);
        }
    });
    let sources = Sources::read(file, environment, flags)?;
    let merged = sources.figment.find_value("").unwrap_or_else(|_| Value::from(Dict::new()));
    sources.refuse_unknown(&merged, "")?;
    let settings: Settings = sources.figment.extract().map_err(|error| sources.explain(&error, &merged))?;
    let bad = |key: String| {
        let printed = toml_value(&settings, &key);
        sources.bad_value(&key, &merged, printed)
    };
    if let Some(key) = check::first_out_of_range(&settings) {
        return Err(bad(key));
    }
    if let Some(key) = check::first_not_built(&settings, crate::kubernetes::IS_BUILT) {
        return Err(ConfigError::NotBuilt { origin: sources.origin(key, &merged), key: key.to_owned() });
    }
    let secret = match secret {
        Some(secret) if secret.is_long_enough() => Some(secret),
        Some(secret) => return Err(too_short(&secret)),
        None => sources.secret(&settings.cluster.secret_file, &merged)?,
    };
    if let (Some(address), None) = (settings.cluster.beyond_loopback(), &secret) {
        let key = "cluster.listen".to_owned();
        let origin = sources.origin(&key, &merged);
        return Err(ConfigError::Secretless { key, value: address.to_string(), origin });
    }
    let tenants = sources.tenants(&settings, &further_keys, &merged)?;
    if let Some(key) = check::first_unknown_tenant(&settings, &tenants) {
        return Err(bad(key));
    }
    let keyless = tenants.is_empty();
    let open = if keyless { check::open_addresses(&settings) } else { check::keyless_addresses(&settings) };
    if let (Some((key, value)), true, false) = (open.first(), keyless, insecure_open) {
        return Err(ConfigError::Open {
            key: (*key).to_owned(),
            value: value.to_string(),
            origin: sources.origin(key, &merged),
        });
    }
    let tokens = sources.tokens(&settings, &merged)?;
    Ok(Loaded {
        open: open.iter().map(|(key, address)| format!("{key} = {address}")).collect(),
        settings,
        file: file.map(Path::to_owned),
        secret,
        tenants,
        tokens,
    })
}

fn too_short(secret: &Secret) -> ConfigError {
    ConfigError::BadValue {
        key: "the cluster's secret".to_owned(),
        value: format!("{} bytes long", secret.expose().len()),
        origin: Origin::Environment(SECRET_VARIABLE.to_owned()),
        allowed: secret::ALLOWED.to_owned(),
    }
}

struct Sources {
    figment: Figment,
    file: Option<(PathBuf, Positions)>,
    flags: Vec<(&'static str, &'static str)>,
}

impl Sources {
    fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[Flag],
    ) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        let mut positions = None;
        if let Some(path) = file {
            let (dict, parsed) = read_file(path)?;
            figment = figment.merge(Layer::new(FILE_LAYER, dict));
            positions = Some((path.to_owned(), parsed));
        }
        let defaults = Value::serialize(Settings::default()).unwrap_or_else(|_| Value::from(Dict::new()));
        for (variable, text) in environment {
            if let Some(path) = setting_of(&variable) {
                let value = written(&text, lookup(&defaults, &path));
                figment = figment.merge(Layer::nested(ENVIRONMENT_LAYER, &path, value));
            }
        }
        for flag in flags {
            figment = figment.merge(Layer::nested(FLAG_LAYER, flag.key, flag.value.clone()));
        }
        Ok(Self { figment, file: positions, flags: flags.iter().map(|flag| (flag.key, flag.flag)).collect() })
    }

    fn secret(&self, path: &Path, merged: &Value) -> Result<Option<Secret>, ConfigError> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        secret::read(path).map(Some).map_err(|problem| ConfigError::Secret {
            path: path.to_owned(),
            origin: self.origin("cluster.secret_file", merged),
            problem,
        })
    }

    /// The tenants with all their keys, wherever those stand.
    fn tenants(
        &self,
        settings: &Settings,
        further_keys: &str,
        merged: &Value,
    ) -> Result<Vec<TenantFacts>, ConfigError> {
        let further = keys_of_variable(further_keys).map_err(|value| ConfigError::BadValue {
            key: "the keys".to_owned(),
            value: format!("wrong at {value}"),
            origin: Origin::Environment(KEYS_VARIABLE.to_owned()),
            allowed: "NAME=HASH with commas between, each HASH as `starling keys new` prints it".to_owned(),
        })?;
        let mut tenants = Vec::new();
        for (index, tenant) in settings.tenants.iter().enumerate() {
            let path = &tenant.keys_file;
            let mut keys = Vec::new();
            if !path.as_os_str().is_empty() {
                let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"));
                keys = text.and_then(|text| keys_in(&text)).map_err(|problem| ConfigError::Keys {
                    path: path.clone(),
                    origin: self.origin(&format!("tenant.{index}.keys_file"), merged),
                    problem,
                })?;
            }
            tenants.push(tenant.facts(keys));
        }
        for (name, key) in further {
            match tenants.iter_mut().find(|tenant| tenant.name == name) {
                Some(tenant) => tenant.keys.push(key),
                None => tenants.push(TenantSettings::named(&name).facts(vec![key])),
            }
        }
        for (index, one) in tenants.iter().enumerate() {
            let shares = |other: &&TenantFacts| other.keys.iter().any(|key| one.keys.contains(key));
            if let Some(other) = tenants[index + 1..].iter().find(shares) {
                return Err(ConfigError::BadValue {
                    key: "tenant.keys".to_owned(),
                    value: format!("in part the same for {} and {}", one.name, other.name),
                    origin: self.origin("tenant", merged),
                    allowed: "of one tenant each".to_owned(),
                });
            }
        }
        Ok(tenants)
    }

    fn tokens(&self, settings: &Settings, merged: &Value) -> Result<Option<Arc<TokenVerifier>>, ConfigError> {
        if !settings.jwt.is_on() {
            return Ok(None);
        }
        let path = &settings.jwt.jwks_file;
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"));
        let verifier = text.and_then(|text| TokenVerifier::new(&settings.jwt, &text));
        verifier.map(|verifier| Some(Arc::new(verifier))).map_err(|problem| ConfigError::TokenKeys {
            path: path.clone(),
            origin: self.origin("jwt.jwks_file", merged),
            problem,
        })
    }

    fn refuse_unknown(&self, value: &Value, path: &str) -> Result<(), ConfigError> {
        match value {
            Value::Dict(_, dict) => {
                for (name, inner) in dict {
                    let inner_path = join(path, name);
                    if keys::is_table(&inner_path) {
                        self.refuse_unknown(inner, &inner_path)?;
                    } else if keys::allowed(&inner_path).is_none() {
                        return Err(ConfigError::UnknownKey {
                            origin: self.origin_of(&inner_path, Some(inner)),
                            nearest: keys::nearest(&inner_path),
                            key: inner_path,
                        });
                    }
                }
                Ok(())
            }
            Value::Array(_, values) => values
                .iter()
                .enumerate()
                .try_for_each(|(index, inner)| self.refuse_unknown(inner, &join(path, &index.to_string()))),
            _ => Ok(()),
        }
    }

    /// Turns the merger's error into one that says everything.
    fn explain(&self, error: &figment::Error, merged: &Value) -> ConfigError {
        let path = error.path.join(".");
        if let figment::error::Kind::MissingField(name) = &error.kind {
            let key = join(&path, name);
            return ConfigError::Missing {
                allowed: keys::allowed(&key).unwrap_or("given").to_owned(),
                origin: self.origin(&path, merged),
                key,
            };
        }
        self.bad_value(&path, merged, None)
    }

    fn bad_value(&self, key: &str, merged: &Value, printed: Option<String>) -> ConfigError {
        let written = lookup(merged, key).and_then(|value| serde_json::to_string(value).ok());
        // What stands there may be a key that was pasted by mistake.
        let secret = keys::without_index(key).split('.').take(2).eq(["tenant", "keys"]);
        let written = if secret { Some("something else".to_owned()) } else { written.or(printed) };
        ConfigError::BadValue {
            key: key.to_owned(),
            value: written.unwrap_or_else(|| "unreadable".to_owned()),
            origin: self.origin(key, merged),
            allowed: keys::allowed(key)
                .unwrap_or(match key {
                    "model" => "a list of tables [[model]]",
                    "tenant" => "a list of tables [[tenant]]",
                    _ => "a table",
                })
                .to_owned(),
        }
    }

    fn origin(&self, path: &str, merged: &Value) -> Origin {
        self.origin_of(path, lookup(merged, path))
    }

    fn origin_of(&self, path: &str, value: Option<&Value>) -> Origin {
        let layer = value
            .and_then(|value| self.figment.get_metadata(value.tag()))
            .map(|metadata| metadata.name.as_ref());
        match (layer, &self.file) {
            (Some(FLAG_LAYER), _) => {
                let flag = self.flags.iter().find(|(key, _)| path.starts_with(key));
                Origin::Flag(flag.map_or_else(|| path.to_owned(), |(_, flag)| (*flag).to_owned()))
            }
            (Some(ENVIRONMENT_LAYER), _) => Origin::Environment(variable_of(path)),
            (Some(_), Some((file, positions))) => {
                Origin::File { path: file.clone(), line: positions.line(path) }
            }
            _ => Origin::Default,
        }
    }
}

fn read_file(path: &Path) -> Result<(Dict, Positions), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let syntax =
        |message: String| ConfigError::Syntax { path: path.to_owned(), message: message.trim().to_owned() };
    let positions = Positions::parse(&text).map_err(|error| syntax(error.to_string()))?;
    let dict = toml_edit::de::from_str(&text).map_err(|error| syntax(error.to_string()))?;
    Ok((dict, positions))
}

/// The setting that a variable stands for, if it stands for one.
fn setting_of(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix(VARIABLE_PREFIX)?;
    rest.contains("__").then(|| rest.to_lowercase().replace("__", "."))
}

/// A variable's value. Where the setting is a text, all of it is one, whatever it looks like: a zone may be called 0.
fn written(text: &str, default: Option<&Value>) -> Value {
    let read: Value = text.parse().unwrap_or_else(|never| match never {});
    match (default, &read) {
        // In quotes, or without.
        (_, Value::String(..)) => read,
        (Some(Value::String(..)), _) => Value::from(text.trim()),
        _ => read,
    }
}

/// The variable of a setting.
#[must_use]
pub fn variable_of(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.to_uppercase().replace('.', "__"))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').filter(|part| !part.is_empty()).try_fold(value, |value, part| match value {
        Value::Dict(_, dict) => dict.get(part),
        Value::Array(_, values) => values.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// A setting's value as it would be written, for one that nobody wrote.
fn toml_value(settings: &Settings, path: &str) -> Option<String> {
    let value = Value::serialize(settings).ok()?;
    serde_json::to_string(lookup(&value, path)?).ok()
}

/// One source of settings, named so that a value can be traced back to it.
struct Layer {
    name: &'static str,
    dict: Dict,
}

impl Layer {
    const fn new(name: &'static str, dict: Dict) -> Self {
        Self { name, dict }
    }

    fn nested(name: &'static str, path: &str, value: Value) -> Self {
        let dict = figment::util::nest(path, value).into_dict().unwrap_or_default();
        Self::new(name, dict)
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}
