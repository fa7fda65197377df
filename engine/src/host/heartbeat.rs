//! Heartbeats: the sign of life that does not depend on decoding.
//!
//! Owns: the thread that sends them, and the memory budget, which it is the one to see. Must never: decode, or wait for
//! anybody who does.

use std::sync::Arc;
use std::time::Duration;

use starling_protocol::lease::FromHost;

use super::{EXIT_PARENT_GONE, Shared, link};

/// The parent takes 700 ms of silence for loss; one in seven may be late.
const INTERVAL: Duration = Duration::from_millis(100);

/// A heartbeat that comes so much later than it should shows that the process did not run. As late as a round of the parent's may be
/// that accuses.
const LATE: Duration = Duration::from_millis(100);

pub(super) fn start(shared: Arc<Shared>, memory_budget_bytes: u64) -> std::io::Result<()> {
    let parent = rustix::process::getppid();
    std::thread::Builder::new().name("heartbeat".to_owned()).spawn(move || {
        let mut sequence = 0;
        let mut retiring = false;
        let mut last_us = shared.clock.micros();
        loop {
            std::thread::sleep(INTERVAL);
            let now_us = shared.clock.micros();
            let gap = Duration::from_micros(now_us - std::mem::replace(&mut last_us, now_us));
            if gap > INTERVAL + LATE {
                shared.calls.stood_still(micros(gap - INTERVAL));
            }
            if rustix::process::getppid() != parent {
                tracing::info!("the parent process is gone");
                link::exit_now(EXIT_PARENT_GONE);
            }
            sequence += 1;
            let resident_bytes = resident_bytes();
            let (audio_ms, busy_ms) = shared.calls.totals_ms();
            let calls = shared.calls.in_progress(shared.clock.micros());
            // A full outbox means that the parent does not read; it will miss this one, and the writer's deadline runs.
            shared.outbox.try_send(FromHost::Heartbeat {
                sequence,
                calls,
                resident_bytes,
                audio_ms,
                busy_ms,
            });
            // A host that is loading can't be replaced yet; the parent would not remember.
            let loaded = shared.loaded.get().is_some();
            if loaded && !retiring && memory_budget_bytes > 0 && resident_bytes > memory_budget_bytes {
                let reason = format!("resident memory {resident_bytes} is over {memory_budget_bytes} bytes");
                tracing::info!(%reason, "retiring");
                retiring = shared.outbox.try_send(FromHost::Retiring { reason });
            }
        }
    })?;
    Ok(())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// This process's resident memory, 0 where the kernel doesn't say.
pub(super) fn resident_bytes() -> u64 {
    let Ok(statm) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    let pages: u64 = statm.split_ascii_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
