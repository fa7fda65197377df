//! The system's randomness, as this program has it: drawn from the seed.
//!
//! Hashers of the standard library, tokio's choice among ready branches, UUIDs and nonces all come from the C library's
//! `getrandom`. A definition in the program itself is found before the library's, by the linker and by `dlsym` alike. The one
//! other way to fix tokio's choices is a flag for the compiler, and with it a build of everything apart from all others.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far the numbers have come.
static STATE: AtomicU64 = AtomicU64::new(0);

/// From now on all randomness is this seed's.
pub(crate) fn seed(seed: u64) {
    STATE.store(seed, Ordering::Relaxed);
}

fn next() -> u64 {
    let before = STATE.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
    let mut z = before.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// See getrandom(2).
///
/// # Safety
/// `buffer` points to `length` bytes that may be written.
#[expect(
    unsafe_code,
    reason = "the one place where the simulation takes the place of the C library; nothing installed has it"
)]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if buffer.is_null() {
        return 0;
    }
    // SAFETY: the caller vouches for the buffer, as getrandom(2) has it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}
