//! Times, durations and sizes as people read them.

use jiff::Timestamp;
use std::time::Duration;

/// `5m` for a time five minutes before `now`; `-` for none.
pub(crate) fn age(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => short(Duration::from_secs(u64::try_from(now.as_second() - time.as_second()).unwrap_or(0))),
        Err(_) => "-".to_owned(),
    }
}

/// At most two units: `45s`, `5m`, `3h12m`, `2d4h`.
pub(crate) fn short(duration: Duration) -> String {
    let secs = duration.as_secs();
    let (minutes, hours, days) = (secs / 60, secs / 3_600, secs / 86_400);
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        small => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match secs {
        0 if duration.subsec_millis() > 0 => format!("{}ms", duration.subsec_millis()),
        0..120 => format!("{secs}s"),
        120..600 => two(minutes, "m", secs % 60, "s"),
        600..7_200 => format!("{minutes}m"),
        7_200..86_400 => two(hours, "h", minutes % 60, "m"),
        86_400..864_000 => two(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

/// `412Mi`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["", "Ki", "Mi", "Gi", "Ti"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 10.0);
    format!("{value:.digits$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let check = |time: &str, expect: &str| assert_eq!(age(time, now), expect, "{time}");
        check("2026-01-01T23:59:15.250Z", "45s");
        check("2026-01-01T23:55:00.000Z", "5m");
        check("2026-01-01T20:48:00.000Z", "3h12m");
        check("2025-12-30T20:00:00.000Z", "2d4h");
        check("2027-01-01T00:00:00.000Z", "0s");
        check("", "-");
    }

    #[test]
    fn sizes_have_one_digit_when_small() {
        assert_eq!([bytes(512), bytes(1536), bytes(412 << 20)], ["512", "1.5Ki", "412Mi"]);
    }
}
