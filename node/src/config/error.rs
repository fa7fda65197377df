//! What is wrong with the configuration, for the person who wrote it.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// On the command line, by this flag.
    Flag(String),
    /// In the environment, by this variable.
    Environment(String),
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// Its line, from 1, where it could be found.
        line: Option<usize>,
    },
    /// Nowhere: it is the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::File { path, line: Some(line) } => write!(f, "{} line {line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// The configuration can't be used. Nothing was started.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("configuration file {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("configuration file {} is not TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what, with the line.
        message: String,
    },
    /// A key that means nothing.
    #[error("{key} ({origin}) is no setting{}", hint(*nearest))]
    UnknownKey {
        /// The key as it was written.
        key: String,
        /// Where.
        origin: Origin,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
    /// A value that is not allowed.
    #[error("{key} is {value} ({origin}); it must be {allowed}")]
    BadValue {
        /// The key.
        key: String,
        /// The value as it was written.
        value: String,
        /// Where.
        origin: Origin,
        /// What would be right.
        allowed: String,
    },
    /// A key that has to be there.
    #[error("{key} is missing ({origin}); it must be {allowed}")]
    Missing {
        /// The key.
        key: String,
        /// The place that lacks it.
        origin: Origin,
        /// What would be right.
        allowed: String,
    },
    /// The secret's file is no use.
    #[error("cluster.secret_file is {} ({origin}), which {problem}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// Where it was named.
        origin: Origin,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of keys is no use.
    #[error("tenant.keys_file is {} ({origin}), which {problem}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// Where it was named.
        origin: Origin,
        /// What is wrong with it.
        problem: String,
    },
    /// The file of the keys that tokens are signed with is no use.
    #[error("jwt.jwks_file is {} ({origin}), which {problem}", path.display())]
    TokenKeys {
        /// The file.
        path: PathBuf,
        /// Where it was named.
        origin: Origin,
        /// What is wrong with it.
        problem: String,
    },
    /// Something that this program can't do.
    #[error(
        "{key} is true ({origin}), but this program was built without it: build one with `cargo build --release --package starling \
         --features kubernetes`, take the image, which has it, or leave {key} false"
    )]
    NotBuilt {
        /// The key.
        key: String,
        /// Where.
        origin: Origin,
    },
    /// Others could join the cluster, and nothing tells who they are.
    #[error(
        "{key} is {value} ({origin}); beyond loopback anybody who reaches the address could join, so it takes a secret that all \
         nodes share: name a file with it in cluster.secret_file, or set the variable {}",
        super::secret::SECRET_VARIABLE
    )]
    Secretless {
        /// The key.
        key: String,
        /// The address.
        value: String,
        /// Where.
        origin: Origin,
    },
    /// An address that others can reach, and nothing that tells who they are.
    #[error(
        "{key} is {value} ({origin}); beyond loopback anybody who reaches the address could use this node, as no \
         key is asked for: list who may in [[tenant]], listen on 127.0.0.1 or [::1], or allow it with --insecure-open"
    )]
    Open {
        /// The key.
        key: String,
        /// The address.
        value: String,
        /// Where.
        origin: Origin,
    },
}

fn hint(nearest: Option<&'static str>) -> String {
    nearest.map_or_else(
        || "; the sample file cluster.toml explains all there are".to_owned(),
        |nearest| format!("; did you mean {nearest}?"),
    )
}
