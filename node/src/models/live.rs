//! The models of a running node, as its operator changes them.
//!
//! Owns: the way from the settings, read again, or from one named model to what the node serves. Must never: change anything
//! when a part of what was asked is wrong, or change what only a restart can.

use std::sync::Arc;

use anyhow::anyhow;
use starling_actors::{ModelArguments, ModelChange, NodeHandle, SPANS, ServeError};
use starling_core::lineup::Change;
use starling_engine::catalogue::Home;
use starling_protocol::control::{ModelOffer, NodeReply};
use tokio::sync::Mutex;
use tracing::field::Empty;

use super::restart::needs_restart;
use super::{resolve, resolve_models};
use crate::config::{Loaded, ModelSettings, Role, Settings, check, keys};
use crate::exit::{Exit, Failure};
use crate::room::MachineRoom;
use crate::telemetry::Log;
use crate::tenants::{TenantFacts, Tenants, TokenVerifier};

/// Reads the settings anew, from where they were read at the start.
pub type ReadSettings = Box<dyn Fn() -> Result<Loaded, Failure> + Send + Sync>;

/// What can be changed of a node's models while it runs.
pub struct LiveModels {
    node: NodeHandle,
    home: Home,
    room: MachineRoom,
    read: ReadSettings,
    /// As the node was started.
    started: Settings,
    tenants: Arc<Tenants>,
    log: Log,
    /// The models as they were last named. Held while they change: one change at a time.
    named: Mutex<Vec<ModelSettings>>,
}

impl LiveModels {
    /// Those of a node that serves what `started` says.
    #[must_use]
    pub fn new(
        node: NodeHandle,
        (home, room): (Home, MachineRoom),
        started: Settings,
        tenants: Arc<Tenants>,
        read: ReadSettings,
        log: Log,
    ) -> Arc<Self> {
        let named = Mutex::new(started.models.clone());
        Arc::new(Self { node, home, room, read, started, tenants, log, named })
    }

    /// Reads the settings again and serves the models they name and no others, to the tenants they name and no others, and logs
    /// what they say. Tells in the log what became of the models, and names the other settings that were changed.
    pub async fn reload(&self) {
        let span = tracing::info_span!(
            target: SPANS,
            "reload",
            models = Empty,
            models_changed = Empty,
            "error.type" = Empty,
            otel.status_description = Empty,
        );
        match self.reread().await {
            Ok(changes) => {
                let changed = changes.iter().filter(|change| change.change != Change::Unchanged).count();
                let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
                span.record("models", number(changes.len())).record("models_changed", number(changed));
                changes.iter().for_each(log);
            }
            Err(failure) => {
                span.record("error.type", "not_taken").record("otel.status_description", "not_taken");
                tracing::error!("the settings are not taken, all is served as before: {failure}");
            }
        }
    }

    async fn reread(&self) -> Result<Vec<ModelChange>, Failure> {
        let mut named = self.named.lock().await;
        let Loaded { settings, tenants, tokens, .. } = (self.read)()?;
        let kept = needs_restart(&self.started, &settings);
        if !kept.is_empty() {
            tracing::warn!("changed, and in force only after a restart: {}", kept.join(", "));
        }
        let models = resolve(&self.home, &settings).await?;
        let changes =
            self.node.serve_models(as_decoded(&self.started, &self.room, models)).await.map_err(refused)?;
        *named = settings.models;
        self.admit(tenants, tokens);
        let level = self.log.set_level(&settings.log.level);
        level.map_err(|error| Failure::new(Exit::Software, error))?;
        Ok(changes)
    }

    /// From now on these tenants are served. A node that asked for keys never stops asking under way: who took them all out by
    /// mistake would let everybody in.
    fn admit(&self, tenants: Vec<TenantFacts>, tokens: Option<Arc<TokenVerifier>>) {
        if tenants.is_empty() && self.tenants.asks_for_keys() {
            tracing::error!("no tenant is left in the settings; those that there were are served on");
        } else {
            self.tenants.replace(tenants, tokens);
        }
    }

    /// Serves one model beside the others, or in place of the one of its name. What the offer leaves open is as the settings
    /// have it.
    ///
    /// # Errors
    /// The model is unknown, missing or damaged, a number is out of range, or the node is stopping. Nothing has changed.
    pub async fn add(&self, offer: &ModelOffer) -> Result<ModelChange, Failure> {
        let mut named = self.named.lock().await;
        let known = named.iter().find(|model| model.name == offer.name).cloned();
        let model = offered(known.unwrap_or_else(|| ModelSettings::named(&offer.name)), offer)?;
        self.serve_too(&mut named, model).await
    }

    /// Serves a model that nobody listed, with hosts for as long as somebody uses it, unless it is served by now.
    ///
    /// # Errors
    /// The model is unknown, missing or damaged, or the node is stopping.
    pub async fn add_on_demand(&self, name: &str) -> Result<(), Failure> {
        let mut named = self.named.lock().await;
        let served = self.node.served().borrow().iter().any(|model| model.name == name);
        if !served {
            self.serve_too(&mut named, ModelSettings::on_demand(name)).await?;
        }
        Ok(())
    }

