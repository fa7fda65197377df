//! The simulation's own randomness: a pure function of the seed, on every machine and with every version of every library.

/// `SplitMix64` (Steele, Lea, Flood 2014): small, fast, and fixed for good.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Numbers that this seed gives; `stream` tells users of one seed apart.
    #[must_use]
    pub const fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Self(seed ^ stream.wrapping_mul(0xA076_1D64_78BD_642F));
        let first = rng.next();
        Self(first)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A number from `low` to `high`, both among them.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True so many times in a hundred.
    pub const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them; there is one.
    pub fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut rng = Rng::new(7, 1);
        let numbers = [rng.next(), rng.next()];
        let mut again = Rng::new(7, 1);
        assert_eq!(numbers, [again.next(), again.next()]);
        assert_ne!(numbers[0], Rng::new(7, 2).next());
        assert_ne!(numbers[0], Rng::new(8, 1).next());
        assert!((0..1_000).all(|_| (3..=5).contains(&rng.between(3, 5))));
    }
}
