//! Nodes that serve sessions, keep copies of them, and take them over: as forgetful and as far behind as they may be.

use std::collections::{HashMap, VecDeque};

use starling_protocol::native::{ErrorBody, ErrorCode, Final, Hello, Resume, ServerMessage};
use starling_protocol::{CutCause, Epoch, Segment, SessionId, SourceOffset};

use super::super::{Server, Write};

/// How many nodes there are; the last is not among the client's own servers.
pub(super) const NODES: usize = 3;

pub(super) fn address(node: usize) -> String {
    format!("node-{node}:80")
}

pub(super) fn node_of(server: &Server) -> usize {
    match server {
        Server::Configured(index) => *index,
        Server::Suggested(named) => (0..NODES).find(|&node| address(node) == *named).expect("was named"),
    }
}

/// The value of the n-th frame; its low digits decide where segments end.
pub(super) fn sample(frame: u64) -> u16 {
    u16::try_from((frame * 2_654_435_761) >> 7 & 0xffff).expect("masked")
}

/// Where a segment ends is a function of its own audio.
fn cuts_after(length: usize, value: u16) -> bool {
    length >= 20 || (length >= 3 && value % 9 == 4)
}

pub(super) fn text_of(audio: &[u16]) -> String {
    format!("{audio:x?}")
}

fn count(value: u64) -> usize {
    usize::try_from(value).expect("small")
}

/// A session as one node has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    audio: Vec<u16>,
    /// Where finalizes wait to be answered: one final each, even two at one place.
    finalizes: VecDeque<usize>,
    ended: bool,
    /// From the segment `first` on; those before were made by others, or are confirmed and forgotten.
    finals: Vec<Final>,
    first: usize,
    committed: usize,
    epoch: u64,
}

impl Session {
    /// The finals of a run without faults.
    pub(super) fn undisturbed(frames: u64, finalizes: VecDeque<usize>) -> Vec<Final> {
        let audio = (0..frames).map(sample).collect();
        let mut session = Self { audio, finalizes, ended: true, ..Self::default() };
        while session.commit_one().is_some() {}
        session.finals
    }

    fn next_segment(&self) -> usize {
        self.first + self.finals.len()
    }

    fn commit_one(&mut self) -> Option<Final> {
        let from = self.committed;
        let open = &self.audio[from..];
        let asked = self.finalizes.front().map(|&at| at - from);
        let natural = (1..=open.len()).find(|&length| cuts_after(length, open[length - 1]));
        let end = (self.ended && !open.is_empty()).then_some(open.len());
        let (cut, cause) = match (asked, natural) {
            (Some(asked), None) => (asked, CutCause::Finalize),
            (Some(asked), Some(natural)) if asked < natural => (asked, CutCause::Finalize),
            (_, Some(natural)) => (natural, CutCause::Endpoint),
            (None, None) => (end?, CutCause::End),
        };
        if cause == CutCause::Finalize {
            self.finalizes.pop_front();
        }
        let last = Final {
            segment: Segment(self.next_segment() as u64),
            from: SourceOffset(from as u64),
            to: SourceOffset((from + cut) as u64),
            start: from as f64 / 16_000.0,
            end: (from + cut) as f64 / 16_000.0,
            cause,
            text: text_of(&open[..cut]),
            words: Vec::new(),
            confidence: None,
            alternatives: Vec::new(),
            error: None,
        };
        self.finals.push(last.clone());
        self.committed += cut;
        Some(last)
    }

    /// What the client has counts more than what is here: the session goes on after the client's last final.
    fn obey(&mut self, resume: &Resume) {
        let (Some(last), Some(to)) = (resume.last_final, resume.final_to) else {
            return;
        };
        let (known, to) = (count(last.0) + 1, count(to.0));
        let own = known.checked_sub(self.first + 1).and_then(|index| self.finals.get(index));
        if known > self.first && own.is_none_or(|own| count(own.to.0) != to) {
            self.finals.clear();
            self.first = known;
            self.committed = to;
            // Never to be decoded.
            self.audio.resize(self.audio.len().max(to), 0);
            self.finalizes.retain(|&at| at >= to);
        }
    }

