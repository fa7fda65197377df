//! Callers of the scripted engine: their words show what is lost or comes twice.

use starling_client::{AudioSender, Client, ClientConfig, Event, Events, SessionConfig};
use starling_engine::scripted::encode;

use super::PATIENCE;

/// What is said, long enough to be disturbed in the middle.
const WORDS: usize = 60;

fn words() -> Vec<String> {
    (0..WORDS).map(|number| format!("w{number}")).collect()
}

/// The words as audio.
pub fn pcm() -> Vec<u8> {
    encode(&words()).iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// What the engine makes of them.
pub fn transcript() -> Vec<String> {
    words().iter().enumerate().map(|(number, word)| format!("{number}:{word}")).collect()
}

/// A session of this model, or of the default one, on the node at this address. The model may have to load first.
pub async fn try_open(url: String, model: Option<&str>) -> Result<(AudioSender, Events), String> {
    let config = ClientConfig::new([url]);
    let config = ClientConfig { open_deadline: PATIENCE, attempt_timeout: PATIENCE, ..config };
    let client = Client::new(config).expect("an address");
    let session = SessionConfig { model: model.map(str::to_owned), ..SessionConfig::default() };
    client.open(session).await.map(|session| session.split()).map_err(|error| error.to_string())
}

/// All words that a session is answered, to its end.
pub async fn heard(mut events: Events) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.expect("in time");
        match event.expect("not over").expect("no error") {
            Event::Final(last) => texts.extend(last.text.split(' ').map(str::to_owned)),
            Event::Done { .. } => return texts.into_iter().filter(|text| !text.is_empty()).collect(),
            _ => {}
        }
    }
}
