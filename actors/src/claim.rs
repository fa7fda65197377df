//! Who rests on a pool: everybody who may ask it for a decoder holds a claim, and a pool that is claimed is not ended.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The claims to one pool.
pub(crate) struct Claims {
    inner: Arc<Inner>,
}

struct Inner {
    count: AtomicUsize,
    unclaimed: Unclaimed,
}

/// Called when the last claim was given back. Must not block.
pub(crate) type Unclaimed = Arc<dyn Fn() + Send + Sync>;

/// A claim to a pool, shared by its clones. The last of them gives it back when it is dropped.
#[derive(Clone)]
pub(crate) struct Claim {
    _held: Arc<Held>,
}

struct Held {
    claims: Arc<Inner>,
}

impl Claims {
    pub(crate) fn new(unclaimed: Unclaimed) -> Self {
        Self { inner: Arc::new(Inner { count: AtomicUsize::new(0), unclaimed }) }
    }

    /// One more.
    pub(crate) fn claim(&self) -> Claim {
        self.inner.count.fetch_add(1, Ordering::AcqRel);
        Claim { _held: Arc::new(Held { claims: Arc::clone(&self.inner) }) }
    }

    /// Whether there is any.
    pub(crate) fn any(&self) -> bool {
        self.inner.count.load(Ordering::Acquire) > 0
    }
}

/// Claims to whichever pool has a model's files: of sessions that may come to live here, and name no pool yet.
#[derive(Clone)]
pub(crate) struct FilesClaims {
    by_files: Arc<Mutex<HashMap<Files, Claims>>>,
    unclaimed: Unclaimed,
}

/// A model's name and digest.
type Files = (String, String);

impl FilesClaims {
    pub(crate) fn new(unclaimed: Unclaimed) -> Self {
        Self { by_files: Arc::default(), unclaimed }
    }

    /// One more.
    pub(crate) fn claim(&self, model: &str, digest: &str) -> Claim {
        let mut by_files = self.lock();
        by_files.retain(|_, claims| claims.any());
        let claims = by_files.entry((model.to_owned(), digest.to_owned()));
        claims.or_insert_with(|| Claims::new(Arc::clone(&self.unclaimed))).claim()
    }

    /// Whether there is any.
    pub(crate) fn any(&self, model: &str, digest: &str) -> bool {
        self.lock().iter().any(|((name, files), claims)| name == model && files == digest && claims.any())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Files, Claims>> {
        // Nothing is half done under it.
        self.by_files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.claims.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            (self.claims.unclaimed)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_claim_tells() {
        let told = Arc::new(AtomicUsize::new(0));
        let telling = Arc::clone(&told);
        let claims = Claims::new(Arc::new(move || {
            telling.fetch_add(1, Ordering::AcqRel);
        }));
        assert!(!claims.any());
        let (one, other) = (claims.claim(), claims.claim());
        let clone = one.clone();
        drop((one, other));
        assert!(claims.any() && told.load(Ordering::Acquire) == 0);
        drop(clone);
        assert!(!claims.any() && told.load(Ordering::Acquire) == 1);
    }

    #[test]
    fn files_are_claimed_by_name_and_digest() {
        let claims = FilesClaims::new(Arc::new(|| {}));
        let (one, other) = (claims.claim("m", "1"), claims.claim("m", "2"));
        assert!(claims.any("m", "1") && claims.any("m", "2") && !claims.any("n", "1"));
        drop(one);
        let _again = claims.claim("m", "2");
        drop(other);
        assert!(!claims.any("m", "1") && claims.any("m", "2"));
        assert_eq!(claims.lock().len(), 1, "what nobody claims is forgotten");
    }
}
