//! Quantities as tc(8) writes them: times, shares, rates, sizes.
//!
//! Two things differ from tc(8): what it takes for microseconds or for bits per second when no unit is
//! given is refused, since nobody can tell from `40` which was meant; and a value finer than what is
//! stored is refused, where tc rounds it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A text is not a quantity of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {kind}; write a number and a unit: {possible}")]
pub struct UnitError {
    text: String,
    kind: &'static str,
    possible: &'static str,
}

/// A kind of quantity: its units with what they are worth, the largest first.
struct Kind {
    name: &'static str,
    possible: &'static str,
    units: &'static [(&'static str, u64)],
    most: u64,
}

const TIME: Kind = Kind {
    name: "a time of at most an hour",
    possible: "1.5s, 40ms, 500us",
    units: &[("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000)],
    most: 3_600_000_000_000,
};

const PERCENT: Kind = Kind {
    name: "a share",
    possible: "1%, 0.05%, to 100% in steps of 0.0001%",
    units: &[("%", 10_000)],
    most: 1_000_000,
};

const RATE: Kind = Kind {
    name: "a rate",
    possible: "1gbit, 100mbit, 64kbit, 9600bit",
    units: &[
        ("gbit", 1_000_000_000),
        ("mbit", 1_000_000),
        ("kbit", 1000),
        ("bit", 1),
    ],
    most: 1_000_000_000_000,
};

const SIZE: Kind = Kind {
    name: "a size",
    possible: "1mb (1024 kb), 64kb (1024 octets each), 1500b",
    units: &[
        ("mb", 1 << 20),
        ("m", 1 << 20),
        ("kb", 1 << 10),
        ("k", 1 << 10),
        ("b", 1),
    ],
    most: 1 << 30,
};

impl Kind {
    fn parse(&self, text: &str) -> Result<u64, UnitError> {
        self.value(text)
            .filter(|value| *value <= self.most)
            .ok_or_else(|| UnitError {
                text: text.to_owned(),
                kind: self.name,
                possible: self.possible,
            })
    }

    fn value(&self, text: &str) -> Option<u64> {
        let unit_at = text.find(|it: char| !it.is_ascii_digit() && it != '.')?;
        let (number, unit) = text.split_at(unit_at);
        let known = self.units.iter();
        let (_, factor) = known
            .clone()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
        let (whole, fraction) = match number.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return None,
            None => (number, ""),
        };
        let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
        if whole.is_empty() {
            return None;
        }
        let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let scaled = digits.checked_mul(u128::from(*factor))?;
        if !scaled.is_multiple_of(scale) {
            return None;
        }
        u64::try_from(scaled / scale).ok()
    }

    fn show(&self, value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A part of a power of two would be a long fraction.
        let fits = |(_, factor): &&(&str, u64)| {
            value >= *factor && (is_power_of_ten(*factor) || value.is_multiple_of(*factor))
        };
        let Some((unit, factor)) = self.units.iter().find(fits).or(self.units.last()) else {
            return Ok(());
        };
        write!(f, "{}", value / factor)?;
        let rest = value % factor;
        if rest > 0 {
            let width = factor.ilog10() as usize;
            let fraction = format!("{rest:0width$}");
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        f.write_str(unit)
    }
}

fn is_power_of_ten(number: u64) -> bool {
    number == 10_u64.pow(number.ilog10())
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $kind.show(self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = UnitError;

            fn from_str(text: &str) -> Result<Self, UnitError> {
                $kind.parse(text).map($name)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = UnitError;

            fn try_from(text: String) -> Result<Self, UnitError> {
                text.parse()
            }
        }
    };
}

quantity! {
    /// A time of at most an hour: `1.5s`, `40ms`, `500us`.
    Time, TIME
}

quantity! {
    /// A share of frames in steps of 0.0001 %: `1%`, `0.05%`.
    Percent, PERCENT
}

quantity! {
    /// Bits per second, in powers of ten: `1gbit`, `100mbit`, `64kbit`.
    BitRate, RATE
}

quantity! {
    /// Octets, in powers of 1024 as tc(8) has them: `1mb`, `64kb`, `1500b`.
    Size, SIZE
}

impl Time {
    /// As a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    pub(super) fn nanos(self) -> u64 {
        self.0
    }
}

impl From<Duration> for Time {
    /// What is longer than an hour becomes an hour.
    fn from(duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Time(nanos.min(TIME.most))
    }
}

impl Percent {
    /// All of them.
    pub(super) const ALL: Percent = Percent(1_000_000);

    /// Millionths.
    pub(super) fn millionths(self) -> u64 {
        self.0
    }
}

impl BitRate {
    /// How long `octets` take, in nanoseconds; nothing is sent at a rate of 0.
    pub(super) fn nanos_for(self, octets: usize) -> u64 {
        let nanos = octets as u128 * 8 * 1_000_000_000 / u128::from(self.0.max(1));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// How many octets take `nanos`.
    pub(super) fn octets_in(self, nanos: u128) -> u64 {
        u64::try_from(nanos * u128::from(self.0) / 8_000_000_000).unwrap_or(u64::MAX)
    }

    pub(super) fn is_nothing(self) -> bool {
        self.0 == 0
    }
}

impl Size {
    /// So many octets.
    #[must_use]
    pub const fn octets(octets: u32) -> Self {
        Size(octets as u64)
    }

    pub(super) fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_read_as_tc_writes_them() {
        let time = |text: &str| text.parse::<Time>().map(Time::duration);
        assert_eq!(time("40ms"), Ok(Duration::from_millis(40)));
        assert_eq!(time("1.5S"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("500us"), Ok(Duration::from_micros(500)));
        assert_eq!("0.05%".parse(), Ok(Percent(500)));
        assert_eq!("100%".parse(), Ok(Percent::ALL));
        assert_eq!("1.5gbit".parse(), Ok(BitRate(1_500_000_000)));
        assert_eq!("64k".parse(), Ok(Size(65_536)));
        assert_eq!("1500b".parse(), Ok(Size(1500)));
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_possible() {
        let time = |text: &str| text.parse::<Time>().unwrap_err().to_string();
        insta::assert_snapshot!(time("40"), @r#""40" is not a time of at most an hour; write a number and a unit: 1.5s, 40ms, 500us"#);
        let share = |text: &str| text.parse::<Percent>().unwrap_err().to_string();
        insta::assert_snapshot!(share("101%"), @r#""101%" is not a share; write a number and a unit: 1%, 0.05%, to 100% in steps of 0.0001%"#);
        for wrong in [
            "", "ms", ".5ms", "1.ms", "-1ms", "1.2.3ms", "1 ms", "0.0001us", "2h", "3601s",
        ] {
            assert!(wrong.parse::<Time>().is_err(), "{wrong}");
        }
        assert!("0.00001%".parse::<Percent>().is_err());
        assert!("100mbps".parse::<BitRate>().is_err());
        assert!(
            "99999999999999999999999999999999999999999gbit"
                .parse::<BitRate>()
                .is_err()
        );
        assert!("1500".parse::<Size>().is_err());
    }

    #[test]
    fn quantities_are_shown_in_the_unit_that_reads_best() {
        let shown = [
            Time(0).to_string(),
            Time(500).to_string(),
            Time(40_007_000).to_string(),
            Percent(500).to_string(),
            BitRate(1_500_000_000).to_string(),
            Size(65_536).to_string(),
            Size(65_537).to_string(),
        ];
        let wanted = [
            "0us", "0.5us", "40.007ms", "0.05%", "1.5gbit", "64kb", "65537b",
        ];
        assert_eq!(shown, wanted);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(value in 0_u64..=1_000_000) {
            prop_assert_eq!(Time(value).to_string().parse(), Ok(Time(value)));
            prop_assert_eq!(Percent(value).to_string().parse(), Ok(Percent(value)));
            prop_assert_eq!(BitRate(value).to_string().parse(), Ok(BitRate(value)));
            prop_assert_eq!(Size(value).to_string().parse(), Ok(Size(value)));
        }
    }
}
