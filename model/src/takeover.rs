//! Clients that come back, as a node's supervisor does it: who has copies is asked to obey, the best copy is read.

use starling_core::replica::{Answer, Choice, Wanted, choose, suffices};
use starling_core::session::SessionEvent;
use starling_protocol::native::{ErrorCode, Resume};
use starling_protocol::{Epoch, SessionId, SourceOffset};

use crate::model::Mistake;
use crate::owner::Opener;
use crate::parts::Copy;
use crate::state::{Ask, AskId, ConnId, Last, Node, Said, Set, State, Takeover, ToServer};

impl State {
    /// The node reads what the client said.
    pub(crate) fn server_reads(&mut self, id: ConnId) {
        let Some(conn) = self.net().conns.get_mut(&id) else { return };
        let (node, said) = (conn.node, conn.to_server.pop_front());
        match said {
            Some(ToServer::Hello(hello)) => {
                let Some(session) = hello.session else { return };
                match hello.resume {
                    None => {
                        let epoch = hello.epoch.unwrap_or(Epoch(1));
                        let (again, last_final, have_from) = (true, None, SourceOffset(0));
                        self.open(node, session, Opener { conn: id, epoch, again, last_final, have_from });
                    }
                    Some(resume) => self.resume(node, session, resume, id),
                }
            }
            Some(said) => self.input(node, id, &said),
            None => {}
        }
        self.forget_conn(id);
    }

    fn resume(&mut self, node: Node, session: SessionId, resume: Resume, conn: ConnId) {
        let peer = self.node(node);
        if peer.owners.contains_key(&session) {
            return self.attach(node, session, opener(&resume, conn));
        }
        if let Some(takeover) = peer.takeovers.get_mut(&session) {
            // The client has given up the attempt before; it is the same client.
            if let Some((_, earlier)) = takeover.waiting.replace((resume, conn)) {
                self.tell_last(earlier, Last::Failed(ErrorCode::Superseded));
            }
            return;
        }
        let Set { view, owner, keepers, .. } = Set::of_token(&resume.token);
        let mut nodes = vec![node];
        nodes.extend(std::iter::once(owner).chain(keepers).filter(|&named| named != node));
        nodes.dedup();
        let epoch = resume.epoch;
        let mut answers = vec![Answer::Silent; nodes.len()];
        answers[0] = self.promote(node, session, epoch);
        for &to in &nodes[1..] {
            let ask = Ask { asker: node, to, session, epoch, awaited: true, said: Said::Promote };
            self.ask(ask);
        }
        let (chosen, waiting) = (None, None);
        let takeover = Takeover { resume, conn, view, nodes, answers, chosen, waiting };
        self.node(node).takeovers.insert(session, takeover);
        self.decide(node, session);
    }

    fn ask(&mut self, mut ask: Ask) {
        if !self.nodes[ask.to].up {
            ask.said = unanswered(&ask.said);
        }
        let id = self.net().next_id();
        self.net().asks.insert(id, ask);
    }

    /// A question, or its answer, arrives.
    pub(crate) fn ask_arrives(&mut self, id: AskId) {
        let Some(ask) = self.net().asks.remove(&id) else { return };
        let Ask { asker, to, session, epoch, awaited, .. } = ask;
        let answer = match ask.said {
            Said::Promote => Said::Answer(self.promoted(to, session, epoch)),
            Said::Fetch => Said::Copy(self.copy_for(to, session, epoch)),
            Said::Answer(answer) => return self.answered(asker, to, session, answer),
            Said::Copy(copy) => return self.fetched(asker, session, copy),
        };
        if awaited {
            let said = answer;
            self.net().asks.insert(id, Ask { asker, to, session, epoch, awaited, said });
        }
    }

    /// A question or its answer is lost, or takes too long: there is none.
    pub(crate) fn ask_fails(&mut self, id: AskId) {
        if let Some(ask) = self.net().asks.get_mut(&id) {
            ask.said = unanswered(&ask.said);
        }
    }

    /// A session that lives on the node is handed over first.
    fn promoted(&mut self, node: Node, session: SessionId, epoch: starling_protocol::Epoch) -> Answer {
        if let Some(owner) = self.owner(node, session) {
            let last = owner.session.last_epoch();
            if epoch <= last {
                return Answer::Fenced { epoch: last };
            }
            let copy = owner.as_copy(session);
            self.drive(node, session, SessionEvent::Superseded);
            if let Some(copy) = copy {
                self.offer(node, session, Copy::new(copy));
            }
        }
        self.promote(node, session, epoch)
    }

    fn answered(&mut self, node: Node, from: Node, session: SessionId, answer: Answer) {
        let Some(takeover) = self.node(node).takeovers.get_mut(&session) else { return };
        if let Some(index) = takeover.nodes.iter().position(|&asked| asked == from) {
            takeover.answers[index] = answer;
        }
        self.decide(node, session);
    }

