//! Readers that wait: each thread has a runtime of its own for them.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

/// Far more than anything here takes; what takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"),
        );
    }
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("the reader hangs") })
    })
}
