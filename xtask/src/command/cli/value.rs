//! Values as people write them.

use std::time::Duration;

use bytesize::ByteSize;
use podwire_cluster::Break;

pub(crate) fn parse_size(text: &str) -> Result<ByteSize, String> {
    text.parse()
        .map_err(|_| "it is a number with a unit: 10GiB, 500M".to_owned())
}

/// A share: 0.1 of `10%`.
pub(crate) fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|it| it.trim().parse().ok());
    let share = number.map(|percent: f64| percent / 100.0);
    let usable = share.filter(|share| (0.001..=10.0).contains(share));
    usable.ok_or_else(|| "it is a number of per cent, of 0.1% to 1000%: 10%, 2.5%".to_owned())
}

pub(crate) fn parse_age(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "it is a number with a unit: 7d, 12h, 1h30m".to_owned())
}

pub(crate) fn parse_break(name: &str) -> Result<Break, String> {
    name.parse::<Break>().map_err(|_| {
        let known = Break::ALL.map(|broken| broken.to_string()).join(", ");
        format!("there is no such fault; there are: {known}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_margin_is_a_share_of_something() {
        for (text, share) in [("10%", 0.1), ("2.5 %", 0.025), ("1000%", 10.0)] {
            assert_eq!(parse_percent(text), Ok(share));
        }
        for text in ["10", "0%", "-5%", "ten%", "%", "inf%", "NaN%", "1001%"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }
}
