//! Writes the beginnings of the corpora: one file for each kind of message, as this version writes it. What was found by
//! fuzzing lies beside them and stays.
//!
//! `cargo run -p starling-fuzz --example seeds`

mod graphs;
mod outside;
mod streams;
mod texts;

use std::fs;
use std::path::Path;

use serde::Serialize;
use starling_protocol::control::{
    ModelOffer, ModelPool, NodeAgent, NodeReply, NodeRequest, PoolReply, PoolRequest, Replica, ReplicaReply,
    ReplicaRequest, Service, encode_call, encode_reply,
};
use starling_protocol::data::{
    DATA_PROTOCOL, HeaderReply, LeaseHeader, LeaseLost, LeasePurpose, LeaseReply, StreamHeader, StreamRefusal,
};
use starling_protocol::frame::encode;
use starling_protocol::gossip::{Addresses, LoadRecord, ModelLoad, Roles};
use starling_protocol::lease::{
    DecodeOptions, EngineKind, FromHost, HostSpec, Priority, ToHost, TraceContext,
};
use starling_protocol::native::{Final, SessionOptions};
use starling_protocol::replica::{Commit, CopyStart, EntryKind, FromReplica, SessionFacts, ToReplica, View};
use starling_protocol::token::TokenBody;
use starling_protocol::{
    Attempt, CutCause, DecodeOffset, Epoch, Generation, LeaseId, NodeId, NodeName, Segment, SessionId,
    SourceOffset, Utterance,
};

type Seeds = Vec<(&'static str, String, Vec<u8>)>;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seeds = Vec::new();
    texts(&mut seeds);
    frames(&mut seeds);
    streams::streams(&mut seeds);
    graphs::graphs(&mut seeds);
    outside::outside(&mut seeds);
    audio(&mut seeds, &root.join("../node/tests/recordings"))?;
    files(&mut seeds);
    for (target, name, bytes) in seeds {
        let folder = root.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}

const ID: &str = "00000000-0000-4000-8000-000000000001";

fn texts(seeds: &mut Seeds) {
    for (target, texts) in texts::TEXTS {
        for (number, text) in texts.iter().enumerate() {
            seeds.push((target, format!("seed-{number}"), text.as_bytes().to_vec()));
        }
    }
}

/// Frames on one link, behind the byte by which the target chooses.
fn link<M: Serialize>(seeds: &mut Seeds, target: &'static str, choice: u8, messages: &[M]) {
    let mut bytes = vec![choice];
    for message in messages {
        encode(message, 1 << 20, &mut bytes).expect("fits");
    }
    seeds.push((target, format!("seed-{choice}"), bytes));
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).expect("a name")
}

fn node() -> NodeId {
    NodeId { name: name("a"), generation: Generation(3) }
}

fn session() -> SessionId {
    SessionId::parse(ID).expect("an id")
}

fn trace() -> Option<TraceContext> {
    Some(TraceContext { traceparent: "00-01-02-01".into(), tracestate: String::new() })
}

fn final_of(segment: u64, from: u64, to: u64) -> Final {
    Final {
        segment: Segment(segment),
        from: SourceOffset(from),
        to: SourceOffset(to),
        start: 0.0,
        end: 0.1,
        cause: CutCause::Endpoint,
        text: "one".into(),
        words: Vec::new(),
        confidence: Some(0.5),
        alternatives: Vec::new(),
        error: None,
    }
}

fn frames(seeds: &mut Seeds) {
    lease(seeds);
    streams(seeds);
    copies(seeds);
    calls(seeds);
    let models = vec![ModelLoad {
        name: "m".into(),
        slots_total: 8,
        slots_busy: 3,
        slots_idle: 5,
        real_time_factor_milli: Some(231),
        determinism_class: Some(7),
        files: Some(9),
        leaving: false,
        on_demand: false,
    }];
    let record = LoadRecord {
        name: name("node-1"),
        generation: Generation(1),
        revision: 7,
        version: "0.1.0".into(),
        zone: "eu-1a".into(),
        roles: Roles { gateway: true, decoder: true },
        draining: false,
        leaving: false,
        addresses: Addresses {
            control: Some("10.0.0.1:7401".parse().expect("an address")),
            data: None,
            http: Some("[fd00::1]:8080".parse().expect("an address")),
        },
        replica_bytes_free: 1 << 20,
        models,
        models_omitted: 0,
    };
    seeds.push(("gossip", "seed-record".into(), record.encode().expect("fits")));
    seeds.push(("gossip", "seed-superseded".into(), vec![1, 1, 0, 0, 0, 0, 0, 0, 0]));
    seeds.push(("gossip", "seed-gossip".into(), vec![0, 1, 2, 3]));
    let body = TokenBody {
        session: session(),
        tenant: "acme".into(),
        model: "m".into(),
        digest: "ab".repeat(32),
        view: View(3),
        owner: name("a"),
        keepers: vec![name("b"), name("c")],
        expires_unix_s: 1_000,
    };
    seeds.push(("resume_token", "seed-body".into(), rmp_serde::to_vec_named(&body).expect("is written")));
}

