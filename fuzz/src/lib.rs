//! What has to hold of every reader of bytes from outside, whatever the bytes are.
//!
//! Owns: one function for each reader, which reads and asserts: no panic, memory in proportion to what came, the same result
//! however the bytes are cut, and what was read is read again from how it is written. Must never: know what calls it: the tests do
//! with the corpus and what they make of it, `targets/` does with what libFuzzer makes of it.

mod api;
mod audio;
mod client;
mod commands;
mod files;
mod forms;
mod frames;
mod peers;
mod requests;
mod running;
mod scaling;
mod session;
mod texts;
mod wires;

pub use api::{api_key, jwt, origin};
pub use audio::{live_audio, opus, pcm, recording, wav_head};
pub use client::{client_machine, client_upgrade, server_address};
pub use commands::{key_list, server_answers, trace_variables, transcript};
pub use files::{archive, catalogue, config, graph, manifest, model_import, vocabulary, vosk_model};
pub use forms::upload_form;
pub use frames::{control, data_frames, gossip, lease_frames, membership, replica_frames, resume_token};
pub use peers::peer_identity;
pub use requests::{request_headers, request_query};
pub use scaling::api_server;
pub use session::session_machine;
pub use texts::{
    deepgram, gstreamer, native_message, native_server, openai_model, realtime, traceparent, vosk,
};
pub use wires::{audiosocket, native_frames, wyoming};

/// A reader, for those that want all of them.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of its function, its folder in `corpus/` and its program in `targets/`.
    pub name: &'static str,
    /// Reads, and panics when something does not hold.
    pub run: fn(&[u8]),
    /// How many changed files of its corpus an ordinary test reads: as many as take a fraction of a second.
    pub tries: u32,
}

macro_rules! targets {
    ($($name:ident $tries:literal),* $(,)?) => {
        /// Every reader there is.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), run: $name, tries: $tries }),*];
    };
}

targets! {
    api_key 2_000,
    api_server 100,
    archive 200,
    audiosocket 2_000,
    catalogue 200,
    client_machine 1_000,
    client_upgrade 2_000,
    config 200,
    control 2_000,
    data_frames 2_000,
    deepgram 2_000,
    gossip 2_000,
    graph 200,
    gstreamer 2_000,
    jwt 1_000,
    key_list 2_000,
    lease_frames 2_000,
    live_audio 40,
    manifest 1_000,
    membership 500,
    model_import 50,
    native_frames 2_000,
    native_message 2_000,
    native_server 2_000,
    openai_model 2_000,
    opus 300,
    origin 2_000,
    pcm 1_000,
    peer_identity 2_000,
    realtime 2_000,
    recording 40,
    replica_frames 2_000,
    request_headers 2_000,
    request_query 2_000,
    resume_token 1_000,
    server_address 2_000,
    server_answers 500,
    session_machine 300,
    trace_variables 2_000,
    traceparent 2_000,
    transcript 1_000,
    upload_form 200,
    vocabulary 1_000,
    vosk 2_000,
    vosk_model 200,
    wav_head 1_000,
    wyoming 2_000,
}

/// The first byte, by which a target chooses, and the rest.
fn split(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// Pieces that differ in length, none longer than 251 bytes: `seed` says where they begin to.
fn pieces(mut data: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut length = usize::from(seed);
    std::iter::from_fn(move || {
        // Multiplying by 7 goes round all the lengths there are below a prime.
        length = (length * 7 + 1) % 251;
        let (piece, rest) = data.split_at((length + 1).min(data.len()));
        data = rest;
        (!piece.is_empty()).then_some(piece)
    })
}
