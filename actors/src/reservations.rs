//! Slots that peers keep for sessions of this node.
//!
//! Owns: the words of a reservation and what their answers mean, and that what is kept in vain is given back. Must never:
//! hold up a session that could be served without.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use starling_protocol::control::{PoolReply, PoolRequest, ReservationId};
use starling_protocol::lease::TraceContext;
use starling_protocol::{NodeName, SessionId};
use thiserror::Error;
use tokio::runtime::Handle;

/// How long a peer is asked to keep a slot: the stream that is to use it opens within a round trip.
const TTL: Duration = Duration::from_secs(2);

/// How long giving one back may take. It runs out by itself soon after.
const RELEASE: Duration = Duration::from_secs(1);

/// A way to the pools of peers.
pub trait Reservations: Send + Sync + 'static {
    /// Asks a peer's pool, and waits for `within` at most.
    fn ask(
        &self,
        node: &NodeName,
        request: PoolRequest,
        within: Duration,
    ) -> BoxFuture<'static, Result<PoolReply, NoAnswer>>;
}

/// A peer's pool has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoAnswer {
    /// There is no way to ask it now. Nothing was sent.
    #[error("its pool can't be asked now")]
    NotAsked,
    /// It was asked and is silent. It may have kept a slot, which runs out.
    #[error("its pool did not answer in time")]
    Silent,
}

/// What a slot is wanted for.
pub(crate) struct Wanted<'a> {
    pub(crate) model: &'a str,
    pub(crate) digest: &'a str,
    pub(crate) session: SessionId,
    pub(crate) trace: Option<TraceContext>,
}

/// A peer keeps no slot, and is not worth asking on a stream either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum ReserveError {
    /// It has none.
    #[error("no slot is free; one may be in {retry_after:?}")]
    Refused {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// It does not have that model, or another under the name.
    #[error("it does not have that model")]
    NoSuchModel,
    /// Too much is asked of it.
    #[error("too much is asked of it")]
    Busy,
    /// It did not answer. It may have kept a slot, which runs out.
    #[error(transparent)]
    NoAnswer(NoAnswer),
}

impl ReserveError {
    /// When it is worth asking again, if the peer said so.
    pub(crate) const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after } => Some(retry_after),
            Self::NoSuchModel | Self::Busy | Self::NoAnswer(_) => None,
        }
    }
}

/// A slot that a peer keeps. Given back when this is dropped, unless it was used.
pub(crate) struct Kept {
    reservations: Arc<dyn Reservations>,
    node: NodeName,
    reservation: Option<ReservationId>,
}

/// Asks a peer to keep a slot for a session that begins. `None` when the stream has to ask: there is no way to its pool, or
/// it is of a version that keeps none.
pub(crate) async fn reserve(
    reservations: Arc<dyn Reservations>,
    node: &NodeName,
    wanted: Wanted<'_>,
    within: Duration,
) -> Result<Option<Kept>, ReserveError> {
    let request = PoolRequest::Reserve {
        model: wanted.model.to_owned(),
        digest: wanted.digest.to_owned(),
        session: wanted.session,
        ttl_ms: TTL.as_millis() as u32,
        failover: false,
        trace: wanted.trace,
    };
    match reservations.ask(node, request, within).await {
        Ok(PoolReply::Reserved { reservation, .. }) => {
            let (node, reservation) = (node.clone(), Some(reservation));
            Ok(Some(Kept { reservations, node, reservation }))
        }
        Ok(PoolReply::Refused { retry_after_ms }) => {
            Err(ReserveError::Refused { retry_after: Duration::from_millis(retry_after_ms.into()) })
        }
        Ok(PoolReply::NoSuchModel) => Err(ReserveError::NoSuchModel),
        Ok(PoolReply::Busy) => Err(ReserveError::Busy),
        Err(NoAnswer::Silent) => Err(ReserveError::NoAnswer(NoAnswer::Silent)),
        Ok(_) | Err(NoAnswer::NotAsked) => Ok(None),
    }
}

impl Kept {
    /// Its number on the stream.
    pub(crate) fn number(&self) -> Option<u64> {
        self.reservation.map(|reservation| reservation.0)
    }

    /// It has become a lease.
    pub(crate) fn was_used(mut self) {
        self.reservation = None;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Outside of a runtime the program ends, and the reservation runs out.
        if let Some(reservation) = self.reservation.take()
            && let Ok(runtime) = Handle::try_current()
        {
            // Has no effect on one that has become a lease or is gone.
            let releasing = self.reservations.ask(&self.node, PoolRequest::Release { reservation }, RELEASE);
            runtime.spawn(releasing);
        }
    }
}
