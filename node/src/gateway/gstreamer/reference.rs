//! Texts that somebody says were spoken, kept for whoever measures or trains models.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::timeout;

use super::{header as header_of, reference_file};
use crate::gateway::access::Admitted;

/// An hour of fast speech has some 60 KiB.
const MOST_BYTES: usize = 256 * 1024;

/// Longest content id: with every byte escaped it is still a file's name.
const MOST_ID_BYTES: usize = 80;

/// Keeps a text.
pub(super) async fn keep(Admitted(state): Admitted, headers: HeaderMap, body: Body) -> Response {
    let folder = &state.settings.reference_dir;
    if folder.as_os_str().is_empty() {
        let message = "reference texts are not kept here: gateway.reference_dir is not set\n";
        return (StatusCode::NOT_IMPLEMENTED, message).into_response();
    }
    let content_id = match content_id(&headers) {
        Ok(content_id) => content_id,
        Err(message) => return (StatusCode::BAD_REQUEST, message).into_response(),
    };
    let read = timeout(state.settings.peer_timeout, to_bytes(body, MOST_BYTES)).await;
    let text = read.ok().and_then(Result::ok).and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    let Some(text) = text else {
        let message = format!("the body must be a text of at most {MOST_BYTES} bytes in UTF-8\n");
        return (StatusCode::BAD_REQUEST, message).into_response();
    };
    let user_id = header_of(&headers, "user-id").unwrap_or_default();
    let kept = json!({ "content": text, "user_id": user_id, "time": starling_actors::unix_now().as_secs() });
    // Each tenant's apart; a tenant's name is a folder's.
    let folder = &folder.join(state.tenant_name());
    let file = reference_file(folder, &content_id);
    let written = match tokio::fs::create_dir_all(folder).await {
        Ok(()) => tokio::fs::write(&file, kept.to_string()).await,
        Err(error) => Err(error),
    };
    match written {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => {
            tracing::error!(%error, file = %file.display(), "a reference text could not be kept");
            (StatusCode::INTERNAL_SERVER_ERROR, "the text could not be kept\n").into_response()
        }
    }
}

/// What the text belongs to, or what is wrong with it.
pub(in crate::gateway) fn content_id(headers: &HeaderMap) -> Result<String, String> {
    let id = header_of(headers, "content-id").filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| "No Content-Id specified\n".to_owned())?;
    if id.len() > MOST_ID_BYTES {
        return Err(format!("Content-Id has {} bytes; it must have at most {MOST_ID_BYTES}\n", id.len()));
    }
    Ok(id)
}
