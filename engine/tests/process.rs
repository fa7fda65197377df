//! The decoder host as a process, over its real socket, with the scripted engine.
//!
//! Each test is a parent: it makes the socket pair and the flight recorder, starts `starling-decoder`, and reads with a
//! deadline. Nothing here sleeps to wait for something.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use starling_engine::scripted::{self, BLOCK_SAMPLES, Harm};
use starling_protocol::frame::{FrameReader, encode};
use starling_protocol::lease::{
    DecodeOptions, EngineKind, FLIGHT_ENTRY_BYTES, FLIGHT_FD_VARIABLE, FlightEntry, FromHost, HostSpec,
    LEASE_PROTOCOL, Priority, SOCKET_FD_VARIABLE, ToHost, TraceContext,
};
use starling_protocol::limits::MAX_LEASE_FRAME_BYTES;
use starling_protocol::{Attempt, CutCause, DecodeOffset, LeaseId, Segment};

/// Far above what anything here takes; reached only when something hangs.
const DEADLINE: Duration = Duration::from_secs(20);

struct Host {
    child: Child,
    socket: UnixStream,
    frames: FrameReader,
    flight: File,
}

fn spec() -> HostSpec {
    HostSpec {
        protocol: LEASE_PROTOCOL,
        engine: EngineKind::Scripted,
        model: "scripted".into(),
        model_dir: String::new(),
        library_dir: String::new(),
        sample_rate: scripted::SAMPLE_RATE,
        threads: 2,
        slots: 4,
        prewarm: 2,
        recognizer_audio_budget_s: 0,
        memory_budget_bytes: 0,
        nice: 0,
        digest: String::new(),
    }
}

impl Host {
    fn start(spec: HostSpec) -> Self {
        Self::start_with(spec, Stdio::inherit())
    }

    /// With its log for the test to read.
    fn start_logging(spec: HostSpec) -> Self {
        Self::start_with(spec, Stdio::piped())
    }

    fn start_with(spec: HostSpec, log: Stdio) -> Self {
        let mut host = Self::launch_with(log);
        host.send(&ToHost::Start(spec));
        let ready = host.wait(|message| match message {
            FromHost::Ready { engine, .. } => Some(engine),
            FromHost::LoadFailed { message } => panic!("load failed: {message}"),
            _ => None,
        });
        assert_eq!(ready, "scripted");
        host
    }

    fn launch() -> Self {
        Self::launch_with(Stdio::inherit())
    }

