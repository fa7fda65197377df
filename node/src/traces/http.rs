//! OTLP over HTTP, on the exporter's own thread.

use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::TraceSettings;

/// An answer to spans says how many were refused, and why.
const ANSWER_BYTES: u64 = 1 << 20;

/// Sends one request after the other, each to its end: the thread that exports has nothing else to do.
#[derive(Debug)]
pub(super) struct BlockingHttp {
    agent: ureq::Agent,
}

impl BlockingHttp {
    pub(super) fn new(settings: &TraceSettings) -> anyhow::Result<Self> {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_millis(settings.timeout_ms)));
        if settings.is_encrypted {
            let trusted: Vec<Certificate<'static>> = match settings.certificates()? {
                Some(pem) => ureq::tls::parse_pem(&pem)
                    .filter_map(|item| match item {
                        Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(Ok(certificate)),
                        Ok(_) => None,
                        Err(error) => Some(Err(error)),
                    })
                    .collect::<Result<_, _>>()?,
                None => {
                    let found = rustls_native_certs::load_native_certs();
                    found
                        .certs
                        .iter()
                        .map(|certificate| Certificate::from_der(certificate).to_owned())
                        .collect()
                }
            };
            config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::from(trusted)).build());
        }
        Ok(Self { agent: config.build().into() })
    }
}

#[async_trait]
impl HttpClient for BlockingHttp {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let mut answer = self.agent.run(Request::from_parts(head, &body[..]))?;
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_vec()?;
        let (head, _) = answer.into_parts();
        Ok(Response::from_parts(head, body.into()))
    }
}
