//! Load records on their way through the cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use foca::{BroadcastHandler, Invalidates};
use starling_protocol::gossip::{LoadDecodeError, LoadRecord};
use starling_protocol::{Generation, NodeName};

use super::peer::Peer;

/// Nodes whose records are held. A cluster has a few dozen.
const MOST_RECORDS: usize = 1_024;

/// The latest record of each node. The protocol's library owns the handler that fills it, so both hold it; both work in one
/// actor, one after the other.
#[derive(Clone, Default)]
pub(super) struct Records(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    latest: BTreeMap<NodeName, Arc<LoadRecord>>,
}

impl Records {
    pub(super) fn of(&self, name: &NodeName) -> Option<Arc<LoadRecord>> {
        self.known().latest.get(name).cloned()
    }

    /// Forgets nodes that are members no more.
    pub(super) fn retain(&self, is_member: impl Fn(&NodeName) -> bool) {
        self.known().latest.retain(|name, _| is_member(name));
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether the record is news.
    fn take(&mut self, record: LoadRecord) -> bool {
        let known = self.latest.get(&record.name);
        let is_news = known.is_none_or(|known| record.is_later_than(known));
        if !is_news || (known.is_none() && self.latest.len() >= MOST_RECORDS) {
            return false;
        }
        self.latest.insert(record.name.clone(), Arc::new(record));
        true
    }
}

/// Which record a broadcast is.
pub(super) struct RecordKey {
    name: NodeName,
    version: (Generation, u64),
}

impl Invalidates for RecordKey {
    /// One of equal version too: it is sent anew, for somebody who just joined.
    fn invalidates(&self, other: &Self) -> bool {
        self.name == other.name && self.version >= other.version
    }
}

impl BroadcastHandler<Peer> for Records {
    type Key = RecordKey;
    type Error = LoadDecodeError;

    fn receive_item(
        &mut self,
        data: &[u8],
        sender: Option<&Peer>,
    ) -> Result<Option<RecordKey>, LoadDecodeError> {
        let record = match LoadRecord::decode(data) {
            // A node of a later version; others may understand it, and hear it from that node itself.
            Err(LoadDecodeError::Format(_)) => return Ok(None),
            decoded => decoded?,
        };
        let key = RecordKey { name: record.name.clone(), version: (record.generation, record.revision) };
        // Ours go out whether or not they are news: somebody may have joined.
        let is_ours = sender.is_none();
        Ok((self.known().take(record) || is_ours).then_some(key))
    }
}
