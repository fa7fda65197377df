//! What the planes of a node tell each other of peers.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::Directory;
use crate::control::{ControlHandle, Member, PeerChange, PeerLoss};
use crate::{ClusterChange, LinkedPeers, MemberState, MembershipHandle, PeerLink, Peers, Reservations};

/// Who else may decode for a node's sessions, as its directory knows, and how they are asked to keep slots.
#[must_use]
pub fn peers_over(
    link: Arc<dyn PeerLink>,
    directory: Arc<Directory>,
    reservations: Arc<dyn Reservations>,
) -> Arc<dyn Peers> {
    Arc::new(LinkedPeers {
        link,
        directory: move |model: &str, digest: &str| directory.candidates(model, digest),
        reservations: Some(reservations),
    })
}

/// Keeps links to the members, and drops the data plane's connections with those that are lost: a process that ends
/// closes its sockets at once, which only the control plane notices. Until the membership ends.
pub async fn follow_members(
    control: ControlHandle,
    mut changes: mpsc::Receiver<PeerChange>,
    membership: MembershipHandle,
    data: Arc<dyn PeerLink>,
) {
    let mut views = membership.views();
    let now = Member::of(&views.borrow_and_update());
    control.members(now);
    loop {
        tokio::select! {
            changed = views.changed() => {
                if changed.is_err() {
                    return control.stop().await;
                }
                let now = Member::of(&views.borrow_and_update());
                control.members(now);
            }
            change = changes.recv() => match change {
                Some(PeerChange::Lost { peer, cause }) => {
                    tracing::info!(%peer, ?cause, "a peer is lost");
                    // The connection that it lost on this plane says nothing of those on the other.
                    if cause != PeerLoss::Replaced {
                        data.peer_lost(&peer.name);
                    }
                }
                Some(PeerChange::Up(peer)) => tracing::debug!(%peer, "a peer can be asked"),
                Some(PeerChange::Suspected(peer)) => tracing::debug!(%peer, "a peer is silent"),
                Some(PeerChange::Cleared(peer)) => tracing::debug!(%peer, "a peer answers again"),
                None => {
                    tracing::error!("the control plane has ended; peers are watched on the data plane alone");
                    return;
                }
            },
        }
    }
}

/// Drops the data plane's connections with peers that gossip says are gone, until the membership ends.
pub async fn drop_gone(membership: MembershipHandle, control: ControlHandle, data: Arc<dyn PeerLink>) {
    let mut changes = membership.changes();
    loop {
        match changes.recv().await {
            Ok(ClusterChange::Down(id) | ClusterChange::Left(id)) => {
                // A later run under the name has connections of its own, which are none of the earlier one's business.
                let state = membership.view().get(&id.name).map(|member| member.state);
                if is_gone(state, control.peers().contains(&id)) {
                    data.peer_lost(&id.name);
                }
            }
            // The link's own beats notice whoever was missed here.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
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
