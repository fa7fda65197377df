//! Whose request it is, and what they may take.
//!
//! Owns: the tenants by their keys, and what each of them takes on this node. Must never: keep a key, or say in a log or an
//! error which one was shown.

mod key;
mod sessions;
mod token;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use starling_core::Timestamp;
use starling_core::tenant::{OverQuota, TenantLimits, TenantMachine};
use starling_protocol::SessionId;
use starling_protocol::native::{ErrorBody, ErrorCode};
use tokio::time::Instant;

pub use key::{KeyHash, new_key};
pub use sessions::TenantSessions;
pub use token::{TokenError, TokenVerifier};

/// One tenant as the settings have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantFacts {
    /// Its name.
    pub name: String,
    /// What its keys hash to.
    pub keys: Vec<KeyHash>,
    /// The models it may use; empty for all.
    pub models: Vec<String>,
    /// Whether it may look after the cluster.
    pub operator: bool,
    /// What it may take.
    pub limits: TenantLimits,
}

/// Whoever a request is from.
#[derive(Debug)]
pub struct Tenant {
    name: String,
    models: Vec<String>,
    operator: bool,
    origin: Instant,
    usage: Arc<Mutex<Usage>>,
}

/// What a tenant takes on this node.
#[derive(Debug)]
struct Usage {
    machine: TenantMachine,
    /// Connections of each session: one that comes back before the old connection is known to be gone is one session still.
    held: HashMap<SessionId, u32>,
    begun: u64,
    refused: u64,
    audio: Duration,
}

/// What a tenant takes on this node now, and has taken since its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantUse {
    name: String,
    /// Sessions that its clients are connected to.
    pub open: u32,
    /// Sessions that were begun.
    pub begun: u64,
    /// Sessions that were refused because of its limits.
    pub refused: u64,
    /// Audio that was heard.
    pub audio: Duration,
}

impl TenantUse {
    /// Its name as a label; no tenant can have the one that stands for everybody where nobody has a name.
    #[must_use]
    pub fn label(&self) -> &str {
        if self.name.is_empty() { "(anybody)" } else { &self.name }
    }
}

/// All of them.
#[derive(Debug)]
pub struct Tenants {
    origin: Instant,
    directory: RwLock<Directory>,
}

#[derive(Debug, Default)]
struct Directory {
    keys: Vec<(KeyHash, Arc<Tenant>)>,
    tenants: Vec<Arc<Tenant>>,
    /// By name, so that what is open counts on when the settings are read again.
    usage: HashMap<String, Arc<Mutex<Usage>>>,
    anybody: Option<Arc<Tenant>>,
    tokens: Option<Arc<TokenVerifier>>,
}

impl Directory {
    fn named(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.tenants.iter().find(|tenant| tenant.name == name)
    }
}

impl Tenants {
    /// The tenants of the settings. Without any, everybody is served as one that has no name and no limits.
    #[must_use]
    pub fn new(tenants: Vec<TenantFacts>) -> Arc<Self> {
        Self::with_tokens(tenants, None)
    }

    /// The same, with tokens that name one of them.
    #[must_use]
    pub fn with_tokens(tenants: Vec<TenantFacts>, tokens: Option<Arc<TokenVerifier>>) -> Arc<Self> {
        let this = Self { origin: Instant::now(), directory: RwLock::default() };
        this.replace(tenants, tokens);
        Arc::new(this)
    }

    /// Whether a key has to be shown.
    #[must_use]
    pub fn asks_for_keys(&self) -> bool {
        self.directory.read().unwrap_or_else(PoisonError::into_inner).anybody.is_none()
    }

    /// Whether whoever asks from there as this tenant may look after the cluster: by a key, or, where none is asked for, by being on
    /// this machine.
    #[must_use]
    pub fn may_operate(&self, tenant: &Tenant, peer: IpAddr) -> bool {
        tenant.is_operator() && (self.asks_for_keys() || peer.to_canonical().is_loopback())
    }

    /// From now on there are these. Who is connected stays, and counts for what its name was.
    pub fn replace(&self, tenants: Vec<TenantFacts>, tokens: Option<Arc<TokenVerifier>>) {
        let mut directory = self.directory.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Directory { tokens, ..Directory::default() };
        if tenants.is_empty() {
            next.anybody =
                Some(Arc::new(self.tenant(TenantFacts::anybody(), &mut next.usage, &directory.usage)));
        }
        for mut facts in tenants {
            let keys = std::mem::take(&mut facts.keys);
            let tenant = Arc::new(self.tenant(facts, &mut next.usage, &directory.usage));
            next.keys.extend(keys.into_iter().map(|key| (key, Arc::clone(&tenant))));
            next.tenants.push(tenant);
        }
        // Whoever is taken out and put in again has taken what it took.
        for (name, counts) in &directory.usage {
            next.usage.entry(name.clone()).or_insert_with(|| Arc::clone(counts));
        }
        *directory = next;
    }

    fn tenant(
        &self,
        facts: TenantFacts,
        usage: &mut HashMap<String, Arc<Mutex<Usage>>>,
        before: &HashMap<String, Arc<Mutex<Usage>>>,
    ) -> Tenant {
        let TenantFacts { name, models, operator, limits, .. } = facts;
        let new = || Arc::new(Mutex::new(Usage::new(limits)));
        let counts = before.get(&name).cloned().unwrap_or_else(new);
        counts.lock().unwrap_or_else(PoisonError::into_inner).machine.set_limits(limits);
        usage.insert(name.clone(), Arc::clone(&counts));
        Tenant { name, models, operator, origin: self.origin, usage: counts }
    }