fn lease(seeds: &mut Seeds) {
    let lease = LeaseId(7);
    let spec = HostSpec {
        protocol: 1,
        engine: EngineKind::Scripted,
        model: "m".into(),
        model_dir: String::new(),
        library_dir: String::new(),
        sample_rate: 16_000,
        threads: 1,
        slots: 4,
        prewarm: 1,
        recognizer_audio_budget_s: 0,
        memory_budget_bytes: 0,
        nice: 5,
        digest: String::new(),
    };
    let open = ToHost::Open {
        lease,
        attempt: Attempt(1),
        options: DecodeOptions::default(),
        segment: Segment(0),
        from: DecodeOffset(0),
        priority: Priority::Live,
        window: 20,
        partial_interval_ms: 200,
        trace: trace(),
        decoded_interval_ms: 500,
    };
    let at = DecodeOffset(4);
    let asked = [
        ToHost::Start(spec),
        open,
        ToHost::Feed { lease, at: DecodeOffset(0), pcm: vec![1; 8] },
        ToHost::Flush { lease, at, cause: CutCause::Finalize },
        ToHost::Close { lease },
        ToHost::Shutdown,
    ];
    link(seeds, "lease_frames", 0, &asked);
    let told = [
        FromHost::Opened { lease, warm: true },
        FromHost::Decoded { lease, until: at },
        FromHost::Partial { lease, segment: Segment(0), until: at, text: "o".into() },
        FromHost::Heartbeat { sequence: 1, calls: Vec::new(), resident_bytes: 1, audio_ms: 1, busy_ms: 1 },
        FromHost::Closed { lease },
    ];
    link(seeds, "lease_frames", 1, &told);
}

fn streams(seeds: &mut Seeds) {
    let header = LeaseHeader {
        version: DATA_PROTOCOL,
        lease: LeaseId(7),
        session: session(),
        epoch: Epoch(2),
        attempt: Attempt(3),
        model: "m".into(),
        digest: "ab12".into(),
        purpose: LeasePurpose::Continue,
        start: DecodeOffset(48_000),
        patience_ms: 2_000,
        reservation: None,
        trace: trace(),
    };
    link(seeds, "data_frames", 0, &[StreamHeader::Lease(header)]);
    let refused = HeaderReply::Refused { reason: StreamRefusal::BusyFor { retry_after_ms: 1_500 } };
    link(seeds, "data_frames", 1, &[refused]);
    let cut = FromHost::Cut {
        lease: LeaseId(7),
        segment: Segment(4),
        from: DecodeOffset(0),
        to: DecodeOffset(1_600),
        cause: CutCause::Endpoint,
        utterance: Utterance::default(),
        busy_us: 0,
    };
    let replies = [
        LeaseReply::Granted { waited_ms: 12, determinism: "vosk-0.3.45/avx2".into() },
        LeaseReply::Host(cut),
        LeaseReply::Retiring,
        LeaseReply::Lost { cause: LeaseLost::Crashed { suspect: true } },
    ];
    link(seeds, "data_frames", 2, &replies);
}

