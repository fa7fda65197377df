//! The data plane of a node: its socket, and the peers on it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use starling_actors::control::ControlHandle;
use starling_actors::trust::{NAME_SUFFIX, Trust, peer_name};
use starling_actors::{
    ClusterChange, IncomingStreams, LinkedPeers, MemberState, MembershipHandle, NodeHandle, PeerLink, Peers,
    QuinnLink, QuinnLinkArguments, QuinnTrust, Reservations,
};
use starling_protocol::NodeName;
use starling_protocol::data::DATA_ALPN;
use tokio::sync::broadcast::error::RecvError;

use super::Directory;
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
        let trust = QuinnTrust {
            server: trust.server_config(DATA_ALPN).map_err(unusable)?,
            client: trust.client_config(DATA_ALPN).map_err(unusable)?,
            certificate_name: |name| format!("{name}{NAME_SUFFIX}"),
            peer_name: Box::new(|certificate| peer_name(certificate).ok()),
        };
        let addresses = Arc::clone(&directory);
        let address_of = Box::new(move |node: &NodeName| addresses.address_of(node));
        let arguments = QuinnLinkArguments { name: name.clone(), socket, trust, address_of };
        let (link, incoming) = QuinnLink::start(arguments).map_err(|error| {
            Failure::new(Exit::Os, anyhow!(error).context("the data plane could not start"))
        })?;
        if let Ok(address) = link.local_addr() {
            // Scripts wait for this line and read a port that the system chose off it.
            tracing::info!(%address, "listening for peers");
        }
        Ok((Self { link, directory }, incoming))
    }

    /// Who else may decode for this node's sessions, and how they are asked to keep slots.
    #[must_use]
    pub fn peers(&self, reservations: Arc<dyn Reservations>) -> Arc<dyn Peers> {
        let directory = Arc::clone(&self.directory);
        Arc::new(LinkedPeers {
            link: Arc::new(self.link.clone()) as Arc<dyn PeerLink>,
            directory: move |model: &str, digest: &str| directory.candidates(model, digest),
            reservations: Some(reservations),
        })
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
        let mut changes = membership.changes();
        loop {
            match changes.recv().await {
                Ok(ClusterChange::Down(id) | ClusterChange::Left(id)) => {
                    // A later run under the name has connections of its own, which are none of the earlier one's business.
                    let state = membership.view().get(&id.name).map(|member| member.state);
                    if is_gone(state, control.peers().contains(&id)) {
                        self.link.peer_lost(&id.name);
                    }
                }
                // The link's own beats notice whoever was missed here.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            }
        }
        self.link.stop().await;
        serving.abort();
    }
}

/// Whether connections with a node that gossip gave up are of no use any more. One that answers on the control plane lives,
/// whatever others who don't hear it may say; that plane tells when it does no longer.
fn is_gone(state: Option<MemberState>, answers: bool) -> bool {
    match state {
        Some(MemberState::Alive | MemberState::Suspected) => false,
        Some(MemberState::Down) => !answers,
        Some(MemberState::Left) | None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gossip_alone_does_not_end_what_connects_to_a_node_that_answers() {
        assert!(!is_gone(Some(MemberState::Down), true));
        assert!(is_gone(Some(MemberState::Down), false));
        for answers in [false, true] {
            assert!(is_gone(Some(MemberState::Left), answers));
            assert!(!is_gone(Some(MemberState::Suspected), answers));
        }
    }
}
