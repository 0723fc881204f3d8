//! Durations (`500ms`, `5s`, `2m`), sizes (`512Mi`, `2Gi`) and cpu shares (`1.5`) as text and as numbers.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr, time::Duration};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QuantityError {
    #[error("`{0}` is not a duration; write a number with ms, s, m or h, as in 500ms, 5s, 2m")]
    Duration(String),
    #[error("`{0}` is not a size; write a number with Ki, Mi, Gi or Ti, as in 512Mi")]
    Size(String),
    #[error("`{0}` is not a cpu share; write a number of cores, as in \"1.5\"")]
    Cpu(String),
}

/// A duration with its text form; whole milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A number of bytes with its text form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Thousandths of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu(pub u32);

impl Span {
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

const SPAN_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("K", 1_000),
];

impl FromStr for Span {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || QuantityError::Duration(text.to_owned());
        let (number, unit) = split_unit(text);
        let unit = SPAN_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?.1;
        Ok(Self(Duration::from_millis(scale(number, unit).ok_or_else(bad)?)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.as_millis();
        let (unit, size) = SPAN_UNITS.into_iter().find(|(_, size)| millis >= *size && millis.is_multiple_of(*size)).unwrap_or(("s", 1_000));
        write!(f, "{}{unit}", millis / size)
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || QuantityError::Size(text.to_owned());
        let (number, unit) = split_unit(text);
        let unit = if unit.is_empty() { 1 } else { SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?.1 };
        scale(number, unit).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = &SIZE_UNITS[..4];
        match binary.iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Cpu {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || QuantityError::Cpu(text.to_owned());
        let millis = scale(text, 1_000).ok_or_else(bad)?;
        u32::try_from(millis).ok().filter(|millis| *millis > 0).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1_000.0)
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

/// `number` (digits with at most one point) times `unit`, exact to whole units; None when it is no number or too large.
fn scale(number: &str, unit: u64) -> Option<u64> {
    let value: f64 = number.parse().ok()?;
    let scaled = (value * unit as f64).round();
    (number.starts_with(|c: char| c.is_ascii_digit()) && scaled.is_finite() && scaled < u64::MAX as f64).then_some(scaled as u64)
}

macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Span, ByteSize, Cpu);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_the_same_text() {
        for text in ["500ms", "5s", "2m", "1h", "0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("1.5s".parse::<Span>().unwrap(), Span::millis(1500));
        for text in ["", "5", "s", "-1s", "5 s", "5d", "1e9s", "nans"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_and_print_the_same_text() {
        for text in ["512Mi", "2Gi", "1000", "0"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        assert_eq!("1.5Gi".parse::<ByteSize>().unwrap(), ByteSize(3 << 29));
        for text in ["", "Gi", "2Q", "-2Gi", "99999999999999Ti"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn cpu_is_a_number_of_cores() {
        assert_eq!("1.5".parse::<Cpu>().unwrap(), Cpu(1500));
        assert_eq!(Cpu(1500).to_string(), "1.5");
        assert!("0".parse::<Cpu>().is_err());
    }
}