    fn launch_with(log: Stdio) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        ours.set_read_timeout(Some(DEADLINE)).expect("timeout");
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let flight = File::from(rustix::fs::memfd_create("flight", flags).expect("memfd"));
        let mapping = |parent_fd: OwnedFd, child_fd| FdMapping { parent_fd, child_fd };
        let mut command = Command::new(env!("CARGO_BIN_EXE_starling-decoder"));
        command.arg("scripted").stderr(log).env(SOCKET_FD_VARIABLE, "10").env(FLIGHT_FD_VARIABLE, "11");
        let flight_copy = flight.try_clone().expect("descriptor");
        command
            .fd_mappings(vec![mapping(theirs.into(), 10), mapping(flight_copy.into(), 11)])
            .expect("descriptors");
        let child = command.spawn().expect("starling-decoder starts");
        Self { child, socket: ours, frames: FrameReader::new(MAX_LEASE_FRAME_BYTES), flight }
    }

    fn send(&mut self, message: &ToHost) {
        let mut bytes = Vec::new();
        encode(message, MAX_LEASE_FRAME_BYTES, &mut bytes).expect("encodes");
        self.socket.write_all(&bytes).expect("host takes messages");
    }

    /// The next message, `None` at the link's end.
    fn next(&mut self) -> Option<FromHost> {
        loop {
            if let Some(message) = self.frames.next().expect("frames") {
                return Some(message);
            }
            let mut bytes = [0; 4_096];
            match self.socket.read(&mut bytes) {
                Ok(0) => return None,
                Ok(length) => self.frames.push(&bytes[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no message within {DEADLINE:?}: {error}"),
            }
        }
    }

    fn wait<T>(&mut self, mut want: impl FnMut(FromHost) -> Option<T>) -> T {
        loop {
            let message = self.next().expect("the host lives");
            if let Some(found) = want(message) {
                return found;
            }
        }
    }

    fn open(&mut self, lease: u64, window: u16, partial_interval_ms: u32) {
        self.open_traced(lease, window, partial_interval_ms, None);
    }

    fn open_traced(
        &mut self,
        lease: u64,
        window: u16,
        partial_interval_ms: u32,
        trace: Option<TraceContext>,
    ) {
        self.send(&ToHost::Open {
            lease: LeaseId(lease),
            attempt: Attempt(1),
            options: DecodeOptions::default(),
            segment: Segment(7),
            from: DecodeOffset(0),
            priority: Priority::Live,
            window,
            partial_interval_ms,
            trace,
            decoded_interval_ms: 0,
        });
    }

    fn feed(&mut self, lease: u64, audio: &[i16]) -> u64 {
        self.feed_from(lease, 0, audio)
    }

    fn feed_from(&mut self, lease: u64, mut at: u64, audio: &[i16]) -> u64 {
        for step in audio.chunks(BLOCK_SAMPLES) {
            let pcm = step.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            self.send(&ToHost::Feed { lease: LeaseId(lease), at: DecodeOffset(at), pcm });
            at += step.len() as u64;
        }
        at
    }

    fn flush(&mut self, lease: u64, at: u64) {
        let cause = CutCause::Finalize;
        self.send(&ToHost::Flush { lease: LeaseId(lease), at: DecodeOffset(at), cause });
    }

    /// The text of the lease's next cut.
    fn cut(&mut self, lease: u64) -> (Segment, u64, u64, CutCause, String) {
        self.wait(|message| match message {
            FromHost::Cut { lease: id, segment, from, to, cause, utterance, .. } if id.0 == lease => {
                Some((segment, from.0, to.0, cause, utterance.text))
            }
            FromHost::Failed { lease: id, message } if id.0 == lease => panic!("lease failed: {message}"),
            _ => None,
        })
    }

    /// Waits for the link's end, then for the process.
    fn ends(mut self) -> std::process::ExitStatus {
        while self.next().is_some() {}
        self.child.wait().expect("host ends")
    }

    fn noted(&self) -> Option<FlightEntry> {
        (0..2).find_map(|index| {
            let mut bytes = [0; FLIGHT_ENTRY_BYTES];
            let offset = (index * FLIGHT_ENTRY_BYTES) as u64;
            self.flight.read_exact_at(&mut bytes, offset).ok()?;
            FlightEntry::from_bytes(&bytes)
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn audio_becomes_contiguous_cuts_and_a_flush_ends_the_rest() {
    let mut host = Host::start(spec());
    host.open(1, 100, 0);
    let mut audio = scripted::encode(&["a", "b"]);
    audio.extend(scripted::silence(5));
    audio.extend(scripted::encode_from(2, &["c"]));
    let end = host.feed(1, &audio);
    host.flush(1, end);
    assert_eq!(host.cut(1), (Segment(7), 0, 11_200, CutCause::Endpoint, "0:a 1:b".into()));
    assert_eq!(host.cut(1), (Segment(8), 11_200, 12_800, CutCause::Finalize, "2:c".into()));
    host.send(&ToHost::Close { lease: LeaseId(1) });
    host.wait(|message| matches!(message, FromHost::Closed { lease } if lease.0 == 1).then_some(()));
    host.send(&ToHost::Shutdown);
    let mut rest = Vec::new();
    while let Some(message) = host.next() {
        if !matches!(message, FromHost::Heartbeat { .. }) {
            rest.push(message);
        }
    }
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(host.child.wait().expect("ends").code(), Some(0));
}

#[test]
fn a_flush_of_nothing_is_answered_too() {
    let mut host = Host::start(spec());
    host.open(1, 10, 0);
    host.flush(1, 0);
    assert_eq!(host.cut(1), (Segment(7), 0, 0, CutCause::Finalize, String::new()));
}

#[test]
fn credit_comes_back_and_an_overdrawn_window_ends_only_its_lease() {
    let mut host = Host::start(spec());
    host.open(1, 2, 0);
    host.open(2, 100, 0);
    let mut at = 0;
    for number in 0..20 {
        let words = scripted::encode_from(number, &["x"]);
        at = host.feed_from(1, at, &words);
        let until = host.wait(|message| match message {
            FromHost::Decoded { lease, until } if lease.0 == 1 => Some(until.0),
            FromHost::Failed { message, .. } => panic!("{message}"),
            _ => None,
        });
        assert_eq!(until, at);
    }
    // Far longer than the next steps take on their way.
    let slow = scripted::harm(20, Harm::Slow(10_000), None);
    at = host.feed_from(1, at, &slow);
    host.feed_from(1, at, &scripted::encode(&["a", "b", "c", "d"]));
    let message = host.wait(|message| match message {
        FromHost::Failed { lease, message } => Some((lease.0, message)),
        _ => None,
    });
    assert_eq!(message, (1, "more than Open.window = 2 steps are undecoded".to_owned()));
    let end = host.feed(2, &scripted::encode(&["fine"]));
    host.flush(2, end);
    assert_eq!(host.cut(2).4, "0:fine");
}

#[test]
fn a_gap_and_a_long_step_end_only_their_lease() {
    let mut host = Host::start(spec());
    for lease in 1..=3 {
        host.open(lease, 100, 0);
    }
    host.feed_from(1, 5, &scripted::encode(&["a"]));
    let pcm = vec![0; 2 * BLOCK_SAMPLES + 2];
    host.send(&ToHost::Feed { lease: LeaseId(2), at: DecodeOffset(0), pcm });
    let mut failed = Vec::new();
    while failed.len() < 2 {
        failed.push(host.wait(|message| match message {
            FromHost::Failed { lease, .. } => Some(lease.0),
            _ => None,
        }));
    }
    failed.sort_unstable();
    assert_eq!(failed, [1, 2]);
    // Late messages for leases that are over are normal.
    host.feed(1, &scripted::encode(&["late"]));
    let end = host.feed(3, &scripted::encode(&["fine"]));
    host.flush(3, end);
    assert_eq!(host.cut(3).4, "0:fine");
}

#[test]
fn lines_about_a_lease_name_its_sessions_trace() {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    for (traceparent, named) in
        [(format!("00-{trace}-b7ad6b7169203331-01"), true), ("none".to_owned(), false)]
    {
        let mut host = Host::start_logging(spec());
        let trace_context = TraceContext { traceparent, tracestate: String::new() };
        host.open_traced(1, 100, 0, Some(trace_context));
        host.feed_from(1, 5, &scripted::encode(&["a"]));
        host.wait(|message| matches!(message, FromHost::Failed { .. }).then_some(()));
        let mut log = host.child.stderr.take().expect("is piped");
        drop(host);
        let mut lines = String::new();
        log.read_to_string(&mut lines).expect("is text");
        let line = lines.lines().find(|line| line.contains("a lease fails")).expect("is logged");
        assert!(line.contains("lease=1"), "{line}");
        assert_eq!(line.contains(&format!(" trace_id={trace}")), named, "{line}");
        assert_eq!(line.contains("trace_id"), named, "{line}");
    }
}

#[test]
fn slots_are_kept_and_come_free() {
    let mut host = Host::start(spec());
    for lease in 0..4 {
        host.open(lease, 4, 0);
    }
    host.open(9, 4, 0);
    let refused = host.wait(|message| match message {
        FromHost::Refused { lease, message } => Some((lease.0, message)),
        _ => None,
    });
    assert_eq!(refused, (9, "all 4 slots are taken".to_owned()));
    host.send(&ToHost::Close { lease: LeaseId(0) });
    host.wait(|message| matches!(message, FromHost::Closed { .. }).then_some(()));
    host.open(9, 4, 0);
    let warm = host.wait(|message| match message {
        FromHost::Opened { lease, warm } if lease.0 == 9 => Some(warm),
        _ => None,
    });
    assert!(warm, "the recognizer of the closed lease waits in the pool");
}

#[test]
fn phrases_are_refused_where_the_engine_has_none() {
    let mut host = Host::start(spec());
    host.send(&ToHost::Open {
        lease: LeaseId(1),
        attempt: Attempt(1),
        options: DecodeOptions { phrases: vec!["hello".into()], ..DecodeOptions::default() },
        segment: Segment(0),
        from: DecodeOffset(0),
        priority: Priority::Live,
        window: 4,
        partial_interval_ms: 0,
        trace: None,
        decoded_interval_ms: 0,
    });
    let message = host.wait(|message| match message {
        FromHost::Refused { message, .. } => Some(message),
        _ => None,
    });
    assert_eq!(message, "scripted does not support phrases");
}

#[test]
fn what_is_decoded_is_told_as_often_as_was_asked_for_and_before_anything_that_rests_on_it() {
    let mut host = Host::start(spec());
    host.open(1, 100, 0);
    host.send(&ToHost::Partials { lease: LeaseId(1), interval_ms: 0, decoded_interval_ms: 400 });
    let at = host.feed(1, &scripted::encode(&["a", "b", "c", "d", "e", "f"]));
    host.flush(1, at);
    let decoded = |message| match message {
        FromHost::Decoded { until, .. } => Some(until.0 / BLOCK_SAMPLES as u64),
        _ => None,
    };
    assert_eq!(host.wait(decoded), 4);
    host.cut(1);
    assert_eq!(host.wait(decoded), 6, "the rest is told after a cut");
    host.send(&ToHost::Partials { lease: LeaseId(1), interval_ms: 100, decoded_interval_ms: 10_000 });
    let at = host.feed_from(1, at, &scripted::encode_from(6, &["g"]));
    assert_eq!(host.wait(decoded), 7, "before a partial");
    let partial = host.wait(|message| match message {
        FromHost::Partial { until, .. } => Some(until.0),
        _ => None,
    });
    assert_eq!(partial, at);
}

#[test]
fn partials_grow_and_stop_when_told() {
    let mut host = Host::start(spec());
    host.open(1, 100, 100);
    let mut at = host.feed(1, &scripted::encode(&["a"]));
    let text = host.wait(|message| match message {
        FromHost::Partial { text, until, segment, .. } => Some((text, until.0, segment.0)),
        _ => None,
    });
    assert_eq!(text, ("0:a".to_owned(), 1_600, 7));
    host.send(&ToHost::Partials { lease: LeaseId(1), interval_ms: 0, decoded_interval_ms: 0 });
    at = host.feed_from(1, at, &scripted::encode_from(1, &["b", "c"]));
    host.flush(1, at);
    let text = host.wait(|message| match message {
        FromHost::Partial { .. } => panic!("a partial after they were switched off"),
        FromHost::Cut { utterance, .. } => Some(utterance.text),
        _ => None,
    });
    assert_eq!(text, "0:a 1:b 2:c");
}

#[test]
fn a_hanging_call_shows_in_heartbeats_and_the_others_go_on() {
    let mut host = Host::start(spec());
    host.open(1, 100, 0);
    host.open(2, 100, 0);
    host.feed(1, &scripted::harm(0, Harm::Hang, None));
    let call = host.wait(|message| match message {
        FromHost::Heartbeat { calls, .. } => calls.into_iter().find(|call| call.running_ms > 150),
        _ => None,
    });
    assert_eq!((call.lease.0, call.until.0), (1, 1_600));
    let end = host.feed(2, &scripted::encode(&["still", "here"]));
    host.flush(2, end);
    assert_eq!(host.cut(2).4, "0:still 1:here");
    assert_eq!(host.noted(), Some(FlightEntry { lease: LeaseId(1), until: DecodeOffset(1_600) }));
}

#[test]
fn deaths_have_their_cause_and_the_recorder_names_the_step() {
    let cases =
        [(Harm::Abort, Some(6), None), (Harm::Segfault, Some(11), None), (Harm::Exit(3), None, Some(3))];
    for (harm, signal, code) in cases {
        let mut host = Host::start(spec());
        host.open(1, 100, 0);
        let mut audio = scripted::encode(&["a"]);
        audio.extend(scripted::harm(1, harm, None));
        host.feed(1, &audio);
        while host.next().is_some() {}
        let status = host.child.wait().expect("host ends");
        assert_eq!((status.signal(), status.code()), (signal, code), "{harm:?}");
        let noted = host.noted();
        assert_eq!(noted, Some(FlightEntry { lease: LeaseId(1), until: DecodeOffset(3_200) }), "{harm:?}");
    }
}

#[test]
fn a_killed_host_is_gone_at_once() {
    let mut host = Host::start(spec());
    host.child.kill().expect("kill");
    assert_eq!(host.ends_with_signal(), Some(9));
}

impl Host {
    fn ends_with_signal(mut self) -> Option<i32> {
        while self.next().is_some() {}
        self.child.wait().expect("host ends").signal()
    }
}

#[test]
fn the_host_leaves_when_its_parent_closes_the_link() {
    let mut host = Host::start(spec());
    host.open(1, 100, 0);
    host.feed(1, &scripted::harm(0, Harm::Hang, None));
    host.socket.shutdown(std::net::Shutdown::Write).expect("half closed");
    assert_eq!(host.ends().code(), Some(starling_engine::host::EXIT_PARENT_GONE));
}

#[test]
fn garbage_and_a_missing_start_are_fatal() {
    let mut host = Host::start(spec());
    host.socket.write_all(&[0xff; 64]).expect("garbage goes out");
    assert_eq!(host.ends().code(), Some(starling_engine::host::EXIT_PROTOCOL));
    let mut host = Host::launch();
    host.send(&ToHost::Shutdown);
    assert_eq!(host.ends().code(), Some(starling_engine::host::EXIT_PROTOCOL));
}

#[cfg(feature = "vosk")]
#[test]
fn a_model_that_is_not_there_is_one_clear_sentence() {
    let mut host = Host::launch();
    host.send(&ToHost::Start(HostSpec {
        engine: EngineKind::Vosk,
        model_dir: "/nowhere/model".into(),
        library_dir: "/nowhere/lib".into(),
        ..spec()
    }));
    let message = host.wait(|message| match message {
        FromHost::LoadFailed { message } => Some(message),
        _ => None,
    });
    assert!(message.contains("/nowhere/"), "{message}");
    assert_eq!(host.ends().code(), Some(starling_engine::host::EXIT_LOAD_FAILED));
}

#[test]
fn heartbeats_count_and_a_memory_budget_retires_the_host() {
    let mut host = Host::start(HostSpec { memory_budget_bytes: 1, ..spec() });
    let mut last = 0;
    let mut retiring = 0;
    while last < 5 {
        match host.next().expect("lives") {
            FromHost::Heartbeat { sequence, resident_bytes, .. } => {
                assert!(sequence > last && resident_bytes > 0);
                last = sequence;
            }
            FromHost::Retiring { .. } => retiring += 1,
            _ => {}
        }
    }
    assert_eq!(retiring, 1);
}

#[test]
fn spent_recognizers_are_replaced_and_the_text_is_the_same() {
    let mut host = Host::start(HostSpec { recognizer_audio_budget_s: 1, ..spec() });
    host.open(1, 100, 0);
    let mut at = 0;
    for number in 0..30 {
        let mut audio = scripted::encode_from(number, &["w"]);
        audio.extend(scripted::silence(5));
        at = host.feed_from(1, at, &audio);
        assert_eq!(host.cut(1).4, format!("{number}:w"));
    }
}

#[test]
fn many_leases_with_slow_calls_keep_their_own_text() {
    let mut host = Host::start(HostSpec { slots: 8, ..spec() });
    for lease in 0..8 {
        host.open(lease, 100, 100);
    }
    let mut ends = Vec::new();
    for lease in 0..8u64 {
        let words: Vec<String> = (0..20).map(|word| format!("l{lease}w{word}")).collect();
        let mut audio = scripted::encode(&words);
        audio.extend(scripted::harm(20, Harm::Slow(20), None));
        let end = host.feed(lease, &audio);
        host.flush(lease, end);
        let expected = (0..20).map(|word| format!("{word}:l{lease}w{word}"));
        ends.push((lease, expected.chain(["20:slow".to_owned()]).collect::<Vec<_>>().join(" ")));
    }
    let mut seen = Vec::new();
    while seen.len() < 8 {
        seen.push(host.wait(|message| match message {
            FromHost::Cut { lease, utterance, .. } => Some((lease.0, utterance.text)),
            FromHost::Failed { message, .. } => panic!("{message}"),
            _ => None,
        }));
    }
    seen.sort();
    assert_eq!(seen, ends);
}
