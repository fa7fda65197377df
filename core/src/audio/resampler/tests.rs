use proptest::prelude::*;

use super::*;

fn render(resampler: &Resampler, samples: &[i16], from: u64, to: u64) -> Vec<i16> {
    let mut out = Vec::new();
    let source = |at: SourceOffset| samples.get(at.0 as usize).copied().unwrap_or(0);
    resampler.render(DecodeOffset(from), DecodeOffset(to), source, &mut out);
    out
}

fn tone(hz: f64, rate: u32, frames: usize) -> Vec<i16> {
    (0..frames)
        .map(|n| (10_000.0 * (2.0 * PI * hz * n as f64 / f64::from(rate)).sin()).round() as i16)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_part_rendered_alone_equals_the_same_part_of_the_whole(
        rate in prop_oneof![Just(8_000u32), Just(11_025), Just(44_100), Just(48_000), Just(16_000), 8_000u32..=48_000],
        samples in proptest::collection::vec(any::<i16>(), 200..600),
        cut in 0.0f64..1.0,
    ) {
        let rates = RateMap::new(rate, 16_000).expect("in range");
        let resampler = Resampler::new(rates);
        let total = rates.decodable_at_end(SourceOffset(samples.len() as u64)).0;
        let whole = render(&resampler, &samples, 0, total);
        let at = (total as f64 * cut) as u64;
        prop_assert_eq!(&render(&resampler, &samples, at, total)[..], &whole[at as usize..]);
    }

    #[test]
    fn what_counts_as_decodable_never_changes_when_more_audio_comes(
        rate in 8_000u32..=48_000,
        samples in proptest::collection::vec(any::<i16>(), 200..600),
        received in 0usize..200,
    ) {
        let rates = RateMap::new(rate, 16_000).expect("in range");
        let resampler = Resampler::new(rates);
        let ready = rates.decodable(SourceOffset(received as u64)).0;
        prop_assert_eq!(
            render(&resampler, &samples[..received], 0, ready),
            render(&resampler, &samples, 0, ready)
        );
    }

    #[test]
    fn nothing_before_needed_from_is_heard(rate in 8_000u32..=48_000, at in 0u64..400) {
        let rates = RateMap::new(rate, 16_000).expect("in range");
        let resampler = Resampler::new(rates);
        let samples = tone(300.0, rate, 2_000);
        let mut trimmed = samples.clone();
        let needed = rates.needed_from(DecodeOffset(at)).0 as usize;
        trimmed[..needed].fill(i16::MAX);
        prop_assert_eq!(render(&resampler, &samples, at, at + 100), render(&resampler, &trimmed, at, at + 100));
    }
}

#[test]
fn a_tone_keeps_its_pitch_and_loudness() {
    for rate in [8_000, 11_025, 22_050, 32_000, 44_100, 48_000] {
        let rates = RateMap::new(rate, 16_000).expect("in range");
        let heard = render(&Resampler::new(rates), &tone(440.0, rate, rate as usize), 1_000, 15_000);
        let wanted = &tone(440.0, 16_000, 16_000)[1_000..15_000];
        let worst = heard.iter().zip(wanted).map(|(a, b)| i32::from(*a).abs_diff(i32::from(*b))).max();
        assert!(worst <= Some(12), "{rate} Hz is off by {worst:?} of 10000");
    }
}

#[test]
fn what_the_lower_rate_cannot_hold_is_gone() {
    let rates = RateMap::new(48_000, 16_000).expect("in range");
    let heard = render(&Resampler::new(rates), &tone(12_000.0, 48_000, 48_000), 1_000, 15_000);
    let loudest = heard.iter().map(|sample| sample.unsigned_abs()).max();
    assert!(loudest <= Some(5), "12 kHz folds back at {loudest:?} of 10000");
}
