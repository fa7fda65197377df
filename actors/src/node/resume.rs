//! Clients that come back: to a session that lives here, or to one that lived elsewhere.
//!
//! Owns: the search for a session's copies, one at a time for each session. Must never: choose among them (see
//! `starling_core::replica::choose`).

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorRef, RpcReplyPort};
use starling_core::session::Restored;
use starling_protocol::control::ReplicaReply;
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::token::TokenError;
use starling_protocol::{Epoch, SessionId};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::supervisor::{HAND_OVER, NodeMessage, SupervisorState, stopping};
use crate::replica::{
    KeeperMessage, NotTaken, RanOutElsewhere, TakenOver, TakeoverRequest, find_by_id, take_over, unanswered,
    unknown,
};
use crate::session::{
    AskedEpoch, AttachReply, Dialect, OpenRequest, Opener, RestoredSession, ResumeRequest, SessionMessage,
};
use crate::trace::{Arrival, log_span};

impl SupervisorState {
    pub(super) fn resume(
        &mut self,
        myself: &ActorRef<NodeMessage>,
        request: ResumeRequest,
        reply: AttachReply,
    ) {
        let token = match self.copies.sealer.open(&request.resume.token) {
            Ok(token) if token.session == request.session && token.tenant == request.tenant => token,
            refused => {
                let message = match refused {
                    Err(TokenError::Expired) => "resume.token has expired",
                    _ => "resume.token is not one that this session's ready or view carried",
                };
                let _ = reply.send(Err(ErrorBody::new(ErrorCode::BadToken, message)));
                return;
            }
        };
        if let Some(session) = self.sessions.get(&request.session) {
            let (epoch, last_final) = (AskedEpoch::Named(request.resume.epoch), request.resume.last_final);
            let have_from = request.resume.have_from;
            let tenant = request.tenant;
            let _ = session.cast(SessionMessage::Attach { tenant, epoch, last_final, have_from, reply });
            return;
        }
        if self.draining {
            let _ = reply.send(Err(stopping()));
            return;
        }
        if let Some(waiting) = self.takeovers.get_mut(&request.session) {
            // The client has given up the attempt before; it is the same client.
            if let Some((_, earlier)) = waiting.replace((request, reply)) {
                let message = "a later attempt of the same client goes on with the session";
                let _ = earlier.send(Err(ErrorBody::new(ErrorCode::Superseded, message)));
            }
            return;
        }
        self.takeovers.insert(request.session, None);
        let (supervisor, copies, keeper) = (myself.clone(), self.copies.clone(), self.keeper.clone());
        let since = self.clock.now();
        tokio::spawn(async move {
            let (resume, trace) = (request.resume.clone(), request.trace.clone());
            let takeover = TakeoverRequest { token, resume, trace, since, by_id: false };
            let found = take_over(&takeover, &copies, &keeper).await.map(Box::new);
            let _ = supervisor.cast(NodeMessage::TakenOver { resume: request, found, reply });
        });
    }

    /// A client may go on with a session by its id, and with none that is new.
    pub(super) fn go_on_by_id(
        &mut self,
        myself: &ActorRef<NodeMessage>,
        request: OpenRequest,
        reply: AttachReply,
    ) {
        let Some(reply) = self.attach(&request, reply) else { return };
        if self.draining || self.copies.peers.is_none() {
            let _ = reply.send(Err(unknown()));
            return;
        }
        self.look_for(myself, request, reply, |request, reply| NodeMessage::Nowhere(request.session, reply));
    }

    /// A client came back by its id alone: the session may live on any node. `missing` says what follows if it lives on none.
    pub(super) fn look_for(
        &mut self,
        myself: &ActorRef<NodeMessage>,
        request: OpenRequest,
        reply: AttachReply,
        missing: fn(OpenRequest, AttachReply) -> NodeMessage,
    ) {
        let session = request.session;
        if self.takeovers.contains_key(&session) {
            let body =
                ErrorBody::new(ErrorCode::Superseded, "another connection is coming back to this session");
            let _ = reply.send(Err(body));
            return;
        }
        self.takeovers.insert(session, None);
        let (supervisor, copies, keeper) = (myself.clone(), self.copies.clone(), self.keeper.clone());
        let since = self.clock.now();
        tokio::spawn(async move {
            let message = match find_by_id(session, since, &copies, &keeper).await {
                None => missing(request, reply),
                Some(takeover) => {
                    let found = take_over(&takeover, &copies, &keeper).await.map(Box::new);
                    let OpenRequest { tenant, trace, .. } = request;
                    let resume = ResumeRequest { session, tenant, resume: takeover.resume, trace };
                    NodeMessage::TakenOver { resume, found, reply }
                }
            };
            let _ = supervisor.cast(message);
        });
    }

