//! What a gateway needs of the node: to open a session, to go on with one, and to say how things stand.
//!
//! The gateways speak to this trait and not to the actors, so that their tests can play a node in states that a real one is
//! rarely in: a decoder that never answers, a session that fails between two messages.

use async_trait::async_trait;
use starling_actors::{
    Attachment, Capabilities, ModelArguments, NodeHandle, NodeStatus, OpenRequest, Ready, ResumeRequest,
    SessionClosed, SessionEvent,
};
use starling_protocol::Segment;
use starling_protocol::control::SessionReport;
use starling_protocol::native::ErrorBody;

/// A node's sessions.
#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// Opens a session, or takes it over from an older connection when it is open already.
    ///
    /// # Errors
    /// What the client is to be told.
    async fn open(&self, request: OpenRequest) -> Result<Attached, ErrorBody>;

    /// Goes on with the session of the request's id, on whatever node it lives, and begins none.
    ///
    /// # Errors
    /// What the client is to be told; `unknown_session` when there is none of that id.
    async fn go_on(&self, request: OpenRequest) -> Result<Attached, ErrorBody>;

    /// Goes on with a session.
    ///
    /// # Errors
    /// What the client is to be told.
    async fn resume(&self, request: ResumeRequest) -> Result<Attached, ErrorBody>;

    /// What new sessions can ask for, the default first. Changes while the node runs.
    fn models(&self) -> Vec<ModelInfo>;

    /// How things stand.
    async fn status(&self) -> NodeStatus;

    /// How single sessions are, `most` of them.
    async fn session_reports(&self, most: usize) -> Vec<SessionReport>;
}

/// What is known of a model, whether it is loaded or not.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// Its name.
    pub name: String,
    /// The language it was made for.
    pub language: String,
    /// The engine that runs it.
    pub engine: &'static str,
    /// What it hears, in Hz. Clients may send any rate.
    pub sample_rate: u32,
    /// What it can be asked for.
    pub capabilities: Capabilities,
}

impl From<&ModelArguments> for ModelInfo {
    fn from(model: &ModelArguments) -> Self {
        Self {
            name: model.name.clone(),
            language: model.language.clone(),
            engine: model.engine.label(),
            sample_rate: model.sample_rate,
            capabilities: model.capabilities,
        }
    }
}

/// A connection's hold on a session.
pub struct Attached {
    /// What the client is told first.
    pub ready: Ready,
    /// From the client.
    pub input: Box<dyn Input>,
    /// To the client.
    pub output: Box<dyn Output>,
}

/// What goes into a session. Dropping it says that the connection was lost.
#[async_trait]
pub trait Input: Send {
    /// Audio, of any number of bytes. Waits while the journal is full. When it is cancelled, none of the last
    /// [`PIECE_BYTES`] was taken: a single piece is taken as a whole or not at all.
    async fn audio(&mut self, pcm: &[u8]) -> Result<(), SessionClosed>;
    /// End the open segment; answered by a final.
    async fn finalize(&mut self) -> Result<(), SessionClosed>;
    /// No more audio; answered by the last finals and `Done`.
    async fn end(&mut self) -> Result<(), SessionClosed>;
    /// The client has every final up to this one.
    async fn confirm(&mut self, segment: Segment) -> Result<(), SessionClosed>;
    /// The client is gone for good.
    async fn abandon(self: Box<Self>);
}

/// What comes out of a session.
#[async_trait]
pub trait Output: Send {
    /// The next event; `None` when there will be no more. May be cancelled without losing any.
    async fn next(&mut self) -> Option<SessionEvent>;
}

impl From<Attachment> for Attached {
    fn from(attachment: Attachment) -> Self {
        Self {
            ready: attachment.ready,
            input: Box::new(attachment.input),
            output: Box::new(attachment.output),
        }
    }
}

#[async_trait]
impl Sessions for NodeHandle {
    async fn open(&self, request: OpenRequest) -> Result<Attached, ErrorBody> {
        Self::open(self, request).await.map(Attached::from)
    }

    async fn go_on(&self, request: OpenRequest) -> Result<Attached, ErrorBody> {
        Self::go_on(self, request).await.map(Attached::from)
    }

    async fn resume(&self, request: ResumeRequest) -> Result<Attached, ErrorBody> {
        Self::resume(self, request).await.map(Attached::from)
    }

    fn models(&self) -> Vec<ModelInfo> {
        self.served().borrow().iter().map(ModelInfo::from).collect()
    }

    async fn status(&self) -> NodeStatus {
        Self::status(self).await
    }

    async fn session_reports(&self, most: usize) -> Vec<SessionReport> {
        Self::session_reports(self, most).await
    }
}

#[async_trait]
impl Input for starling_actors::SessionInput {
    async fn audio(&mut self, pcm: &[u8]) -> Result<(), SessionClosed> {
        Self::audio(self, pcm).await
    }

    async fn finalize(&mut self) -> Result<(), SessionClosed> {
        Self::finalize(self).await
    }

    async fn end(&mut self) -> Result<(), SessionClosed> {
        Self::end(self).await
    }

    async fn confirm(&mut self, segment: Segment) -> Result<(), SessionClosed> {
        Self::confirm(self, segment).await
    }

    async fn abandon(self: Box<Self>) {
        Self::abandon(*self).await;
    }
}

#[async_trait]
impl Output for starling_actors::SessionOutput {
    async fn next(&mut self) -> Option<SessionEvent> {
        Self::next(self).await
    }
}

/// Audio goes into a session in pieces of this size, so that finals are confirmed in between: a second at 16 kHz.
pub(crate) const PIECE_BYTES: usize = 32 * 1024;

/// Hands on audio and takes in what comes out meanwhile: one that waits for the other would stand still for ever when the
/// journal is full. `take_in` says which finals may be confirmed at once.
pub(crate) async fn feed(
    input: &mut dyn Input,
    output: &mut dyn Output,
    pcm: &[u8],
    mut take_in: impl FnMut(SessionEvent) -> Option<Segment>,
) -> Result<(), SessionClosed> {
    for piece in pcm.chunks(PIECE_BYTES) {
        while let Some(segment) = feed_piece(input, output, piece, &mut take_in).await? {
            input.confirm(segment).await?;
        }
    }
    Ok(())
}

/// `None` once the piece is taken; a final that has to be confirmed before it can be.
async fn feed_piece(
    input: &mut dyn Input,
    output: &mut dyn Output,
    piece: &[u8],
    take_in: &mut impl FnMut(SessionEvent) -> Option<Segment>,
) -> Result<Option<Segment>, SessionClosed> {
    let mut fed = input.audio(piece);
    loop {
        tokio::select! {
            biased;
            done = &mut fed => return done.map(|()| None),
            event = output.next() => match event {
                Some(event) => {
                    if let Some(segment) = take_in(event) {
                        return Ok(Some(segment));
                    }
                }
                None => return fed.await.map(|()| None),
            },
        }
    }
}
