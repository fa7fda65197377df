//! Forms with a recording, as clients of `OpenAI`'s interface send them.

use std::io::Read;

use axum::http::HeaderValue;
use bytes::Bytes;
use starling_node::gateway::fuzzing;
use starling_protocol::native::{ErrorBody, ErrorCode};

use super::pieces;
use super::running::block_on;
use super::texts::checked;

/// The longest recording that is taken here.
const LIMIT: u64 = 1_000;

/// What a form has, its recording read back.
type Form = (Option<Vec<u8>>, Option<String>, Option<String>);

fn read(content_type: &HeaderValue, pieces: Vec<Bytes>) -> Result<Form, ErrorBody> {
    let form = block_on(fuzzing::upload_form(content_type.clone(), pieces, LIMIT))?;
    let file = form.file.map(|mut file| {
        let mut recording = Vec::new();
        file.read_to_end(&mut recording).expect("is read back");
        recording
    });
    Ok((file, form.model, form.language))
}

/// Its content type in the first line, then the form.
pub fn upload_form(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let Ok(content_type) = HeaderValue::from_bytes(parts.next().unwrap_or_default()) else { return };
    let body = parts.next().unwrap_or_default();
    let whole = read(&content_type, vec![Bytes::copy_from_slice(body)]);
    let cut = read(&content_type, pieces(body, data.len() as u8).map(Bytes::copy_from_slice).collect());
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => assert_eq!(whole, cut, "depends on how it is cut"),
        // Of two things that are wrong either may be met first.
        (Err(_), Err(_)) => {}
        (whole, cut) => panic!("depends on how it is cut: {whole:?}, {cut:?}"),
    }
    match whole {
        Ok((file, model, language)) => {
            let told = [file, model.map(String::into_bytes), language.map(String::into_bytes)];
            let told: Vec<Vec<u8>> = told.into_iter().flatten().collect();
            assert!(told.iter().map(Vec::len).sum::<usize>() <= body.len());
            assert!(told.iter().all(|part| part.len() <= body.len()));
        }
        Err(error) => {
            assert_ne!(error.code, ErrorCode::Internal, "{error:?}");
            checked(&error, data.len());
        }
    }
}
