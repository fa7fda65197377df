//! Who another node says that it is.

use starling_actors::fuzzing::peer_id;
use starling_actors::trust::{NAME_SUFFIX, peer_name, server_name};

/// A name with a generation, as a peer introduces itself; and a certificate (X.509, DER), of which it has been proved that the
/// cluster's authority has signed it.
pub fn peer_identity(data: &[u8]) {
    if let Some(id) = std::str::from_utf8(data).ok().and_then(peer_id) {
        let written = id.to_string();
        assert_eq!(peer_id(&written), Some(id.clone()), "is not read as it was written");
        assert!(written.len() <= data.len() && data.starts_with(id.name.as_str().as_bytes()), "{written}");
    }
    match peer_name(&data.into()) {
        Ok(name) => {
            let full = format!("{name}{NAME_SUFFIX}");
            let stands =
                |text: &str| data.windows(text.len()).filter(|part| *part == text.as_bytes()).count();
            assert!(stands(&full) > 0, "{name} stands nowhere in it");
            server_name(&name).expect("who has a certificate can be dialled");
        }
        Err(problem) => assert!(problem.to_string().contains("certificate"), "{problem}"),
    }
}
