//! A node that is nothing but its control plane, as a process that can be stopped, killed and cut off.
//!
//! Called as `control-peer NAME GENERATION ADDRESS SECRET`. Prints `listening ADDRESS`, and then what becomes of its peers.
//! Reads lines `NAME#GENERATION=ADDRESS ..`, each naming all other nodes, and ends with its standard input.

use std::error::Error;
use std::io::BufRead;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use starling_actors::Clock;
use starling_actors::control::{ALPN, ControlArguments, ControlHandle, ControlServices, Member, PeerChange};
use starling_actors::trust::{ClusterSecret, Trust};
use starling_protocol::control::{
    NodeReply, NodeRequest, PoolReply, PoolRequest, ReplicaReply, ReplicaRequest,
};
use starling_protocol::{Generation, NodeId, NodeName};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

struct Services;

impl ControlServices for Services {
    fn node(&self, _: NodeId, _: NodeRequest) -> BoxFuture<'static, NodeReply> {
        std::future::ready(NodeReply::Draining).boxed()
    }

    fn pool(&self, _: NodeId, _: PoolRequest) -> BoxFuture<'static, PoolReply> {
        std::future::ready(PoolReply::Released).boxed()
    }

    fn replica(&self, _: NodeId, _: ReplicaRequest) -> BoxFuture<'static, ReplicaReply> {
        std::future::ready(ReplicaReply::NotHeld).boxed()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, generation, address, secret] = arguments.as_slice() else {
        return Err("usage: control-peer NAME GENERATION ADDRESS SECRET".into());
    };
    let id = NodeId { name: NodeName::parse(name)?, generation: Generation(generation.parse()?) };
    let trust = Trust::derive(&ClusterSecret::from_bytes(secret.clone().into_bytes())?, &id.name)?;
    let listener = TcpListener::bind(address).await?;
    println!("listening {}", listener.local_addr()?);
    let (handle, mut changes) = ControlHandle::start(ControlArguments {
        id,
        listener,
        server: Arc::new(trust.server_config(ALPN)?),
        client: Arc::new(trust.client_config(ALPN)?),
        services: Arc::new(Services),
        clock: Clock::start(),
    })
    .await?;
    let mut lines = lines();
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => handle.members(members(&line)?),
                None => return Ok(()),
            },
            change = changes.recv() => match change.ok_or("the control plane has ended")? {
                PeerChange::Up(peer) => println!("up {peer}"),
                PeerChange::Suspected(peer) => println!("suspected {peer}"),
                PeerChange::Cleared(peer) => println!("cleared {peer}"),
                PeerChange::Lost { peer, cause } => println!("lost {peer} {cause:?}"),
            },
        }
    }
}

fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn members(line: &str) -> Result<Vec<Member>, Box<dyn Error>> {
    let member = |word: &str| -> Result<Member, Box<dyn Error>> {
        let (id, address) = word.split_once('=').ok_or("no address")?;
        let (name, generation) = id.split_once('#').ok_or("no generation")?;
        let id = NodeId { name: NodeName::parse(name)?, generation: Generation(generation.parse()?) };
        Ok(Member { id, control: address.parse()? })
    };
    line.split_whitespace().map(member).collect()
}