    /// This session as a copy would have it that lacks the last of the audio.
    fn without_the_last(&self, frames: usize) -> Self {
        let mut copy = self.clone();
        let length = (copy.audio.len() - frames.min(copy.audio.len())).max(copy.committed);
        if length < copy.audio.len() {
            copy.audio.truncate(length);
            copy.finalizes.retain(|&at| at <= length);
            copy.ended = false;
        }
        copy
    }
}

/// One connection of the client.
#[derive(Debug, Default)]
pub(super) struct Link {
    node: usize,
    pub(super) to_server: VecDeque<Result<Write, Hello>>,
    pub(super) audio_in_flight: VecDeque<Vec<u8>>,
    pub(super) to_client: VecDeque<ServerMessage>,
    /// The session that it speaks for, while it does.
    serves: Option<SessionId>,
}

impl Link {
    pub(super) fn to(server: &Server, hello: Hello) -> Self {
        Self { node: node_of(server), to_server: VecDeque::from([Err(hello)]), ..Self::default() }
    }

    pub(super) const fn node(&self) -> usize {
        self.node
    }
}

/// What a resume finds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    /// The best there is.
    Best,
    /// Whichever copy, and that without its last frames.
    Behind { copy: usize, frames: usize },
}

#[derive(Debug, Default)]
pub(super) struct Cluster {
    nodes: [HashMap<SessionId, Session>; NODES],
    owners: HashMap<SessionId, usize>,
    /// What the next resume is refused with.
    pub(super) refuses: Option<ErrorCode>,
}

impl Cluster {
    pub(super) fn forget(&mut self) {
        self.nodes.iter_mut().for_each(HashMap::clear);
    }

    pub(super) fn crash(&mut self, node: usize) {
        self.nodes[node].clear();
    }

    pub(super) fn holds(&self, node: usize) -> bool {
        !self.nodes[node].is_empty()
    }

    fn session(&mut self, link: &Link) -> Option<&mut Session> {
        self.nodes[link.node].get_mut(&link.serves?)
    }

    /// The node gets a copy of the session as it is now.
    pub(super) fn copy_to(&mut self, node: usize, link: &Link) {
        if node != link.node
            && let Some(session) = self.session(link).cloned()
            && let Some(id) = link.serves
        {
            self.nodes[node].insert(id, session);
        }
    }

    /// The session's node says where copies are.
    pub(super) fn view(&self, link: &mut Link, durable: bool) {
        let Some(id) = link.serves else {
            return;
        };
        let has_copy = |&node: &usize| node != link.node && self.nodes[node].contains_key(&id);
        let resume_at = (0..NODES).filter(has_copy).map(address).collect();
        link.to_client.push_back(ServerMessage::View { view: 1, token: "token".into(), durable, resume_at });
    }

    pub(super) fn go_away(&self, link: &mut Link) {
        if link.serves.is_some() {
            link.to_client.push_back(ServerMessage::GoAway { deadline_ms: 30_000 });
        }
    }

