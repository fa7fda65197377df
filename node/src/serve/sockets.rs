//! What a node listens on: bound before anything else is begun, served when all is there.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use quinn::Endpoint;
use starling_protocol::gossip::Addresses;
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::cluster;
use crate::config::Settings;
use crate::config::load::variable_of;
use crate::exit::{Exit, Failure};
use crate::gateway::{
    GatewayState, audiosocket_service, http_service, https_service, quic, vosk_router, wyoming_service,
};
use crate::net::{Places, Service, Serving, accept, listen};

/// Each holds a place for the connection that it waits for.
const LISTENERS: usize = 8;

/// Sockets that are bound but not yet served.
pub(super) struct Sockets {
    pub(super) http: Option<TcpListener>,
    pub(super) vosk: Option<TcpListener>,
    pub(super) audiosocket: Option<TcpListener>,
    pub(super) wyoming: Option<TcpListener>,
    pub(super) https: Option<TcpListener>,
    pub(super) vosk_tls: Option<TcpListener>,
    pub(super) audiosocket_tls: Option<TcpListener>,
    pub(super) wyoming_tls: Option<TcpListener>,
    pub(super) quic: Option<std::net::UdpSocket>,
    pub(super) gossip: Option<UdpSocket>,
    pub(super) data: Option<std::net::UdpSocket>,
    pub(super) control: Option<TcpListener>,
}

/// What is needed to stop listening.
pub(super) struct Listening {
    pub(super) gateway: GatewayState,
    pub(super) http_accepting: CancellationToken,
    /// Of clients that can't be told to go elsewhere.
    pub(super) thin_accepting: CancellationToken,
}

impl Sockets {
    pub(super) async fn bind(settings: &Settings) -> Result<Self, Failure> {
        let listen = &settings.listen;
        Ok(Self {
            http: bind("listen.http", "--http", listen.http)?,
            vosk: bind("listen.vosk", "--vosk", listen.vosk)?,
            audiosocket: bind("listen.audiosocket", "--audiosocket", listen.audiosocket)?,
            wyoming: bind("listen.wyoming", "--wyoming", listen.wyoming)?,
            https: bind("listen.https", "--https", listen.https)?,
            vosk_tls: bind("listen.vosk_tls", "--vosk-tls", listen.vosk_tls)?,
            audiosocket_tls: bind("listen.audiosocket_tls", "--audiosocket-tls", listen.audiosocket_tls)?,
            wyoming_tls: bind("listen.wyoming_tls", "--wyoming-tls", listen.wyoming_tls)?,
            quic: bind_udp("listen.quic", "--quic", listen.quic)?,
            gossip: cluster::bind(&settings.cluster).await?,
            data: cluster::bind_data(&settings.cluster)?,
            control: cluster::bind_control(&settings.cluster).await?,
        })
    }

    /// Where other nodes reach what this one listens on.
    pub(super) fn addresses(&self, settings: &Settings) -> Result<Addresses, Failure> {
        let unknown = |error| Failure::new(Exit::Os, error);
        let http = self.http.as_ref().map(TcpListener::local_addr).transpose().map_err(unknown)?;
        let data = self.data.as_ref().map(std::net::UdpSocket::local_addr).transpose().map_err(unknown)?;
        let control = self.control.as_ref().map(TcpListener::local_addr).transpose().map_err(unknown)?;
        let advertised = settings.cluster.advertised();
        let reachable = |address: Option<SocketAddr>| cluster::reachable(address?, advertised?);
        Ok(Addresses { control: reachable(control), data: reachable(data), http: reachable(http) })
    }

    pub(super) fn serve(
        self,
        gateway: &GatewayState,
        tls: Option<&TlsAcceptor>,
        endpoint: Option<Endpoint>,
        settings: &Settings,
    ) -> Listening {
        let most = usize::try_from(settings.listen.max_connections).unwrap_or(usize::MAX);
        let places = Places::new(most.saturating_add(LISTENERS), settings.listen.max_connections_per_address);
        let listening = Listening {
            gateway: gateway.clone(),
            http_accepting: CancellationToken::new(),
            thin_accepting: CancellationToken::new(),
        };
        let (http, thin) = (&listening.http_accepting, &listening.thin_accepting);
        let vosk = || Service::from(vosk_router(gateway.clone()));
        let audiosocket = || audiosocket_service(gateway.clone());
        let wyoming = || wyoming_service(gateway.clone());
        let listeners = [
            (self.http, None, http_service(gateway.clone()), http, "http"),
            (self.vosk, None, vosk(), thin, "vosk"),
            (self.audiosocket, None, audiosocket(), thin, "audiosocket"),
            (self.wyoming, None, wyoming(), thin, "wyoming"),
            (self.https, tls, https_service(gateway.clone()), http, "https"),
            (self.vosk_tls, tls, vosk(), thin, "vosk over TLS"),
            (self.audiosocket_tls, tls, audiosocket(), thin, "audiosocket over TLS"),
            (self.wyoming_tls, tls, wyoming(), thin, "wyoming over TLS"),
        ];
        for (listener, tls, service, accepting, what) in listeners {
            let Some(listener) = listener else { continue };
            if let Ok(address) = listener.local_addr() {
                // Scripts wait for this line and read a port that the system chose off it.
                tracing::info!(%address, "listening for {what}");
            }
            let serving = Serving {
                places: Arc::clone(&places),
                head_timeout: settings.gateway.handshake_timeout,
                peer_timeout: settings.gateway.peer_timeout,
                accepting: accepting.clone(),
                serving: gateway.closing.clone(),
                connections: gateway.connections.clone(),
            };
            tokio::spawn(accept(listener, tls.cloned(), service, serving));
        }
        if let Some(endpoint) = endpoint {
            if let Ok(address) = endpoint.local_addr() {
                tracing::info!(%address, "listening for quic");
            }
            let accepting = listening.http_accepting.clone();
            tokio::spawn(quic::accept(endpoint, gateway.clone(), Arc::clone(&places), accepting));
        }
        listening
    }
}

fn bind_udp(
    key: &str,
    flag: &str,
    address: Option<SocketAddr>,
) -> Result<Option<std::net::UdpSocket>, Failure> {
    let Some(address) = address else { return Ok(None) };
    let bound = std::net::UdpSocket::bind(address).with_context(|| unusable(key, flag, address));
    bound.map(Some).map_err(|error| Failure::new(Exit::Os, error))
}

fn unusable(key: &str, flag: &str, address: SocketAddr) -> String {
    let variable = variable_of(key);
    format!(
        "{key} = {address} cannot be listened on; choose another address with {flag}, {variable} or in the file"
    )
}

fn bind(key: &str, flag: &str, address: Option<SocketAddr>) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = listen(address).with_context(|| unusable(key, flag, address));
    listener.map(Some).map_err(|error| Failure::new(Exit::Os, error))
}
