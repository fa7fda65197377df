//! The data plane of a node: its socket, and the peers on it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use starling_actors::cluster::{Directory, drop_gone, peers_over};
use starling_actors::control::ControlHandle;
use starling_actors::trust::Trust;
use starling_actors::{
    IncomingStreams, MembershipHandle, NodeHandle, PeerLink, Peers, QuinnLink, QuinnLinkArguments,
    QuinnSocket, QuinnTrust, Reservations,
};
use starling_protocol::NodeName;

use crate::config::ClusterSettings;
use crate::config::load::variable_of;
use crate::exit::{Exit, Failure};

/// The data plane's socket, bound, or `None` for a node on its own.
///
/// # Errors
/// The address can't be listened on.
pub fn bind(settings: &ClusterSettings) -> Result<Option<UdpSocket>, Failure> {
    let Some(gossip) = settings.listen else {
        return Ok(None);
    };
    let address = settings.data.unwrap_or_else(|| SocketAddr::new(gossip.ip(), 0));
    let bound = UdpSocket::bind(address).with_context(|| {
        let variable = variable_of("cluster.data");
        format!("cluster.data = {address} cannot be listened on; choose another address with {variable} or in the file")
    });
    bound.map(Some).map_err(|error| Failure::new(Exit::Os, error))
}

/// This node's end of the data plane.
pub struct DataPlane {
    link: QuinnLink,
    directory: Arc<Directory>,
}

impl DataPlane {
    /// Starts it. What peers open comes out of the second part.
    ///
    /// # Errors
    /// The certificates or the socket can't be used.
    pub fn start(
        name: &NodeName,
        socket: UdpSocket,
        trust: &Trust,
        directory: Arc<Directory>,
    ) -> Result<(Self, IncomingStreams), Failure> {
        let unusable = |error| Failure::new(Exit::Usage, anyhow!("{error}"));
        let trust = QuinnTrust::of(trust).map_err(unusable)?;
        let addresses = Arc::clone(&directory);
        let address_of = Box::new(move |node: &NodeName| addresses.address_of(node));
        let started =
            |error: anyhow::Error| Failure::new(Exit::Os, error.context("the data plane could not start"));
        let socket = QuinnSocket::of(socket).map_err(|error| started(error.into()))?;
        let arguments = QuinnLinkArguments { name: name.clone(), socket, trust, address_of };
        let (link, incoming) = QuinnLink::start(arguments).map_err(|error| started(error.into()))?;
        if let Ok(address) = link.local_addr() {
            // Scripts wait for this line and read a port that the system chose off it.
            tracing::info!(%address, "listening for peers");
        }
        Ok((Self { link, directory }, incoming))
    }

    /// Who else may decode for this node's sessions, and how they are asked to keep slots.
    #[must_use]
    pub fn peers(&self, reservations: Arc<dyn Reservations>) -> Arc<dyn Peers> {
        peers_over(self.link(), Arc::clone(&self.directory), reservations)
    }

    /// The connections, for whoever hears that a peer is lost.
    #[must_use]
    pub fn link(&self) -> Arc<dyn PeerLink> {
        Arc::new(self.link.clone())
    }

    /// Serves what peers open, and drops the streams of those that are gone, until the membership ends.
    pub async fn run(
        self,
        node: NodeHandle,
        incoming: IncomingStreams,
        membership: MembershipHandle,
        control: ControlHandle,
    ) {
        let serving = tokio::spawn(async move { node.serve_peers(incoming).await });
        drop_gone(membership, control, self.link()).await;
        self.link.stop().await;
        serving.abort();
    }
}
