use super::*;
use crate::frame::{FrameReader, encode};
use crate::limits::MAX_LEASE_FRAME_BYTES;

fn round_trip<M: Serialize + serde::de::DeserializeOwned>(message: &M) -> M {
    let mut bytes = Vec::new();
    encode(message, MAX_LEASE_FRAME_BYTES, &mut bytes).expect("fits");
    let mut reader = FrameReader::new(MAX_LEASE_FRAME_BYTES);
    reader.push(&bytes);
    reader.next().expect("decodes").expect("whole")
}

#[test]
fn feed_survives_the_round_trip_and_audio_is_binary() {
    let message = ToHost::Feed { lease: LeaseId(3), at: DecodeOffset(1_600), pcm: vec![200; 3_200] };
    assert_eq!(round_trip(&message), message);
    let mut bytes = Vec::new();
    encode(&message, MAX_LEASE_FRAME_BYTES, &mut bytes).expect("fits");
    assert!(bytes.len() < 3_200 + 64, "audio is not an array of numbers: {} bytes", bytes.len());
}

#[test]
fn a_field_added_by_a_newer_writer_is_skipped() {
    #[derive(Serialize)]
    enum Newer {
        Close { lease: u64, hurry: bool },
    }
    let mut bytes = Vec::new();
    encode(&Newer::Close { lease: 9, hurry: true }, 64, &mut bytes).expect("fits");
    let mut reader = FrameReader::new(64);
    reader.push(&bytes);
    let seen: Option<ToHost> = reader.next().expect("decodes");
    assert_eq!(seen, Some(ToHost::Close { lease: LeaseId(9) }));
}

#[test]
fn a_flight_entry_survives_and_an_empty_line_is_none() {
    let entry = FlightEntry { lease: LeaseId(0), until: DecodeOffset(77) };
    assert_eq!(FlightEntry::from_bytes(&entry.to_bytes()), Some(entry));
    assert_eq!(FlightEntry::from_bytes(&[0; FLIGHT_ENTRY_BYTES]), None);
}