fn copies(seeds: &mut Seeds) {
    let start = |confirmed, at| CopyStart {
        facts: SessionFacts {
            session: session(),
            dialect: "native".into(),
            model: "m".into(),
            digest: "ab".into(),
            class: String::new(),
            source_hz: 16_000,
            decode_hz: 16_000,
            options: SessionOptions::default(),
            decode: DecodeOptions::default(),
            linger_ms: 60_000,
            trace: None,
            tenant: String::new(),
            root: None,
            opened_unix_ms: 1_700_000_000_000,
        },
        epoch: Epoch(1),
        view: View(1),
        confirmed: Segment(confirmed),
        next_segment: Segment(confirmed),
        final_end: SourceOffset(at),
        committed: DecodeOffset(at),
        audio_from: SourceOffset(at),
        ended: false,
        recent: Vec::new(),
        attempt: Attempt(1),
    };
    let story = |confirmed, at: u64| {
        let commit = Commit {
            last: final_of(confirmed, at, at.saturating_add(4)),
            to: DecodeOffset(at.saturating_add(4)),
            answered: true,
            needed_from: SourceOffset(at.saturating_add(4)),
            times: None,
            attempt: Attempt(2),
        };
        vec![
            ToReplica::Begin(Box::new(start(confirmed, at))),
            ToReplica::Audio { from: SourceOffset(at), pcm: vec![1; 16], attempt: Attempt(2) },
            ToReplica::Entry { at: DecodeOffset(at.saturating_add(4)), kind: EntryKind::Finalize },
            ToReplica::Whole,
            ToReplica::Commit(Box::new(commit)),
            ToReplica::Confirmed { through: Segment(confirmed) },
            ToReplica::Epoch { epoch: Epoch(2) },
            ToReplica::View { view: View(2) },
            ToReplica::Kept(Box::new(final_of(confirmed, at, at))),
            ToReplica::Over,
        ]
    };
    link(seeds, "replica_frames", 0, &story(0, 0));
    link(seeds, "replica_frames", 2, &story(u64::MAX, u64::MAX - 2));
    let told = [FromReplica::Applied { count: 3 }, FromReplica::Fenced { epoch: Epoch(4) }];
    link(seeds, "replica_frames", 1, &told);
}

fn call<S: Service>(seeds: &mut Seeds, choice: u8, requests: &[S::Request], replies: &[S::Reply]) {
    let asked = requests.iter().map(|request| encode_call::<S>(&node(), request).expect("fits"));
    for (number, bytes) in asked.chain(replies.iter().map(encode_reply::<S>)).enumerate() {
        seeds.push(("control", format!("seed-{choice}-{number}"), [&[choice], bytes.as_slice()].concat()));
    }
}

fn calls(seeds: &mut Seeds) {
    let offer = ModelOffer { name: "m".into(), hosts: None, slots: Some(8), threads: None, prewarm: None };
    call::<NodeAgent>(
        seeds,
        0,
        &[NodeRequest::Heartbeat { sequence: 7 }, NodeRequest::Status, NodeRequest::AddModel(offer)],
        &[NodeReply::Draining, NodeReply::ModelRefused { reason: "there is none".into() }],
    );
    let reserve = PoolRequest::Reserve {
        model: "m".into(),
        digest: "ab".into(),
        session: session(),
        ttl_ms: 2_000,
        failover: true,
        trace: trace(),
    };
    call::<ModelPool>(seeds, 1, &[reserve], &[PoolReply::Refused { retry_after_ms: 500 }]);
    let promote = ReplicaRequest::Promote { session: session(), epoch: Epoch(5), trace: None };
    call::<Replica>(seeds, 2, &[promote], &[ReplicaReply::Fenced { epoch: Epoch(6) }]);
}

