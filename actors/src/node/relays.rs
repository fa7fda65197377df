//! The sessions of peers that decode here.

use std::collections::HashMap;

use ractor::{Actor, ActorId, ActorRef};
use starling_protocol::data::{DATA_PROTOCOL, LeaseHeader, LeasePurpose, StreamRefusal};
use tokio::sync::watch;
use tracing::{debug, error};

use super::models::Model;
use super::supervisor::NodeMessage;
use crate::data::{LeaseRequest, RelayActor, RelayArguments, RelayMessage, refuse};

/// One relay for each lease of a peer's.
pub(super) struct Relays {
    actors: HashMap<ActorId, ActorRef<RelayMessage>>,
    count: watch::Sender<usize>,
}

impl Relays {
    pub(super) fn new(count: watch::Sender<usize>) -> Self {
        Self { actors: HashMap::new(), count }
    }

    /// Serves a request, or refuses it.
    pub(super) async fn start(
        &mut self,
        myself: &ActorRef<NodeMessage>,
        request: LeaseRequest,
        model: Option<&Model>,
        draining: bool,
    ) {
        let (pool, claim) = match admitted(&request.header, model, draining) {
            Ok(model) => (model.pool.clone(), model.claim()),
            Err(reason) => {
                debug!(from = %request.from, session = %request.header.session, %reason, "a peer's lease is refused");
                tokio::spawn(refuse(request.writer, reason));
                return;
            }
        };
        let arguments = RelayArguments { request, pool, claim };
        match Actor::spawn_linked(None, RelayActor, arguments, myself.get_cell()).await {
            Ok((relay, _)) => {
                self.actors.insert(relay.get_id(), relay);
                self.count.send_replace(self.actors.len());
            }
            // The stream went with the arguments: the peer sees its end.
            Err(problem) => error!(%problem, "a relay's actor cannot be started"),
        }
    }

    /// Asks the peers' sessions to go on elsewhere.
    pub(super) fn leave(&self) {
        for relay in self.actors.values() {
            let _ = relay.cast(RelayMessage::Leave);
        }
    }

    /// Whether it was one of these.
    pub(super) fn forget(&mut self, actor: ActorId) -> bool {
        let known = self.actors.remove(&actor).is_some();
        self.count.send_replace(self.actors.len());
        known
    }
}

fn admitted<'a>(
    header: &LeaseHeader,
    model: Option<&'a Model>,
    draining: bool,
) -> Result<&'a Model, StreamRefusal> {
    if header.version != DATA_PROTOCOL {
        return Err(StreamRefusal::Version { offered: header.version, spoken: DATA_PROTOCOL });
    }
    // A described model that has no hosts here is not served here: asked for it, the pool would ask in vain.
    let name = || header.model.clone();
    let served = model.filter(|model| model.arguments.is_decoded_here());
    let model = served.ok_or_else(|| StreamRefusal::UnknownModel { model: name() })?;
    let served = &model.arguments.digest;
    if *served != header.digest {
        let (offered, served) = (header.digest.clone(), served.clone());
        return Err(StreamRefusal::WrongDigest { model: name(), offered, served });
    }
    // A segment that may kill its host has nowhere else to go once it was sent here.
    if draining && header.purpose != LeasePurpose::Quarantine {
        return Err(StreamRefusal::Draining);
    }
    Ok(model)
}