    /// What each of them takes, also those that are not listed any more.
    #[must_use]
    pub fn usage(&self) -> Vec<TenantUse> {
        let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
        let tenants = directory.usage.iter().map(|(name, usage)| {
            let usage = usage.lock().unwrap_or_else(PoisonError::into_inner);
            let (open, begun, refused) = (usage.machine.open(), usage.begun, usage.refused);
            TenantUse { name: name.clone(), open, begun, refused, audio: usage.audio }
        });
        tenants.collect()
    }

    /// Whose key it is. Takes as long for every key that is none.
    #[must_use]
    pub fn identify(&self, key: Option<&str>) -> Identified {
        let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(anybody) = &directory.anybody {
            return Identified::Tenant(Arc::clone(anybody));
        }
        let Some(key) = key else { return Identified::NoKey };
        if let (Some(tokens), true) = (&directory.tokens, token::is_token(key)) {
            return match tokens.tenant_of(key).map(|name| directory.named(&name)) {
                Ok(Some(tenant)) => Identified::Tenant(Arc::clone(tenant)),
                Ok(None) => Identified::UnknownTenant,
                Err(error) => Identified::BadToken(error),
            };
        }
        let shown = KeyHash::of(key);
        let mut found = None;
        // None is left out once one was found, so that the time says nothing of its place.
        for (hash, tenant) in &directory.keys {
            if hash.equals(&shown) {
                found = Some(tenant);
            }
        }
        found.map_or(Identified::UnknownKey, |tenant| Identified::Tenant(Arc::clone(tenant)))
    }

    /// The tenant of this name, for those who come in by a listener that is one tenant's: their protocol carries no key. Where
    /// nobody has a name, whatever it is.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Tenant>> {
        let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
        directory.anybody.as_ref().or_else(|| directory.named(name)).cloned()
    }
}

impl Usage {
    fn new(limits: TenantLimits) -> Self {
        Self {
            machine: TenantMachine::new(limits),
            held: HashMap::new(),
            begun: 0,
            refused: 0,
            audio: Duration::ZERO,
        }
    }
}

/// What a key says.
#[derive(Debug)]
pub enum Identified {
    /// It is this tenant's, or nobody needs one.
    Tenant(Arc<Tenant>),
    /// None was shown.
    NoKey,
    /// It is nobody's.
    UnknownKey,
    /// It is a token, and not to be trusted.
    BadToken(TokenError),
    /// It is a good token, of a tenant that there is not.
    UnknownTenant,
}

impl TenantFacts {
    /// Whoever there is where nobody has a name.
    fn anybody() -> Self {
        Self {
            name: String::new(),
            keys: Vec::new(),
            models: Vec::new(),
            operator: true,
            limits: TenantLimits::default(),
        }
    }
}

impl Tenant {
    /// Its name; empty where nobody has one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it may look after the cluster.
    #[must_use]
    pub const fn is_operator(&self) -> bool {
        self.operator
    }

    /// Whether it may use a model.
    #[must_use]
    pub fn may_use(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|allowed| allowed == model)
    }

    /// Whether it may use a model.
    ///
    /// # Errors
    /// It may not; the error names those that it may.
    pub fn check_model(&self, model: &str) -> Result<(), ErrorBody> {
        if self.may_use(model) {
            return Ok(());
        }
        let allowed = format!("one that this key may use: {}", self.models.join(", "));
        let error = ErrorBody::field("model", model, allowed);
        Err(ErrorBody { code: ErrorCode::Forbidden, ..error })
    }

    /// Whether it could begin a session now.
    ///
    /// # Errors
    /// What a client is told.
    pub fn check(&self) -> Result<(), ErrorBody> {
        let now = self.now();
        let mut usage = self.usage();
        let checked = usage.machine.check(now);
        usage.refused += u64::from(checked.is_err());
        checked.map_err(over_quota)
    }

    /// A connection to a session begins, which counts unless the session is connected already. One that goes on is never refused.
    fn enter(&self, session: SessionId, goes_on: bool) -> Result<(), ErrorBody> {
        let now = self.now();
        let mut usage = self.usage();
        if !usage.held.contains_key(&session) {
            if goes_on {
                usage.machine.readmit();
            } else {
                let admitted = usage.machine.admit(now);
                usage.refused += u64::from(admitted.is_err());
                admitted.map_err(over_quota)?;
                usage.begun += 1;
            }
        }
        *usage.held.entry(session).or_default() += 1;
        Ok(())
    }

    fn leave(&self, session: SessionId) {
        let mut usage = self.usage();
        let Some(connections) = usage.held.get_mut(&session) else { return };
        *connections -= 1;
        if *connections == 0 {
            usage.held.remove(&session);
            usage.machine.release();
        }
    }

    fn hear(&self, audio: Duration) {
        let now = self.now();
        let mut usage = self.usage();
        usage.machine.hear(now, audio);
        usage.audio = usage.audio.saturating_add(audio);
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.origin.elapsed())
    }
}

/// In whole units, rounded up, so that whoever waits that long is not too early.
fn over_quota(over: OverQuota) -> ErrorBody {
    let (message, retry_after) = match over {
        OverQuota::Sessions { limit } => (
            format!("{limit} sessions are open, which is as many as this key may have at once"),
            Duration::from_secs(1),
        ),
        OverQuota::Opens { limit, retry_after } => {
            (format!("this key may begin {limit} sessions a second"), retry_after)
        }
        OverQuota::Audio { limit, retry_after } => {
            let hours = limit.as_secs_f64() / 3_600.0;
            (format!("this key may send {hours} h of audio a day, which it has"), retry_after)
        }
    };
    let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    ErrorBody { retry_after_ms: Some(retry_after_ms), ..ErrorBody::new(ErrorCode::OverQuota, message) }
}

#[cfg(test)]
mod tests;