    /// What this node has of a session: a copy, or the session itself.
    pub(super) fn held(&self, session: SessionId, reply: RpcReplyPort<ReplicaReply>) {
        let Some(owner) = self.sessions.get(&session).cloned() else {
            let _ = self.keeper.cast(KeeperMessage::Status(session, reply));
            return;
        };
        tokio::spawn(async move {
            let (ask, summary) = oneshot::channel();
            let _ = owner.cast(SessionMessage::Summarize(ask));
            let answer = tokio::time::timeout(HAND_OVER, summary).await;
            let _ = reply.send(match answer {
                Ok(Ok(summary)) => ReplicaReply::Held(summary),
                _ => ReplicaReply::Busy,
            });
        });
    }

    /// Whether this node knows better of a session whose copy has run out on another.
    pub(super) fn ran_out(&self, asked: RanOutElsewhere) {
        let session = &asked.session;
        if self.sessions.contains_key(session) || self.takeovers.contains_key(session) {
            let _ = asked.reply.send(ReplicaReply::Fenced { epoch: asked.copy.epoch });
            return;
        }
        let _ = self.keeper.cast(KeeperMessage::RanOut(asked));
    }

    pub(super) async fn taken_over(
        &mut self,
        myself: &ActorRef<NodeMessage>,
        resume: ResumeRequest,
        found: Result<Box<TakenOver>, NotTaken>,
        reply: AttachReply,
    ) {
        let session = resume.session;
        match found {
            Ok(taken) => {
                self.asked_again.settled(session);
                self.go_on(myself, resume, *taken, reply).await;
            }
            Err(not_taken) => {
                let body = match not_taken {
                    NotTaken::Unanswered(_) if self.asked_again.may(self.clock.now(), session) => {
                        unanswered()
                    }
                    NotTaken::Unanswered(body) | NotTaken::Refused(body) => body,
                };
                debug!(%session, reason = body.message, "a session can't go on here");
                let _ = reply.send(Err(body));
            }
        }
        if let Some(Some((request, reply))) = self.takeovers.remove(&session) {
            self.resume(myself, request, reply);
        }
    }

    async fn go_on(
        &mut self,
        myself: &ActorRef<NodeMessage>,
        resume: ResumeRequest,
        taken: TakenOver,
        reply: AttachReply,
    ) {
        if let Some(session) = self.sessions.get(&resume.session) {
            // It was found twice, which takes a filter that had to be worked out between.
            let (epoch, last_final) = (AskedEpoch::Named(resume.resume.epoch), resume.resume.last_final);
            let have_from = resume.resume.have_from;
            let tenant = resume.tenant;
            let _ = session.cast(SessionMessage::Attach { tenant, epoch, last_final, have_from, reply });
            return;
        }
        if taken.copy.facts().tenant != resume.tenant {
            let _ = reply.send(Err(unknown()));
            return;
        }
        let resolved = match self.models.resume(taken.copy.facts(), &self.limits) {
            Ok(resolved) => resolved,
            Err(body) => {
                let log = log_span(resume.session, taken.copy.facts().trace.as_ref());
                warn!(parent: &log, reason = body.message, "a session can't go on here");
                let _ = reply.send(Err(body));
                return;
            }
        };
        let rates = resolved.config.rates;
        let Some(resampler) = self.models.resampler(rates) else {
            let found = Ok(Box::new(taken));
            self.make_resampler(myself, rates, NodeMessage::TakenOver { resume, found, reply });
            return;
        };
        let TakenOver { copy, skip_to, holders, since, from, parting } = taken;
        let facts = copy.facts();
        let (recent, opened) = (copy.start().recent.clone(), facts.opened());
        let arrival = Arrival { root: facts.root, recent, since, from: Some(from), parting };
        let request = OpenRequest {
            session: resume.session,
            // Of the connection that opened it nothing is known any more but that there was one.
            epoch: Epoch(1),
            tenant: facts.tenant.clone(),
            dialect: Dialect::of_label(&facts.dialect).unwrap_or(Dialect::Native),
            model: Some(facts.model.clone()),
            sample_rate: facts.source_hz,
            options: facts.options.clone(),
            linger: Duration::from_millis(facts.linger_ms),
            by_id: false,
            trace: facts.trace.clone(),
        };
        let (view, class) = (copy.view(), Arc::from(facts.class.as_str()));
        let restored = RestoredSession {
            standing: Restored::from_copy(copy, rates, skip_to),
            last_epoch: Epoch(resume.resume.epoch.0.saturating_sub(1)),
            view,
            class,
            holders,
            opened,
            arrival,
        };
        let opener = Opener {
            epoch: resume.resume.epoch,
            last_final: resume.resume.last_final,
            have_from: resume.resume.have_from,
            reply,
        };
        self.spawn(myself, request, resolved, resampler, opener, Some(Box::new(restored))).await;
    }
}
