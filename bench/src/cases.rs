//! The cases: each starts its own node, measures, and adds its figures to the report.

use std::path::PathBuf;

use anyhow::Result;
use serde::de::DeserializeOwned;

use crate::audio::Audio;
use crate::bare::clips::{Arguments, Work};
use crate::bare::{self, Question};
use crate::cluster::{Cluster, Common, Part};
use crate::live::{Outcome, Pace};
use crate::node::{Model, Node};
use crate::speech::Speech;

pub(crate) mod accuracy;
pub(crate) mod english;
pub(crate) mod failover;
pub(crate) mod gateway;
pub(crate) mod korean;
pub(crate) mod latency;
pub(crate) mod memory;
pub(crate) mod overhead;
pub(crate) mod scaling;

/// What every case needs.
pub(crate) struct Bench {
    pub(crate) audio: Audio,
    pub(crate) home: PathBuf,
    pub(crate) programs: PathBuf,
    pub(crate) own: PathBuf,
    /// Recordings with transcripts.
    pub(crate) speech: Speech,
    pub(crate) quick: bool,
}

impl Bench {
    pub(crate) async fn node(&self, models: &[Model]) -> Result<Node> {
        Node::start(&self.programs, &self.home, models).await
    }

    pub(crate) async fn cluster(&self, parts: &[Part], common: Common) -> Result<Cluster> {
        Cluster::start(self.programs.clone(), self.home.clone(), parts, common).await
    }

    pub(crate) async fn bare(
        &self,
        work: Work,
        pace: Pace,
        clients: usize,
        rounds: usize,
    ) -> Result<Outcome> {
        let arguments = Arguments { home: self.home.clone(), work, pace, clients, rounds };
        self.ask(Question::Clips(arguments)).await
    }

    /// What the engine alone answers.
    pub(crate) async fn ask<A: DeserializeOwned + Send + 'static>(&self, question: Question) -> Result<A> {
        let own = self.own.clone();
        tokio::task::spawn_blocking(move || bare::ask(&own, &question)).await?
    }

    /// One when it is only to be looked at.
    pub(crate) const fn repeats(&self, full: usize) -> usize {
        if self.quick { 1 } else { full }
    }
}
