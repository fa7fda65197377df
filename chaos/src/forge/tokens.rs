//! Resume tokens that are forged, of another session, or were used before.
//!
//! Owns: the sessions whose tokens these are. Must never: end a session of anybody else's.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use starling_protocol::native::{ClientMessage, ErrorCode, Hello, Resume, ServerMessage};
use starling_protocol::{Epoch, SessionId, SourceOffset};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Mark, count};

/// A node that is busy with callers answers far sooner.
const PATIENCE: Duration = Duration::from_secs(10);

/// What remains of a session after its end is let go within this many tries.
const TRIES: usize = 50;

const BETWEEN_TRIES: Duration = Duration::from_millis(100);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Shows each node tokens that it must not take, two of them for a session of one of the callers. How many were shown, and how many
/// counted as refused.
pub(crate) async fn show_tokens(marks: &[Mark], caller: &str) -> Result<(u64, u64)> {
    let home = &marks.first().context("there is no node")?.http;
    let caller = SessionId::parse(caller).context("the id of a caller's session")?;
    let (mut one, ready) = open(home, Hello::new(SessionId::random())).await?;
    let (mut other, other_ready) = open(home, Hello::new(SessionId::random())).await?;
    let mut touched = ready.token.clone();
    let last = touched.pop().context("an empty token")?;
    touched.push(if last == 'A' { 'B' } else { 'A' });
    let wrong = [
        (ready.session, touched.clone()),
        (ready.session, "no token of anybody's".repeat(8)),
        (ready.session, other_ready.token.clone()),
        (caller, ready.token.clone()),
        (caller, touched),
    ];
    let (mut shown, mut refused) = (0, 0);
    for mark in marks {
        let before = count(&mark.http, "resumes", &["bad_token"]).await?;
        for (session, token) in &wrong {
            is_refused(&mark.http, *session, token, Epoch(1_000), ErrorCode::BadToken).await?;
        }
        let counted = count(&mark.http, "resumes", &["bad_token"]).await? - before;
        ensure!(
            counted >= wrong.len() as u64,
            "{} refused {} tokens and counted {counted}",
            mark.name,
            wrong.len()
        );
        shown += wrong.len() as u64;
        refused += counted;
    }

    // Its own token, at an epoch that was used: whoever listened could say the same again.
    let next = resume(ready.session, &ready.token, Epoch(2));
    let (mut again, _) = open(home, next).await.context("a token that is right was not taken")?;
    let before = count(home, "resumes", &["superseded", "unknown_session"]).await?;
    is_refused(home, ready.session, &ready.token, Epoch(2), ErrorCode::Superseded).await?;
    end(&mut again).await?;
    end(&mut other).await?;
    drop((again, other));
    let _ = one.close(None).await;
    let mut tries = 0;
    // What is over is not gone on with.
    while let Err(error) =
        is_refused(home, ready.session, &ready.token, Epoch(3), ErrorCode::UnknownSession).await
    {
        tries += 1;
        ensure!(tries < TRIES, "the token of a session that is over: {error:#}");
        sleep(BETWEEN_TRIES).await;
    }
    let counted = count(home, "resumes", &["superseded", "unknown_session"]).await? - before;
    ensure!(counted >= 2, "two tokens were used before, and {counted} counted as refused");
    Ok((shown + 2, refused + 2))
}

struct Ready {
    session: SessionId,
    token: String,
}

fn resume(session: SessionId, token: &str, epoch: Epoch) -> Hello {
    let resume = Resume {
        token: token.to_owned(),
        epoch,
        last_final: None,
        final_to: None,
        have_from: SourceOffset(0),
    };
    Hello { resume: Some(resume), ..Hello::new(session) }
}

async fn is_refused(
    http: &str,
    session: SessionId,
    token: &str,
    epoch: Epoch,
    expected: ErrorCode,
) -> Result<()> {
    match said(http, resume(session, token, epoch)).await?.1 {
        ServerMessage::Error(body) if body.code == expected => Ok(()),
        other => bail!("{http} was shown what it had to refuse as {expected:?}, and said {other:?}"),
    }
}

async fn open(http: &str, hello: Hello) -> Result<(Socket, Ready)> {
    match said(http, hello).await? {
        (socket, ServerMessage::Ready { session, token, .. }) => Ok((socket, Ready { session, token })),
        (_, other) => bail!("{http} opened no session: {other:?}"),
    }
}

/// The first thing that is said to a hello.
async fn said(http: &str, hello: Hello) -> Result<(Socket, ServerMessage)> {
    let connecting = connect_async(format!("ws://{http}/v1/stream"));
    let (mut socket, _) = timeout(PATIENCE, connecting).await.context("connecting takes too long")??;
    send(&mut socket, &ClientMessage::Hello(Box::new(hello))).await?;
    let answer = next(&mut socket).await?;
    Ok((socket, answer))
}

async fn end(socket: &mut Socket) -> Result<()> {
    send(socket, &ClientMessage::End {}).await?;
    while !matches!(next(socket).await?, ServerMessage::Done { .. }) {}
    Ok(())
}

async fn send(socket: &mut Socket, message: &ClientMessage) -> Result<()> {
    Ok(socket.send(Message::text(serde_json::to_string(message)?)).await?)
}

async fn next(socket: &mut Socket) -> Result<ServerMessage> {
    loop {
        let message = timeout(PATIENCE, socket.next()).await.context("a node says nothing")?;
        if let Message::Text(text) = message.context("the connection was closed")?? {
            return serde_json::from_str(&text).with_context(|| format!("a node said {text}"));
        }
    }
}
