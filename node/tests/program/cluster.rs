//! Nodes with a real model, of which any may be killed.

use rustix::process::Signal;
use serde_json::Value;

use super::traces::Collector;
use super::*;

/// A caller who has been heard for so long is in the middle of a sentence, in every recording.
const HEARD_MS: u64 = 1_000;

/// Nodes that each take callers, decode, and keep copies.
pub struct Cluster {
    pub nodes: Vec<Option<Program>>,
    pub seed: String,
}

/// A node in a zone of its own. Started again it has to have the address that callers know it by.
pub async fn node(index: usize, seed: &str, http: &str) -> Program {
    node_with(index, seed, http, &More::default()).await
}

/// What a cluster's nodes have beside what all have.
#[derive(Default)]
pub struct More<'a> {
    /// Settings.
    pub settings: &'a str,
    /// Who is told of traces.
    pub collector: Option<&'a Collector>,
}

async fn node_with(index: usize, seed: &str, http: &str, more: &More<'_>) -> Program {
    let More { settings: more, collector } = more;
    let variables = collector.map(|collector| collector.variables("parentbased_always_on"));
    let settings = tempfile::NamedTempFile::new().expect("a file");
    let text = format!(
        "[cluster]\nzone = \"zone-{index}\"\n{more}[[model]]\nname = \"moonshine-tiny-en\"\nhosts = 1\n"
    );
    std::fs::write(settings.path(), text).expect("written");
    let path = settings.path().display().to_string();
    let name = format!("node-{index}");
    let listen = if index == 0 { seed } else { "127.0.0.1:0" };
    let cluster = ["--cluster-listen", listen, "--seeds", seed];
    let arguments = [&["--config", &path, "--node-id", &name][..], &cluster].concat();
    Program::serve_with(http, &arguments, &variables.unwrap_or_default(), 1).await
}

impl Cluster {
    /// Three nodes.
    pub async fn start() -> Self {
        Self::of(3).await
    }

    pub async fn of(count: usize) -> Self {
        Self::with(count, &More::default()).await
    }

    pub async fn with(count: usize, more: &More<'_>) -> Self {
        let mut cluster = Self { nodes: Vec::new(), seed: free_address().to_string() };
        for index in 0..count {
            // Where it is found when it has been started again.
            let http = free_address().to_string();
            cluster.nodes.push(Some(node_with(index, &cluster.seed, &http, more).await));
        }
        cluster.know_each_other().await;
        cluster
    }

    pub fn alive(&self) -> impl Iterator<Item = &Program> {
        self.nodes.iter().flatten()
    }

    /// Waits until each node knows that all others decode and have room for copies.
    pub async fn know_each_other(&self) {
        let count = self.alive().count();
        for program in self.alive() {
            poll("nodes that know each other", async || {
                let status = status(program).await?;
                let nodes = status["nodes"].as_array()?.iter();
                let ready = |node: &&Value| {
                    node["state"] == "alive" && node["models"][0]["slots"]["idle"].as_u64() > Some(0)
                };
                (nodes.filter(ready).count() == count).then_some(())
            })
            .await;
        }
    }

    /// Waits until no session is left, so that the next one is the one that is asked for.
    pub async fn quiet(&self) {
        let observer = self.alive().next().expect("a node");
        poll("the last session's end", async || {
            status(observer).await?["sessions"].as_array()?.is_empty().then_some(())
        })
        .await;
    }

    /// The node that a caller's session lives on, once there is one such session that is durable and has been heard for a while.
    pub async fn owner(&self) -> usize {
        self.place("owner", None).await
    }

    /// The same, once it is another than this.
    pub async fn owner_after(&self, left: usize) -> usize {
        self.place("owner", Some(left)).await
    }

    /// The node that decodes that session.
    pub async fn decoder(&self) -> usize {
        self.place("decoder", None).await
    }

    async fn place(&self, of: &str, left: Option<usize>) -> usize {
        let mut indexed = self.nodes.iter().enumerate();
        let observer = indexed.find(|(index, node)| node.is_some() && Some(*index) != left);
        let observer = observer.and_then(|(_, node)| node.as_ref()).expect("a node");
        poll("a durable session", async || {
            let status = status(observer).await?;
            let mut sessions = status["sessions"].as_array()?.iter();
            let session = sessions.find(|session| {
                // Who is left alone has nobody to keep a copy.
                let kept = session["durable"] == true || self.alive().count() == 1;
                kept && session["connected"] == true && session["audio_ms"].as_u64() >= Some(HEARD_MS)
            })?;
            let index: usize = session[of].as_str()?.strip_prefix("node-")?.parse().ok()?;
            // A node that was killed may be named for a moment.
            (self.nodes[index].is_some() && Some(index) != left).then_some(index)
        })
        .await
    }

    /// Has a node drained at another's word, once there is a link between the two.
    pub async fn drain(&self, name: &str, by: &Program) {
        poll("a way to it", async || {
            let drained = run(&["drain", name, "--server", &format!("http://{}", by.http)]).await;
            drained.status.success().then_some(())
        })
        .await;
    }

    pub fn kill(&mut self, index: usize) {
        let program = self.nodes[index].take().expect("is there");
        program.signal(Signal::KILL);
    }

    /// Has all that live end by themselves: what they have not told yet, they tell then.
    pub async fn end(self) {
        for mut program in self.nodes.into_iter().flatten() {
            program.signal(Signal::TERM);
            program.end().await;
        }
    }

    pub fn urls(&self) -> Vec<String> {
        self.alive().map(Program::url).collect()
    }
}

pub async fn status(program: &Program) -> Option<Value> {
    let server = format!("http://{}", program.http);
    let output = run(&["status", "--json", "--server", &server]).await;
    serde_json::from_slice(&output.stdout).ok()
}

/// So many sessions that have ended, as a node lists them.
pub async fn ended(program: &Program, count: usize) -> Vec<Value> {
    poll("the ended sessions", async || {
        let listed = json(program.http, "/v1/sessions").await?;
        let over = listed["sessions"].as_array()?.iter().filter(|one| !one["ended_ms"].is_null());
        let over: Vec<Value> = over.cloned().collect();
        (over.len() == count).then_some(over)
    })
    .await
}

/// From a listed session's first moment, at whichever node, to its last.
pub fn lasted(ended: &Value) -> Option<Duration> {
    let (began, ended) = ended["began_ms"].as_u64().zip(ended["ended_ms"].as_u64())?;
    ended.checked_sub(began).map(Duration::from_millis)
}
