use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn bytes_in_any_pieces_are_the_same_samples(
        samples in proptest::collection::vec(any::<i16>(), 0..200),
        pieces in proptest::collection::vec(0usize..9, 1..50),
        trims in proptest::collection::vec(0u64..250, 0..5),
    ) {
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let mut store = SourceStore::new();
        let mut rest = &bytes[..];
        let mut added = 0;
        for size in pieces.into_iter().cycle().take(2_000) {
            let (piece, tail) = rest.split_at(size.min(rest.len()));
            added += store.append(piece);
            rest = tail;
        }
        added += store.append(rest);
        prop_assert_eq!(added, samples.len() as u64);
        for until in trims {
            store.trim(SourceOffset(until));
            prop_assert_eq!(store.end(), SourceOffset(samples.len() as u64));
            prop_assert!(store.start() <= store.end());
            for at in store.start().0..store.end().0 {
                prop_assert_eq!(store.sample(SourceOffset(at)), samples[at as usize]);
            }
        }
    }
}

#[test]
fn a_forgotten_half_sample_does_not_shift_what_follows() {
    let mut store = SourceStore::new();
    assert_eq!(store.append(&[1]), 0);
    store.forget_odd_byte();
    assert_eq!(store.append(&[2, 0]), 1);
    assert_eq!(store.sample(SourceOffset(0)), 2);
}