/// A WAV's head and samples: 16 bytes of format, then its data.
fn wav(format: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
    let frame = channels * bits / 8;
    let mut bytes = b"RIFF\xFF\xFF\xFF\xFFWAVELIST\x04\0\0\0metafmt \x10\0\0\0".to_vec();
    bytes.extend([format.to_le_bytes(), channels.to_le_bytes()].concat());
    bytes.extend([rate.to_le_bytes(), (rate * u32::from(frame)).to_le_bytes()].concat());
    bytes.extend([frame.to_le_bytes(), bits.to_le_bytes()].concat());
    bytes.extend(b"data");
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

/// The first 24 packets of an Ogg stream (RFC 3533), its two heads left out, each behind its length.
fn packets(mut ogg: &[u8]) -> Vec<u8> {
    let (mut packets, mut open) = (Vec::new(), Vec::new());
    while let [b'O', b'g', b'g', b'S', ..] = ogg {
        let (lengths, mut body) = ogg[27..].split_at(usize::from(ogg[26]));
        for length in lengths {
            let (part, rest) = body.split_at(usize::from(*length));
            open.extend_from_slice(part);
            body = rest;
            if *length < 255 {
                packets.push(std::mem::take(&mut open));
            }
        }
        ogg = body;
    }
    let short = packets.iter().skip(2).filter(|packet| packet.len() < 256).take(24);
    short.flat_map(|packet| [&[packet.len() as u8], packet.as_slice()].concat()).collect()
}

fn audio(seeds: &mut Seeds, recordings: &Path) -> std::io::Result<()> {
    let ramp: Vec<u8> = (0..=255).collect();
    for choice in [0, 1, 2, 3, 4, 5, 6, 7, 15, 60] {
        seeds.push(("pcm", format!("seed-{choice}"), [&[choice], ramp.as_slice()].concat()));
    }
    let wavs = [wav(1, 1, 16_000, 16, &ramp), wav(3, 2, 48_000, 32, &ramp), wav(7, 1, 8_000, 8, &ramp)];
    for (number, wav) in wavs.into_iter().enumerate() {
        seeds.push(("live_audio", format!("seed-{number}.wav"), [&[number as u8], wav.as_slice()].concat()));
        seeds.push(("wav_head", format!("seed-{number}"), wav));
    }
    let mut long = wav(3, 1, 16_000, 64, &ramp);
    long.splice(..8, *b"RF64\xFF\xFF\xFF\xFF");
    long.splice(12..12, [b"ds64\x1C\0\0\0".as_slice(), &[0; 8], &256_u64.to_le_bytes(), &[0; 12]].concat());
    let length_at = long.len() - ramp.len() - 4;
    long.splice(length_at..length_at + 4, [0xFF; 4]);
    seeds.push(("live_audio", "seed-3.wav".into(), [&[3], long.as_slice()].concat()));
    seeds.push(("wav_head", "seed-3".into(), long));
    for kind in ["m4a", "aac", "flac", "mp3", "ogg", "opus", "webm"] {
        let mut bytes = fs::read(recordings.join(format!("sweep.{kind}")))?;
        if kind == "opus" {
            seeds.push(("opus", "seed-0".into(), [&[4], packets(&bytes).as_slice()].concat()));
            seeds.push(("opus", "seed-1".into(), [&[7], packets(&bytes).as_slice()].concat()));
        }
        // A transfer may break off; what there is of a long one is enough here.
        bytes.truncate(6_000);
        seeds.push(("live_audio", format!("seed.{kind}"), [&[0], bytes.as_slice()].concat()));
        if ["m4a", "flac", "webm"].contains(&kind) {
            seeds.push(("recording", format!("seed.{kind}"), bytes));
        }
    }
    Ok(())
}

fn files(seeds: &mut Seeds) {
    let config = concat!(
        "[listen]\nhttp = \"127.0.0.1:8080\"\nvosk = \"\"\nmax_connections = 512\n",
        "[gateway]\nhandshake_timeout = \"10s\"\nmax_recording = \"1 GiB\"\n",
        "[sessions]\nlinger = \"60s\"\n[log]\nlevel = \"info\"\n",
        "[[model]]\nname = \"m\"\nhosts = 1\nslots = 4\n",
        "[[tenant]]\nname = \"acme\"\nkeys = [\"sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"]\n",
    );
    seeds.push(("config", "seed-0".into(), config.into()));
    seeds.push(("config", "seed-1".into(), b"[cluster]\nname = \"a\"\nseeds = [\"10.0.0.1:7400\"]\n".into()));
    let model = concat!(
        "[[model]]\nname = \"m\"\nengine = \"vosk\"\nlanguage = \"en\"\nsample_rate_hz = 16000\nlicence = \"MIT\"\nsize_bytes = 1\n",
        "[[model.source]]\nurl = \"https://example.org/m.zip\"\nsha256 = { x86_64 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\" }\n",
        "file = [{ from = \"m/*\", to = \"\" }]\n",
        "[[library]]\nname = \"l\"\nlicence = \"MIT\"\nsize_bytes = 1\n[[library.source]]\npip = \"l==1\"\n",
        "sha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"\nfile = [{ from = \"l/\", to = \"l\" }]\n",
    );
    seeds.push(("catalogue", "seed-0".into(), model.into()));
    // The digest is that of no files at all.
    let manifest = concat!(
        "version = 2\nname = \"m\"\nkind = \"model\"\nengine = \"scripted\"\nlanguage = \"en\"\nsample_rate_hz = 16000\n",
        "licence = \"MIT\"\norigin = \"/a\"\nimported = true\n",
        "digest = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n",
    );
    seeds.push(("manifest", "seed-0".into(), manifest.into()));
}
