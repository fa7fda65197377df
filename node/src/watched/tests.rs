use std::sync::Mutex;

use starling_actors::{Dialect, Ready};
use starling_protocol::native::Resume;
use starling_protocol::{Epoch, SessionId, SourceOffset};

use super::*;
use crate::metrics::MetricsOptions;

/// What was done with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Audio(usize),
    End,
    Finalize,
}

#[derive(Default)]
struct Played {
    seen: Arc<Mutex<Vec<Seen>>>,
    have_until: u64,
}

struct Hearing(Arc<Mutex<Vec<Seen>>>);

#[async_trait]
impl Input for Hearing {
    async fn audio(&mut self, pcm: &[u8]) -> Result<(), SessionClosed> {
        self.0.lock().expect("lock").push(Seen::Audio(pcm.len()));
        Ok(())
    }

    async fn finalize(&mut self) -> Result<(), SessionClosed> {
        self.0.lock().expect("lock").push(Seen::Finalize);
        Ok(())
    }

    async fn end(&mut self) -> Result<(), SessionClosed> {
        self.0.lock().expect("lock").push(Seen::End);
        Ok(())
    }

    async fn confirm(&mut self, _segment: Segment) -> Result<(), SessionClosed> {
        Ok(())
    }

    async fn abandon(self: Box<Self>) {}
}

/// A session whose end is told as soon as it is asked for.
struct Over(Arc<Mutex<Vec<Seen>>>);

#[async_trait]
impl Output for Over {
    async fn next(&mut self) -> Option<SessionEvent> {
        if self.0.lock().expect("lock").contains(&Seen::End) {
            return Some(SessionEvent::Done { segments: 0, frames: SourceOffset(0) });
        }
        std::future::pending().await
    }
}

impl Played {
    fn attached(&self) -> Attached {
        let ready = Ready {
            session: SessionId::random(),
            epoch: Epoch(1),
            token: String::new(),
            model: "m".to_owned(),
            sample_rate: 8_000,
            have_until: SourceOffset(self.have_until),
            next_segment: Segment(0),
            resumed: false,
            durable: false,
            linger: Duration::ZERO,
            warnings: Vec::new(),
            log: tracing::Span::none(),
        };
        let seen = || Arc::clone(&self.seen);
        Attached { ready, input: Box::new(Hearing(seen())), output: Box::new(Over(seen())) }
    }
}

#[async_trait]
impl Sessions for Played {
    async fn open(&self, _request: OpenRequest) -> Result<Attached, ErrorBody> {
        Ok(self.attached())
    }

    async fn go_on(&self, _request: OpenRequest) -> Result<Attached, ErrorBody> {
        Ok(self.attached())
    }

    async fn resume(&self, _request: ResumeRequest) -> Result<Attached, ErrorBody> {
        Ok(self.attached())
    }

    fn models(&self) -> Vec<ModelInfo> {
        Vec::new()
    }

    async fn status(&self) -> NodeStatus {
        NodeStatus::default()
    }

    async fn session_reports(&self, _most: usize) -> Vec<SessionReport> {
        Vec::new()
    }
}

fn watched(played: Arc<Played>, most: Duration) -> WatchedSessions {
    WatchedSessions::new(played, most, Arc::new(Metrics::new([], MetricsOptions::default())))
}

fn a_request() -> OpenRequest {
    OpenRequest::new(SessionId::random(), Dialect::Native, 8_000)
}

#[tokio::test]
async fn a_session_that_is_too_long_is_ended_with_all_that_it_heard_and_the_reason() {
    let played = Arc::new(Played::default());
    let seen = Arc::clone(&played.seen);
    let sessions = watched(played, Duration::from_secs(1));
    let Attached { mut input, mut output, .. } = sessions.open(a_request()).await.expect("opens");
    for _ in 0..3 {
        input.audio(&[0; 10_000]).await.expect("is read on");
    }
    input.finalize().await.expect("is read on");
    input.end().await.expect("is read on");
    assert_eq!(*seen.lock().expect("lock"), [Seen::Audio(10_000), Seen::Audio(6_000), Seen::End]);
    match output.next().await {
        Some(SessionEvent::Failed(error)) => {
            assert_eq!(error.code, ErrorCode::SessionTooLong);
            assert!(error.message.contains("1s"), "{}", error.message);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_heard_before_a_resume_counts() {
    let played = Arc::new(Played { have_until: 7_999, ..Played::default() });
    let seen = Arc::clone(&played.seen);
    let sessions = watched(played, Duration::from_secs(1));
    let resume = Resume {
        token: String::new(),
        epoch: Epoch(2),
        last_final: None,
        final_to: None,
        have_from: SourceOffset(0),
    };
    let request = ResumeRequest { session: SessionId::random(), tenant: String::new(), resume, trace: None };
    let mut attached = sessions.resume(request).await.expect("resumes");
    attached.input.audio(&[0; 100]).await.expect("is read on");
    assert_eq!(*seen.lock().expect("lock"), [Seen::Audio(2), Seen::End]);
}

#[tokio::test]
async fn without_a_limit_a_session_goes_on_and_its_end_is_its_own() {
    let played = Arc::new(Played::default());
    let sessions = watched(played, Duration::ZERO);
    let Attached { mut input, mut output, .. } = sessions.open(a_request()).await.expect("opens");
    input.audio(&vec![0; 1 << 20]).await.expect("taken");
    input.end().await.expect("taken");
    assert!(matches!(output.next().await, Some(SessionEvent::Done { .. })));
}

#[tokio::test]
async fn audio_that_is_a_recording_is_told_once_and_passed_on() {
    let played = Arc::new(Played::default());
    let seen = Arc::clone(&played.seen);
    let sessions = watched(played, Duration::ZERO);
    let Attached { mut input, mut output, .. } = sessions.open(a_request()).await.expect("opens");
    input.audio(b"fLaC and what follows").await.expect("taken");
    input.audio(b"fLaC and what follows").await.expect("taken");
    input.end().await.expect("taken");
    match output.next().await {
        Some(SessionEvent::Warning(WarningCode::SuspectAudio, message)) => {
            assert!(message.contains("FLAC"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(output.next().await, Some(SessionEvent::Done { .. })));
    assert_eq!(*seen.lock().expect("lock"), [Seen::Audio(21), Seen::Audio(21), Seen::End]);
}
