//! The balancing rule: how many of the requests each backend may have answered.

use statrs::distribution::{Binomial, DiscreteCDF};

/// False-alarm rate of one balancing assertion, over all its backends and both sides of the band.
const FALSE_ALARMS: f64 = 1e-6;

/// Requests per backend in a balancing assertion (docs/writing-a-scenario.md, "Balancing").
pub const REQUESTS_PER_BACKEND: u32 = 100;

/// The counts that fair balancing allows one backend, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    /// Fewest answers.
    pub low: u64,
    /// Most answers.
    pub high: u64,
}

impl Band {
    /// Whether a count lies in the band.
    pub fn contains(self, count: u64) -> bool {
        (self.low..=self.high).contains(&count)
    }
}

/// The exact binomial band for one of `backends`, when each of `requests` fresh connections picks
/// one of them uniformly and independently.
///
/// A backend's count falls outside with a probability of at most 1e-6 / `backends`, half of it on
/// either side; so all counts lie inside with a probability of at least 1 - 1e-6. One backend gets
/// every request: its band is a single number.
pub fn band(requests: u64, backends: u32) -> Band {
    let whole = Band {
        low: requests,
        high: requests,
    };
    if backends <= 1 {
        return whole;
    }
    let Ok(counts) = Binomial::new(1.0 / f64::from(backends), requests) else {
        return whole;
    };
    let tail = FALSE_ALARMS / f64::from(backends) / 2.0;
    // The largest `low` with P(X < low) <= tail, and the smallest `high` with P(X > high) <= tail.
    let low = (0..=requests)
        .take_while(|low| *low == 0 || counts.cdf(low - 1) <= tail)
        .last()
        .unwrap_or(0);
    let high = (0..=requests)
        .find(|high| counts.sf(*high) <= tail)
        .unwrap_or(requests);
    Band { low, high }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choose(n: u64, k: u64) -> f64 {
        (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product()
    }

    #[test]
    fn a_small_band_agrees_with_the_sum_of_its_terms() {
        let Band { low, high } = band(200, 2);
        let outside: f64 = (0..=200)
            .filter(|k| !(low..=high).contains(k))
            .map(|k| choose(200, k) * 0.5_f64.powi(200))
            .sum();
        assert!(outside <= 5e-7, "{outside}");
        let one_narrower: f64 = outside + choose(200, low) * 0.5_f64.powi(200) * 2.0;
        assert!(
            one_narrower > 5e-7,
            "the band is not the narrowest: {one_narrower}"
        );
    }

    #[test]
    fn the_bands_in_use() {
        let shown: Vec<String> = (1..=9)
            .map(|n| {
                let Band { low, high } = band(u64::from(n * REQUESTS_PER_BACKEND), n);
                format!("{n}: {low}..={high}")
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"));
    }

    proptest! {
        #[test]
        fn the_mean_is_inside_and_zero_is_outside(n in 2_u32..20) {
            let band = band(u64::from(n * REQUESTS_PER_BACKEND), n);
            prop_assert!(band.contains(u64::from(REQUESTS_PER_BACKEND)));
            prop_assert!(!band.contains(0));
            prop_assert!(!band.contains(u64::from(n * REQUESTS_PER_BACKEND)));
        }
    }
}
