//! What goes wrong: nodes that are gone or stand still, what is lost or comes twice.

use starling_client::machine::{Input, Which};
use starling_core::replica::{OpenFailure, ReplicationEvent};

use crate::model::Mistake;
use crate::state::{AskId, ConnId, LinkId, Node, Outbox, Said, State, ToKeeper, ToOwner, ToServer};

impl State {
    /// A client's connection breaks, with what is on its way. Both ends notice later.
    pub(crate) fn break_conn(&mut self, id: ConnId) {
        let Some(conn) = self.net().conns.get_mut(&id) else { return };
        conn.outbox = Outbox::default();
        conn.broken = true;
        conn.to_server.clear();
        conn.to_server.push_back(ToServer::Closed);
    }

    /// The client notices that its connection is broken, or has had enough of its silence.
    pub(crate) fn client_loses(&mut self) {
        self.client_input(Input::Lost(Which::Present, "gone".into()));
    }

    /// A stream between nodes breaks, with what is on its way. Both ends notice later.
    pub(crate) fn break_link(&mut self, id: LinkId) {
        let Some(link) = self.net().links.get_mut(&id) else { return };
        link.to_keeper.clear();
        link.to_owner.clear();
        if link.keeper_listens {
            link.to_keeper.push_back(ToKeeper::Closed);
        }
        if link.owner_listens {
            link.to_owner.push_back(ToOwner::Lost(OpenFailure::Unreachable));
        }
    }

    /// The asker waits no longer. The question arrives all the same.
    pub(crate) fn ask_times_out(&mut self, id: AskId) {
        if let Some(ask) = self.net.asks.get(&id)
            && matches!(ask.said, Said::Promote)
        {
            self.duplicate(id);
        }
        self.ask_fails(id);
    }

    /// The question arrives twice; nobody waits for the second answer.
    pub(crate) fn duplicate(&mut self, id: AskId) {
        let Some(mut again) = self.net.asks.get(&id).cloned() else { return };
        again.awaited = false;
        let new = self.net().next_id();
        self.net().asks.insert(new, again);
    }

    /// A node is gone, with all that it had.
    pub(crate) fn crash(&mut self, node: Node) {
        let now = self.nodes[node].now;
        let mut gone = crate::model::peer();
        (gone.up, gone.now) = (false, now);
        *self.node(node) = gone;
        let conns: Vec<ConnId> = self.net.conns.keys().copied().collect();
        for id in conns {
            if self.net.conns[&id].node == node {
                self.break_conn(id);
                self.forget_conn(id);
            }
        }
        let links: Vec<LinkId> = self.net.links.keys().copied().collect();
        for id in links {
            let Some(link) = self.net().links.get_mut(&id) else { continue };
            if link.owner == node {
                link.owner_listens = false;
                link.to_owner.clear();
                link.to_keeper.push_back(ToKeeper::Closed);
            }
            if link.keeper == node {
                link.keeper_listens = false;
                link.to_keeper.clear();
                if link.owner_listens {
                    link.to_owner.push_back(ToOwner::Lost(OpenFailure::Unreachable));
                }
            }
            self.forget_link(id);
        }
        let net = self.net();
        // What a node that is gone has asked arrives; what it was answered does not.
        net.asks.retain(|_, ask| ask.asker != node || matches!(ask.said, Said::Promote));
        net.asks.values_mut().filter(|ask| ask.asker == node).for_each(|ask| ask.awaited = false);
        net.asks.retain(|_, ask| ask.awaited || ask.to != node);
        let asked: Vec<AskId> =
            net.asks.iter().filter(|(_, ask)| ask.to == node).map(|(&id, _)| id).collect();
        asked.into_iter().for_each(|id| self.ask_fails(id));
    }

    /// A node goes on after it stood still, and notices that it did.
    pub(crate) fn wake(&mut self) {
        let Some(node) = self.paused.take() else { return };
        if self.mistake == Some(Mistake::PauseUnnoticed) {
            return;
        }
        let sessions: Vec<_> = self.nodes[node].owners.keys().copied().collect();
        for session in sessions {
            self.replicate(node, session, ReplicationEvent::StoodStill);
        }
    }
}