    /// Who does not answer is waited for only while the others' answers leave something open.
    fn decide(&mut self, node: Node, session: SessionId) {
        let Some(takeover) = self.nodes[node].takeovers.get(&session).cloned() else { return };
        if takeover.chosen.is_some() {
            return;
        }
        let Resume { epoch, last_final, final_to, have_from, .. } = takeover.resume;
        let wanted = Wanted { last_final, final_to, have_from, by_id: false };
        let enough = takeover.answers.iter().any(|answer| suffices(answer, takeover.view, &wanted));
        let ours = |ask: &Ask| ask.awaited && (ask.asker, ask.session) == (node, session);
        if !enough && self.net.asks.values().any(ours) {
            return;
        }
        // What the others are asked they are asked all the same.
        for ask in self.net().asks.values_mut().filter(|ask| ours(ask)) {
            ask.awaited = false;
        }
        self.net().asks.retain(|_, ask| ask.awaited || matches!(ask.said, Said::Promote));
        let answers = &takeover.answers;
        let choice = match self.mistake {
            Some(Mistake::LongestCopyWins) => longest(answers, &wanted),
            _ => choose(answers, &wanted),
        };
        match choice {
            Choice::GoOn { index, skip_to } => {
                let from = takeover.nodes[index];
                if let Some(takeover) = self.node(node).takeovers.get_mut(&session) {
                    takeover.chosen = Some((from, skip_to));
                }
                if from == node {
                    let copy = self.copy_for(node, session, epoch);
                    self.fetched(node, session, copy);
                } else {
                    let said = Said::Fetch;
                    self.ask(Ask { asker: node, to: from, session, epoch, awaited: true, said });
                }
            }
            Choice::Superseded { .. } => self.taken_over(node, session, Err(ErrorCode::Superseded)),
            // How often it may ask again is bounded by time, which there is none of here.
            Choice::Gap { unanswered: true } | Choice::Unknown { unanswered: true } => {
                self.taken_over(node, session, Err(ErrorCode::Busy));
            }
            Choice::Gap { unanswered: false } => self.taken_over(node, session, Err(ErrorCode::Gap)),
            Choice::Unknown { unanswered: false } => {
                self.taken_over(node, session, Err(ErrorCode::UnknownSession));
            }
        }
    }

    fn fetched(&mut self, node: Node, session: SessionId, copy: Option<Copy>) {
        let found = copy.ok_or(ErrorCode::Internal);
        self.taken_over(node, session, found);
    }

    fn taken_over(&mut self, node: Node, session: SessionId, found: Result<Copy, ErrorCode>) {
        let Some(takeover) = self.node(node).takeovers.remove(&session) else { return };
        let Takeover { resume, conn, nodes, answers, chosen, waiting, .. } = takeover;
        match (found, chosen) {
            (Ok(copy), Some((_, skip_to))) => {
                let opener = opener(&resume, conn);
                if self.nodes[node].owners.contains_key(&session) {
                    self.attach(node, session, opener);
                } else {
                    let held = |(_, answer): &(&Node, &Answer)| !matches!(answer, Answer::NotHeld);
                    let others = nodes[1..].iter().zip(&answers[1..]);
                    let holders = others.filter(held).map(|(&node, _)| node).collect();
                    self.go_on(node, session, opener, copy.get().clone(), skip_to, holders);
                }
            }
            (Err(code), _) => self.tell_last(conn, Last::Failed(code)),
            (Ok(_), None) => {}
        }
        if let Some((resume, conn)) = waiting {
            self.resume(node, session, resume, conn);
        }
    }
}

fn opener(resume: &Resume, conn: ConnId) -> Opener {
    let Resume { epoch, last_final, have_from, .. } = *resume;
    Opener { conn, epoch, again: false, last_final, have_from }
}

const fn unanswered(said: &Said) -> Said {
    match said {
        Said::Promote | Said::Answer(_) => Said::Answer(Answer::Silent),
        Said::Fetch | Said::Copy(_) => Said::Copy(None),
    }
}

/// A mistake: copies are compared by length, whoever is obeyed.
fn longest(answers: &[Answer], wanted: &Wanted) -> Choice {
    let length = |answer: &Answer| match answer {
        Answer::Held(held) => Some((held.audio_end, held.next_segment)),
        _ => None,
    };
    let best = answers.iter().enumerate().filter(|(_, answer)| length(answer).is_some());
    let Some((index, answer)) = best.max_by_key(|(_, answer)| length(answer)) else {
        return choose(answers, wanted);
    };
    match choose(&[*answer], wanted) {
        Choice::GoOn { skip_to, .. } => Choice::GoOn { index, skip_to },
        other => other,
    }
}
