use proptest::prelude::*;

use super::*;

fn journal(source: u32) -> Journal {
    Journal::new(RateMap::new(source, 16_000).expect("in range"))
}

#[test]
fn a_finalize_stands_where_the_audio_before_it_can_be_decoded() {
    let mut journal = journal(8_000);
    journal.append_audio(816);
    assert!(journal.append(Control::Finalize).is_some());
    assert!(journal.append(Control::Finalize).is_some(), "two at one place are two");
    let entry = journal.entry(0).expect("was added");
    assert_eq!(entry.at, DecodeOffset(1_600), "16 frames are the filter's view ahead");
    journal.append_audio(800);
    assert_eq!(journal.entry(0), Some(entry), "later audio does not move it");
}

#[test]
fn nothing_follows_the_end() {
    let mut journal = journal(16_000);
    journal.append_audio(10);
    assert!(journal.append(Control::End).is_some());
    assert!(!journal.append_audio(10));
    assert!(journal.append(Control::Finalize).is_none());
    assert_eq!(journal.received(), SourceOffset(10));
}

#[test]
fn a_commit_takes_its_own_entry_and_no_other() {
    let mut journal = journal(16_000);
    journal.append_audio(1_600);
    journal.append(Control::Finalize);
    journal.commit(DecodeOffset(1_600), CutCause::Endpoint);
    assert_eq!(journal.pending_entries(), 1, "an endpoint at the same place is another segment's cut");
    journal.commit(DecodeOffset(1_600), CutCause::Finalize);
    assert_eq!(journal.pending_entries(), 0);
}

proptest! {
    /// Against the simplest thing that could be right: a list of everything that came.
    #[test]
    fn the_journal_is_a_list_with_its_head_cut_off(
        source in prop_oneof![Just(8_000u32), Just(16_000), Just(44_100)],
        moves in proptest::collection::vec((0u8..4, 1u64..5_000), 0..60),
    ) {
        let rates = RateMap::new(source, 16_000).expect("in range");
        let mut journal = Journal::new(rates);
        let mut model: Vec<Entry> = Vec::new();
        let mut frames = 0;
        for (kind, size) in moves {
            match kind {
                0 | 1 => {
                    journal.append_audio(size);
                    frames += size;
                }
                2 => {
                    let entry = Entry { at: rates.decodable(SourceOffset(frames)), control: Control::Finalize };
                    prop_assert!(journal.append(Control::Finalize).is_some());
                    model.push(entry);
                }
                _ => {
                    let target = journal.committed().plus(size);
                    match model.first().copied() {
                        Some(entry) if entry.at <= target => {
                            journal.commit(entry.at, CutCause::Finalize);
                            model.remove(0);
                        }
                        _ if target <= journal.decodable() => drop(journal.commit(target, CutCause::Endpoint)),
                        _ => {}
                    }
                }
            }
            prop_assert_eq!(journal.received(), SourceOffset(frames));
            prop_assert_eq!(journal.pending_entries(), model.len());
            for (index, entry) in model.iter().enumerate() {
                prop_assert_eq!(journal.entry(index), Some(*entry));
            }
            prop_assert!(journal.committed() <= journal.decodable());
            prop_assert!(journal.needed_from() <= journal.received());
        }
    }
}
