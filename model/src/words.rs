//! What happens, in words: a counterexample is a list of them.

use std::fmt;

use starling_protocol::replica::ToReplica;

use crate::model::{Cluster, Step};
use crate::state::{AskId, ConnId, LinkId, Outbox, Said, State, ToKeeper, ToServer, name};

impl Cluster {
    /// A step in words, and what it is about in the state before it.
    #[must_use]
    pub fn tell(&self, before: &State, step: Step) -> String {
        let conn = |id: ConnId| before.net.conns.get(&id).map_or("?", |conn| name(conn.node).as_str());
        let link = |id: LinkId| {
            before
                .net
                .links
                .get(&id)
                .map_or(("?", "?"), |link| (name(link.owner).as_str(), name(link.keeper).as_str()))
        };
        let ask = |id: AskId| {
            before.net.asks.get(&id).map_or_else(String::new, |ask| {
                let (asker, to, epoch) = (name(ask.asker), name(ask.to), ask.epoch);
                match &ask.said {
                    Said::Promote => format!("{asker} asks {to} to obey epoch {epoch}"),
                    Said::Answer(answer) => format!("{to} answers {asker}: {answer:?}"),
                    Said::Fetch => format!("{asker} asks {to} for its copy"),
                    Said::Copy(copy) => {
                        format!("{to} gives {asker} {}", if copy.is_some() { "a copy" } else { "none" })
                    }
                }
            })
        };
        match step {
            Step::Speaks => "the client speaks".into(),
            Step::ClientReads(id) => format!("the client reads {}", told(before, id)),
            Step::ClientLoses => "the client notices that its connection is gone".into(),
            Step::ServerReads(id) => {
                let said = before
                    .net
                    .conns
                    .get(&id)
                    .map(|conn| list(conn.to_server.iter().map(|said| said.to_string())));
                format!("{} reads {}", conn(id), said.unwrap_or_default())
            }
            Step::Decodes(node, _) => format!("{} decodes a step", name(node)),
            Step::KeeperReads(id) => {
                let said = before
                    .net
                    .links
                    .get(&id)
                    .map(|link| list(link.to_keeper.iter().map(ToString::to_string)));
                format!("{} reads what {} tells it: {}", link(id).1, link(id).0, said.unwrap_or_default())
            }
            Step::OwnerReads(id) => {
                let said = before
                    .net
                    .links
                    .get(&id)
                    .map(|link| list(link.to_owner.iter().map(|said| format!("{said:?}"))));
                format!("{} reads what {} tells it: {}", link(id).0, link(id).1, said.unwrap_or_default())
            }
            Step::Arrives(id) => ask(id),
            Step::ClientWaited => "the client has waited long enough".into(),
            Step::CopiesWaited(node, _) => format!("{} has waited long enough for copies", name(node)),
            Step::AnswerWaited(id) => format!("waited long enough: {}", ask(id)),
            Step::SessionWaited(node, _) => format!("{} has waited long enough for the client", name(node)),
            Step::KeeperWaited(node) => format!("{} forgets", name(node)),
            Step::ConnBreaks(id) => format!("the client's connection to {} breaks", conn(id)),
            Step::LinkBreaks(id) => format!("the stream from {} to {} breaks", link(id).0, link(id).1),
            Step::Lost(id) => format!("lost: {}", ask(id)),
            Step::Twice(id) => format!("twice: {}", ask(id)),
            Step::Crashes(node) => format!("{} is gone", name(node)),
            Step::Pauses(node) => format!("{} stands still", name(node)),
            Step::Wakes => "it goes on".into(),
        }
    }
}

fn list(said: impl Iterator<Item = String>) -> String {
    said.collect::<Vec<_>>().join(", ")
}

fn told(state: &State, id: ConnId) -> String {
    let Some(conn) = state.net.conns.get(&id) else { return String::new() };
    let Outbox { ready, view, finals, ack, last } = &conn.outbox;
    let ready = ready.iter().map(|ready| {
        format!("that {} goes on from {}, durable: {}", name(conn.node), ready.have_until, ready.set.durable)
    });
    let view = view.iter().map(|set| format!("view {}, durable: {}", set.view.0, set.durable));
    let finals = finals.iter().map(|text| format!("segment {}, up to {}", text.segment, text.to));
    let ack = ack.iter().map(|until| format!("ack {until}"));
    let last = last.iter().map(|last| format!("{last:?}"));
    list(ready.chain(view).chain(finals).chain(ack).chain(last))
}

impl fmt::Display for ToServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(hello) => match &hello.resume {
                Some(resume) => write!(
                    f,
                    "resume, epoch {}, {} finals",
                    resume.epoch,
                    resume.last_final.map_or(0, |last| last.0 + 1)
                ),
                None => f.write_str("hello"),
            },
            Self::Audio(from, to) => write!(f, "audio {from}..{to}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Display for ToKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(epoch) => write!(f, "epoch {epoch}"),
            Self::Closed => f.write_str("the stream is over"),
            Self::Says(message) => match &*message.message {
                ToReplica::Begin(start) => write!(f, "begin, epoch {}, view {}", start.epoch, start.view.0),
                ToReplica::Kept(last) => write!(f, "final {}", last.segment),
                ToReplica::Audio { from, pcm, .. } => {
                    write!(f, "audio {from}..{}", from.0 + pcm.len() as u64 / 2)
                }
                ToReplica::Commit(commit) => write!(f, "commit {}", commit.last.segment),
                other => write!(f, "{other:?}"),
            },
        }
    }
}
