//! Limits that both ends of a link rely on. Each says why it has its value.

/// Length of one step of the decoding grid, in milliseconds. Vosk tests for an endpoint once per call, so the length of
/// the call decides where segments end; 100 ms is short enough to be heard as prompt and long enough to be cheap.
pub const STEP_MS: u64 = 100;

/// Lowest sample rate that is taken. libvosk aborts or hangs on rates far below telephone speech.
pub const MIN_SAMPLE_RATE: u32 = 8_000;

/// Highest sample rate that is taken; no microphone path delivers speech above it.
pub const MAX_SAMPLE_RATE: u32 = 48_000;

/// Most channels of a client's audio; rooms and meetings are recorded with up to as many microphones.
pub const MAX_CHANNELS: u8 = 8;

/// Largest message a client may send: 1 MiB, as vosk-server has it; over 10 s of 48 kHz audio.
pub const MAX_CLIENT_MESSAGE_BYTES: usize = 1 << 20;

/// Largest frame between a node and a decoder host. Audio comes in steps of at most 9,600 bytes; the rest is text.
pub const MAX_LEASE_FRAME_BYTES: usize = 1 << 20;

/// Most alternatives that may be asked for; beyond it lattices cost more than the decoding.
pub const MAX_ALTERNATIVES: u8 = 10;

/// Most phrases in a phrase list, and most bytes in one of them: a grammar is compiled before the first sample.
pub const MAX_PHRASES: usize = 1_000;

/// See [`MAX_PHRASES`].
pub const MAX_PHRASE_BYTES: usize = 200;

/// Rates that Opus can be decoded to, whatever it was encoded at (RFC 6716, section 2.1.3).
pub const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// Silence that may be asked for as a segment's end, in milliseconds: a step of audio at least, and what a caller waits for an answer.
pub const ENDPOINT_SILENCE_MS: std::ops::RangeInclusive<u32> = 100..=10_000;

/// The longest segment that may be asked for, in milliseconds: as long as it takes to say something, and what a lost decoder's successor has
/// to hear again.
pub const MAX_SEGMENT_MS: std::ops::RangeInclusive<u32> = 1_000..=30_000;

/// The highest position in a session's audio that a client may name, in its frames: 186 years at the highest rate. Times any
/// rate it fits 64 bits, so that positions can be mapped without a look at each of them.
pub const MAX_POSITION: u64 = 1 << 48;
