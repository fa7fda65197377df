//! What peers ask of this node's pools.

use std::time::Duration;

use starling_protocol::control::{ModelPool, PoolReply, PoolRequest, Service};

use super::handle::{NodeHandle, ask};
use super::supervisor::PoolEntry;
use crate::pool::PoolMessage;

impl NodeHandle {
    /// Keeps a slot for a peer's session, or gives one back. Comes without waiting for anybody but this node's own actors.
    pub async fn ask_pool(&self, request: PoolRequest) -> PoolReply {
        match request {
            PoolRequest::Reserve { model, digest, session, ttl_ms, failover, trace: _ } => {
                let pools = self.pools().await;
                let served =
                    |entry: &&PoolEntry| *entry.name == *model && entry.digest == digest && entry.decodes;
                let Some(entry) = pools.iter().find(served) else { return PoolReply::NoSuchModel };
                let ttl = Duration::from_millis(ttl_ms.into());
                let message = |reply| PoolMessage::Reserve { session, ttl, failover, reply };
                let milliseconds = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
                match ask(&entry.pool, message).await {
                    Some(Ok((reservation, ttl))) => {
                        PoolReply::Reserved { reservation, ttl_ms: milliseconds(ttl) }
                    }
                    Some(Err(refused)) => {
                        PoolReply::Refused { retry_after_ms: milliseconds(refused.retry_after) }
                    }
                    // The node is ending.
                    None => ModelPool::busy(),
                }
            }
            PoolRequest::Release { reservation } => {
                // A number is given out once on a node, so that only the pool that gave it knows it.
                for entry in self.pools().await {
                    let _ = entry.pool.cast(PoolMessage::Unreserve { reservation });
                }
                PoolReply::Released
            }
            _ => ModelPool::unknown(),
        }
    }
}
