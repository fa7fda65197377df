//! Places for connections: so many in all, and so many of one address.
//!
//! Owns: the counts. Must never: say no to a connection that has its place.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// A household or a phone has a network of so many bits in IPv6 (RFC 6177), and any address of it.
const NETWORK_BITS: u32 = 64;

/// What all listeners share.
#[derive(Debug)]
pub struct Places {
    left: Arc<Semaphore>,
    /// Of one address; zero for any number.
    per_address: u32,
    held: Mutex<HashMap<IpAddr, u32>>,
}

/// A place that is kept until it is known whose it is.
#[derive(Debug)]
pub struct Free {
    places: Arc<Places>,
    permit: OwnedSemaphorePermit,
}

/// A connection's place. It is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
    /// Whether its address has more than it may.
    crowded: bool,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// So many places, of which one address may have so many; zero for any number.
    #[must_use]
    pub fn new(most: usize, per_address: u32) -> Arc<Self> {
        let left = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { left, per_address, held: Mutex::default() })
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// Never: places are not closed.
    pub async fn next(self: &Arc<Self>) -> Result<Free, AcquireError> {
        let permit = Arc::clone(&self.left).acquire_owned().await?;
        Ok(Free { places: Arc::clone(self), permit })
    }

    /// A place, if there is one now.
    #[must_use]
    pub fn try_next(self: &Arc<Self>) -> Option<Free> {
        let permit = Arc::clone(&self.left).try_acquire_owned().ok()?;
        Some(Free { places: Arc::clone(self), permit })
    }

    /// How many one address may have.
    #[must_use]
    pub const fn per_address(&self) -> u32 {
        self.per_address
    }
}

impl Free {
    /// The place is this peer's.
    #[must_use]
    pub fn taken_by(self, peer: SocketAddr) -> Place {
        let Self { places, permit } = self;
        let address = network(peer.ip());
        let crowded = {
            let mut held = places.held.lock().unwrap_or_else(PoisonError::into_inner);
            let count = held.entry(address).or_default();
            *count += 1;
            places.per_address > 0 && *count > places.per_address
        };
        Place { places, address, crowded, _permit: permit }
    }
}

impl Place {
    /// Whether its address has more than it may, so that the connection is to be told and closed.
    #[must_use]
    pub const fn is_crowded(&self) -> bool {
        self.crowded
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = u128::from(address) >> (128 - NETWORK_BITS) << (128 - NETWORK_BITS);
            IpAddr::V6(Ipv6Addr::from(bits))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[tokio::test]
    async fn an_address_has_as_many_places_as_it_may_and_others_have_theirs() {
        let places = Places::new(10, 2);
        let take = |from: &str| places.try_next().expect("a place").taken_by(peer(from));
        let first = take("10.0.0.1:1");
        let second = take("[::ffff:10.0.0.1]:2");
        assert!(take("10.0.0.1:3").is_crowded());
        assert!(!first.is_crowded() && !second.is_crowded());
        assert!(!take("10.0.0.2:1").is_crowded());
        drop(first);
        assert!(!take("10.0.0.1:4").is_crowded());
    }

    #[tokio::test]
    async fn a_network_of_ipv6_is_one_address() {
        let places = Places::new(10, 1);
        let take = |from: &str| places.try_next().expect("a place").taken_by(peer(from));
        let held = take("[2001:db8::1]:1");
        assert!(take("[2001:db8::2]:1").is_crowded());
        assert!(!take("[2001:db8:0:1::1]:1").is_crowded());
        drop(held);
    }

    #[tokio::test]
    async fn without_a_limit_there_is_one_for_all() {
        let places = Places::new(2, 0);
        let take = || places.try_next().map(|free| free.taken_by(peer("10.0.0.1:1")));
        let held = (take(), take());
        assert!(held.0.as_ref().is_some_and(|place| !place.is_crowded()));
        assert!(take().is_none());
        drop(held);
        assert!(places.next().await.is_ok());
        assert!(places.held.lock().expect("lock").is_empty());
    }
}
