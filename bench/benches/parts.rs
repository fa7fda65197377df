//! Parts by themselves: what a step of audio costs on its way through the node.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use starling_core::Timestamp;
use starling_core::audio::{RateMap, Resampler, SourceStore};
use starling_core::session::{SessionAction, SessionConfig, SessionEvent, SessionMachine};
use starling_protocol::frame::{FrameReader, encode};
use starling_protocol::lease::ToHost;
use starling_protocol::limits::MAX_LEASE_FRAME_BYTES;
use starling_protocol::{Attempt, CutCause, DecodeOffset, LeaseId, Segment, SourceOffset};

/// Bytes of 100 ms at 16 kHz.
const STEP_BYTES: usize = 3_200;

fn frames(criterion: &mut Criterion) {
    let feed = ToHost::Feed { lease: LeaseId(7), at: DecodeOffset(160_000), pcm: vec![0x5a; STEP_BYTES] };
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Bytes(STEP_BYTES as u64));
    let mut out = Vec::new();
    group.bench_function("encode a step", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(black_box(&feed), MAX_LEASE_FRAME_BYTES, &mut out).expect("fits");
        });
    });
    let mut bytes = Vec::new();
    encode(&feed, MAX_LEASE_FRAME_BYTES, &mut bytes).expect("fits");
    let mut reader = FrameReader::new(MAX_LEASE_FRAME_BYTES);
    group.bench_function("decode a step", |bencher| {
        bencher.iter(|| {
            reader.push(black_box(&bytes));
            let message: Option<ToHost> = reader.next().expect("is a frame");
            black_box(message)
        });
    });
    group.finish();
}

fn resampling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resample a second");
    for source in [8_000_u32, 44_100, 48_000] {
        let resampler = Resampler::new(RateMap::new(source, 16_000).expect("both are taken"));
        let mut store = SourceStore::new();
        let wave = (0..source * 2).flat_map(|n| ((n * 2_654_435_761_u32 % 20_000) as i16).to_le_bytes());
        store.append(&wave.collect::<Vec<u8>>());
        let mut out = Vec::with_capacity(16_000);
        group.bench_function(format!("{source} Hz to 16000 Hz"), |bencher| {
            bencher.iter(|| {
                out.clear();
                let (from, to) = (DecodeOffset(8_000), DecodeOffset(24_000));
                resampler.render(from, to, |at: SourceOffset| store.sample(at), &mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

/// A second of audio through the session machine and its journal, with its final.
fn session(criterion: &mut Criterion) {
    let config = SessionConfig {
        rates: RateMap::new(16_000, 16_000).expect("is taken"),
        window: 10,
        partial_interval_ms: 200,
        decoded_interval_ms: 0,
        linger: Duration::from_secs(60),
        idle: Duration::ZERO,
        slow_reader: Duration::from_secs(30),
        unconfirmed_max: 64,
        standby: false,
    };
    criterion.bench_function("session machine, a second", |bencher| {
        let mut out = Vec::new();
        let now = Timestamp::default();
        let mut machine = SessionMachine::new(now, config, &mut out);
        let attempt = out.iter().find_map(|action| match action {
            SessionAction::RequestLease { attempt, .. } => Some(*attempt),
            _ => None,
        });
        let attempt = attempt.unwrap_or(Attempt(1));
        machine.handle(now, SessionEvent::LeaseGranted { attempt }, &mut out);
        let (mut at, mut segment) = (DecodeOffset(0), Segment(0));
        bencher.iter(|| {
            out.clear();
            let from = at;
            for _ in 0..10 {
                machine.handle(now, SessionEvent::AudioReceived { frames: 1_600 }, &mut out);
                at = at.plus(1_600);
                machine.handle(now, SessionEvent::Decoded { attempt, until: at }, &mut out);
            }
            let cut = SessionEvent::SegmentCut { attempt, segment, from, to: at, cause: CutCause::Endpoint };
            machine.handle(now, cut, &mut out);
            machine.handle(now, SessionEvent::Confirmed { segment }, &mut out);
            segment = segment.next();
            black_box(out.len())
        });
        assert!(segment.0 > 0, "no final was committed");
    });
}

criterion_group!(parts, frames, resampling, session);
criterion_main!(parts);