    /// The link's node reads one message. `other` is the client's other connection.
    pub(super) fn read(&mut self, link: &mut Link, other: Option<&mut Link>, found: Found) {
        let write = match link.to_server.pop_front() {
            None => return,
            Some(Err(hello)) => return self.open(link, other, &hello, found),
            Some(Ok(write)) => write,
        };
        let audio = matches!(write, Write::Audio(_)).then(|| link.audio_in_flight.pop_front());
        let Some(session) = self.session(link) else {
            return;
        };
        match write {
            Write::Audio(_) => {
                let bytes = audio.flatten().expect("sent with it");
                let frames = bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]));
                session.audio.extend(frames);
            }
            Write::Confirm(segment) => {
                let confirmed = count(segment.0 + 1);
                assert!(confirmed <= session.next_segment(), "confirmed what was never sent");
                let forgotten = confirmed.saturating_sub(session.first);
                session.finals.drain(..forgotten);
                session.first += forgotten;
            }
            Write::Finalize => session.finalizes.push_back(session.audio.len()),
            Write::End => session.ended = true,
        }
    }

    fn open(&mut self, link: &mut Link, mut other: Option<&mut Link>, hello: &Hello, found: Found) {
        let id = hello.session.expect("made by the client");
        let other_serves = other.as_ref().is_some_and(|other| other.serves == Some(id));
        let session = match &hello.resume {
            // One that was opened before and whose `ready` was lost has heard nothing.
            None => Ok(Session { epoch: hello.epoch.map_or(1, |epoch| epoch.0), ..Session::default() }),
            Some(resume) => match self.refuses.take() {
                Some(code) => Err(code),
                None => self.taken_over(id, resume, other_serves, found),
            },
        };
        let session = match session {
            Ok(session) => session,
            Err(code) => {
                link.to_client.push_back(ServerMessage::Error(ErrorBody::new(code, "no")));
                return;
            }
        };
        if other_serves && let Some(other) = &mut other {
            let body = ErrorBody::new(ErrorCode::Superseded, "taken over");
            other.to_client.push_back(ServerMessage::Error(body));
            other.serves = None;
        }
        let last_final = hello.resume.as_ref().and_then(|resume| resume.last_final);
        let known = last_final.map_or(0, |last| count(last.0) + 1);
        link.serves = Some(id);
        link.to_client.push_back(ServerMessage::Ready {
            session: id,
            epoch: Epoch(session.epoch),
            token: "token".into(),
            model: "model".into(),
            have_until: SourceOffset(session.audio.len() as u64),
            next_segment: Segment(known as u64),
            resumed: hello.resume.is_some(),
            durable: false,
            linger_ms: 60_000,
            node: String::new(),
        });
        let lacking = session.finals.iter().skip(known.saturating_sub(session.first)).cloned();
        link.to_client.extend(lacking.map(ServerMessage::Final));
        self.owners.insert(id, link.node);
        self.nodes[link.node].insert(id, session);
    }

    fn taken_over(
        &self,
        id: SessionId,
        resume: &Resume,
        other_serves: bool,
        found: Found,
    ) -> Result<Session, ErrorCode> {
        let copies: Vec<&Session> = self.nodes.iter().filter_map(|node| node.get(&id)).collect();
        let best = copies.iter().max_by_key(|copy| (copy.epoch, copy.next_segment(), copy.audio.len()));
        let Some(&best) = best else {
            return Err(ErrorCode::UnknownSession);
        };
        let mut session = match found {
            Found::Best => best.clone(),
            // Whoever serves it is there to be asked, and what it has committed the client may have.
            Found::Behind { frames, .. } if other_serves => best.without_the_last(frames),
            Found::Behind { copy, frames } => copies[copy % copies.len()].without_the_last(frames),
        };
        assert!(resume.epoch.0 > best.epoch, "epoch {} was used", resume.epoch);
        session.obey(resume);
        if resume.have_from.0 > session.audio.len() as u64 {
            return Err(ErrorCode::Gap);
        }
        session.epoch = resume.epoch.0;
        Ok(session)
    }

    /// The link's node decodes a little, or says that all is done.
    pub(super) fn work(&mut self, link: &mut Link) {
        let Some(session) = self.session(link) else {
            return;
        };
        let frames = SourceOffset(session.audio.len() as u64);
        if let Some(last) = session.commit_one() {
            link.to_client.push_back(ServerMessage::Final(last));
        } else if session.ended && session.finalizes.is_empty() && session.committed == session.audio.len() {
            let segments = session.next_segment() as u64;
            link.to_client.push_back(ServerMessage::Done { segments, frames });
        }
    }

    /// The link's node says what it has.
    pub(super) fn acknowledge(&mut self, link: &mut Link) {
        if let Some(session) = self.session(link) {
            let until = SourceOffset(session.audio.len() as u64);
            link.to_client.push_back(ServerMessage::Ack { until });
        }
    }
}