    async fn serve_too(
        &self,
        named: &mut Vec<ModelSettings>,
        model: ModelSettings,
    ) -> Result<ModelChange, Failure> {
        let models = resolve_models(&self.home, vec![model.clone()]).await?;
        let resolved = as_decoded(&self.started, &self.room, models).into_iter().next();
        let resolved =
            resolved.ok_or_else(|| Failure::new(Exit::Software, anyhow!("no model came of one")))?;
        let change = self.node.add_model(resolved).await.map_err(refused)?;
        log(&change);
        if change.change != Change::Refused {
            named.retain(|other| other.name != model.name);
            named.push(model);
        }
        Ok(change)
    }

    /// Kills a decoder host of a model, or of any, if the settings allow that; in the words of the control plane.
    pub async fn kill_decoder(&self, model: Option<&str>) -> NodeReply {
        if !self.started.chaos.enabled {
            return NodeReply::KillRefused { reason: "chaos.enabled is false in its settings".to_owned() };
        }
        match (self.node.kill_decoder(model).await, model) {
            (Some(killed), _) => NodeReply::DecoderKilled(killed),
            (None, Some(model)) => NodeReply::KillRefused { reason: format!("it has no decoder of {model}") },
            (None, None) => NodeReply::KillRefused { reason: "it has no decoder".to_owned() },
        }
    }

    /// As [`add`](Self::add), in the words of the control plane.
    pub async fn answer(&self, offer: &ModelOffer) -> NodeReply {
        match self.add(offer).await {
            Ok(ModelChange { change: Change::Refused, .. }) => {
                let reason = "it was replaced too often while sessions go on with what it was; try again when some are over";
                NodeReply::ModelRefused { reason: reason.to_owned() }
            }
            Ok(change) => {
                NodeReply::ModelTaken { change: change.change.label().to_owned(), digest: change.digest }
            }
            Err(failure) => NodeReply::ModelRefused { reason: failure.to_string() },
        }
    }
}

/// The models as this node has them: without hosts where it does not decode, and within its memory.
pub fn as_decoded(
    started: &Settings,
    room: &MachineRoom,
    mut models: Vec<ModelArguments>,
) -> Vec<ModelArguments> {
    let in_cluster = started.cluster.listen.is_some();
    let decodes = !in_cluster || started.cluster.roles.contains(&Role::Decoder);
    for model in &mut models {
        model.scaling.memory = room.memory();
        if !decodes {
            model.hosts = 0;
            model.scaling.enabled = false;
        }
    }
    models
}

/// The settings of a model with what the offer says of it, if they are in range.
fn offered(settings: ModelSettings, offer: &ModelOffer) -> Result<ModelSettings, Failure> {
    let model = ModelSettings {
        hosts: offer.hosts.unwrap_or(settings.hosts),
        slots: offer.slots.unwrap_or(settings.slots),
        threads: offer.threads.unwrap_or(settings.threads),
        // Fewer slots than are warmed is no mistake of whoever asks for few.
        prewarm: offer.prewarm.unwrap_or_else(|| settings.prewarm.min(offer.slots.unwrap_or(settings.slots))),
        ..settings
    };
    let alone = Settings { models: vec![model.clone()], ..Settings::default() };
    let Some(key) = check::first_out_of_range(&alone) else { return Ok(model) };
    let field = key.rsplit('.').next().unwrap_or_default().to_owned();
    let value = match field.as_str() {
        "hosts" => model.hosts.to_string(),
        "slots" => model.slots.to_string(),
        "threads" => model.threads.to_string(),
        "prewarm" => model.prewarm.to_string(),
        _ => format!("{:?}", model.name),
    };
    let allowed = keys::allowed(&key).unwrap_or("in range");
    Err(Failure::new(Exit::Usage, anyhow!("{field} is {value}; it must be {allowed}")))
}

fn refused(error: ServeError) -> Failure {
    Failure::new(Exit::Unavailable, error)
}

fn log(change: &ModelChange) {
    let ModelChange { name, digest, change, .. } = change;
    match change {
        Change::Refused => tracing::warn!(
            model = name,
            "not replaced, it was too often while sessions go on with what it was; as before until the settings are read again"
        ),
        Change::Unchanged => tracing::info!(model = name, digest, "as before"),
        change => tracing::info!(model = name, digest, change = change.label(), "models are changed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(slots: Option<u16>, prewarm: Option<u16>) -> ModelOffer {
        ModelOffer { name: "m".into(), hosts: None, slots, threads: None, prewarm }
    }

    #[test]
    fn what_an_offer_leaves_open_is_as_it_was() {
        let known = ModelSettings { hosts: 3, nice: 7, ..ModelSettings::named("m") };
        let model = offered(known.clone(), &offer(Some(9), None)).expect("is in range");
        assert_eq!(model, ModelSettings { slots: 9, ..known });
    }

    #[test]
    fn fewer_slots_are_warmed_less() {
        let model = offered(ModelSettings::named("m"), &offer(Some(1), None)).expect("is in range");
        assert_eq!((model.slots, model.prewarm), (1, 1));
    }

    #[test]
    fn a_number_out_of_range_is_named_with_what_would_be_right() {
        let told = |offer| offered(ModelSettings::named("m"), &offer).expect_err("is refused").to_string();
        assert_eq!(told(offer(Some(0), Some(0))), "slots is 0; it must be a whole number from 1 to 256");
        let prewarm = "prewarm is 3; it must be a whole number from 0 to the model's slots";
        assert_eq!(told(offer(Some(2), Some(3))), prewarm);
    }
}
