//! WebTransport, for browsers: the same streams under HTTP/3, after a request that names the path and may carry a key.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use quinn::Connecting;
use starling_protocol::native::ErrorCode;
use wtransport::Connection;
use wtransport::endpoint::{IncomingSessionFuture, SessionRequest};

use crate::gateway::{GatewayState, access, origin};
use crate::traces::RequestSpan;

/// HTTP/3's name in a handshake (RFC 9114, 3.1).
pub(super) const ALPN: &[u8] = b"h3";

/// Where the native protocol is spoken.
const PATH: &str = "/v1/stream";

/// Takes the request. One for another path or with a key that is nobody's is refused as HTTP does; one without a key has it in
/// its `hello`.
pub(super) async fn greet(
    connecting: Connecting,
    state: &GatewayState,
) -> Result<(Connection, GatewayState), String> {
    let request = IncomingSessionFuture::with_quic_connecting(connecting).await;
    let request = request.map_err(|error| error.to_string())?;
    let headers = headers(&request);
    let told = RequestSpan::over("webtransport", "quic", access::trace_of(&headers).as_ref());
    let Some(uri) = request.path().parse::<Uri>().ok().filter(|uri| uri.path() == PATH) else {
        told.refused(ErrorCode::BadRequest, None);
        request.not_found().await;
        return Err(format!("nothing but {PATH} is spoken over WebTransport"));
    };
    let host = HeaderValue::from_str(request.authority()).ok();
    let allowed = origin::check(state, headers.get(header::ORIGIN), host.as_ref());
    let state = match allowed.and_then(|()| access::admit_request(state, &uri, &headers)) {
        Ok(state) => state,
        Err(error) => {
            told.refused(error.code, None);
            request.forbidden().await;
            return Err(error.message);
        }
    };
    let connection = request.accept().await.map_err(|error| error.to_string())?;
    Ok((connection, state))
}

fn headers(request: &SessionRequest) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in request.headers() {
        let name = HeaderName::from_bytes(name.as_bytes());
        // HTTP/3's own begin with a colon.
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    headers
}
