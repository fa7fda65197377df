//! Whether a series of samples grows: the slope of Theil and Sen, and how certain it is.
//!
//! Owns: the estimate. Must never: let a single spike, or a pause between samples, decide.

/// Of the normal distribution: what lies below with a probability of 99.5 %.
const Z_995: f64 = 2.576;

/// Pairs beyond this are thinned out: two hours of samples give a quarter of a million.
const MOST_POINTS: usize = 400;

/// How a series grows, in its own unit for each second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slope {
    /// The median of the slopes of all pairs (Theil 1950, Sen 1968): a third of the samples may be anything.
    pub(crate) median: f64,
    /// The lower end of its interval of 99 %, by Sen's method. Growth is certain when this is above 0.
    pub(crate) least: f64,
}

/// `points` are seconds and values. Nothing for fewer than three.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<Slope> {
    let step = points.len().div_ceil(MOST_POINTS).max(1);
    let points: Vec<(f64, f64)> = points.iter().copied().step_by(step).collect();
    let count = points.len();
    if count < 3 {
        return None;
    }
    let mut slopes = Vec::with_capacity(count * (count - 1) / 2);
    for (index, (at, value)) in points.iter().enumerate() {
        for (later, other) in &points[index + 1..] {
            if later > at {
                slopes.push((other - value) / (later - at));
            }
        }
    }
    if slopes.is_empty() {
        return None;
    }
    slopes.sort_by(f64::total_cmp);
    let n = count as f64;
    // Kendall's variance without ties: ties only narrow it.
    let spread = Z_995 * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let rank = ((slopes.len() as f64 - spread) / 2.0).max(0.0) as usize;
    Some(Slope { median: slopes[slopes.len() / 2], least: slopes[rank.min(slopes.len() - 1)] })
}

/// The middle one.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise that is the same each time: -0.5 to 0.5.
    fn noise(number: usize) -> f64 {
        ((number * 7919 + 13) % 101) as f64 / 100.0 - 0.5
    }

    #[test]
    fn a_leak_is_told_from_noise() {
        let series = |per_s: f64| -> Vec<(f64, f64)> {
            (0..600).map(|n| (n as f64 * 10.0, 100.0 + per_s * n as f64 * 10.0 + 8.0 * noise(n))).collect()
        };
        let flat = slope(&series(0.0)).expect("enough");
        assert!(flat.median.abs() < 1e-4 && flat.least <= 0.0, "{flat:?}");
        let leak = slope(&series(0.01)).expect("enough");
        assert!((leak.median - 0.01).abs() < 1e-3 && leak.least > 0.009, "{leak:?}");
    }

    #[test]
    fn a_burst_is_no_slope() {
        let mut points: Vec<(f64, f64)> = (0..90).map(|n| (f64::from(n), 10.0)).collect();
        for point in &mut points[60..85] {
            point.1 = 500.0;
        }
        assert_eq!(slope(&points).expect("enough").median, 0.0);
    }

    #[test]
    fn too_few_samples_say_nothing() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(slope(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }
}
