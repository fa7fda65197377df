//! `[cluster]`: the nodes that this one works with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units;

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSettings {
    /// The node's name; empty for the host's.
    pub node_id: String,
    /// Where it stands.
    pub zone: String,
    /// What it does.
    #[serde(with = "units::list")]
    pub roles: Vec<Role>,
    /// Where it gossips; `None` for a node on its own.
    #[serde(with = "units::address")]
    pub listen: Option<SocketAddr>,
    /// Where others reach that, if not there.
    #[serde(with = "units::optional_address")]
    pub advertise: Option<SocketAddr>,
    /// Nodes to join by.
    #[serde(with = "units::list")]
    pub seeds: Vec<String>,
    /// File with the secret; empty for none.
    pub secret_file: PathBuf,
    /// Where it exchanges audio; `None` for a port of the system's choice beside `listen`.
    #[serde(with = "units::optional_address")]
    pub data: Option<SocketAddr>,
    /// Where it is asked by other nodes; `None` for a port of the system's choice beside `listen`.
    #[serde(with = "units::optional_address")]
    pub control: Option<SocketAddr>,
    /// Certificates of the authorities to trust in place of the secret's; empty for none.
    pub ca_file: PathBuf,
    /// The node's certificate in place of the secret's; empty for none.
    pub cert_file: PathBuf,
    /// The certificate's key.
    pub key_file: PathBuf,
    /// Copies of each session on other nodes.
    pub copies: u8,
    /// Memory for copies of other nodes' sessions.
    #[serde(with = "units::bytes")]
    pub copy_memory: u64,
    /// How long a session waits for a new copy when its last is lost.
    #[serde(with = "units::duration")]
    pub copy_patience: Duration,
    /// How often another node is probed.
    #[serde(with = "units::duration")]
    pub probe: Duration,
    /// How long a suspect has to speak up.
    #[serde(with = "units::duration")]
    pub suspicion: Duration,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It takes clients.
    Gateway,
    /// It decodes.
    Decoder,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        let timings = starling_actors::MembershipTimings::default();
        Self {
            node_id: String::new(),
            zone: String::new(),
            roles: vec![Role::Gateway, Role::Decoder],
            listen: None,
            advertise: None,
            seeds: Vec::new(),
            secret_file: PathBuf::new(),
            data: None,
            control: None,
            ca_file: PathBuf::new(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            copies: 1,
            copy_memory: 256 << 20,
            copy_patience: Duration::from_secs(2),
            probe: timings.probe,
            suspicion: timings.suspicion,
        }
    }
}

impl ClusterSettings {
    /// Where others are told to reach this node.
    #[must_use]
    pub fn advertised(&self) -> Option<SocketAddr> {
        self.listen.map(|listen| self.advertise.unwrap_or(listen))
    }

    /// Whether certificates are given whole or not at all.
    #[must_use]
    pub fn certificates_are_whole(&self) -> bool {
        let given = [&self.ca_file, &self.cert_file, &self.key_file].map(|path| !path.as_os_str().is_empty());
        given == [true; 3] || given == [false; 3]
    }

    /// The listening address, if other machines can reach it.
    #[must_use]
    pub fn beyond_loopback(&self) -> Option<SocketAddr> {
        self.listen.filter(|address| !address.ip().to_canonical().is_loopback())
    }
}
