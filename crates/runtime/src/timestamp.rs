//! Times as people and container managers read them: RFC 3339 in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// `time` with nanoseconds, as Go's RFC3339Nano has it; a time before 1970 is 1970.
#[must_use]
pub fn rfc3339_nanos(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = format!(".{:09}", since.subsec_nanos());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{}{fraction}Z", date_and_time(since.as_secs()))
}

/// `time` with seconds.
#[must_use]
pub fn rfc3339_seconds(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}Z", date_and_time(since.as_secs()))
}

fn date_and_time(seconds: u64) -> String {
    let (year, month, day) = date(seconds / DAY);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of a day after 1970-01-01, in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Years that begin in March have their leap day at the end, and repeat every 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Seconds after 1970 of a time that [`rfc3339_nanos`] wrote.
pub(crate) fn parse_seconds(text: &str) -> Option<f64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = time.splitn(3, ':');
    let (hour, minute) = (time.next()?.parse::<u64>().ok()?, time.next()?.parse::<u64>().ok()?);
    let second: f64 = time.next()?.parse().ok()?;
    let days = days_until(year, month, day)?;
    let whole = days.checked_mul(DAY)?.checked_add(hour.checked_mul(3600)?)?.checked_add(minute.checked_mul(60)?)?;
    Some(std::time::Duration::from_secs(whole).as_secs_f64() + second)
}

/// Days from 1970-01-01 to a date: the reverse of [`date`].
fn days_until(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // The year is taken to begin in March, so that the leap day is its last and months before it have fixed lengths.
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = month.saturating_add(9) % 12;
    let day_of_year = (shifted_month.saturating_mul(153).saturating_add(2) / 5).saturating_add(day).saturating_sub(1);
    let day_of_era = year_of_era
        .saturating_mul(365)
        .saturating_add(year_of_era / 4)
        .saturating_sub(year_of_era / 100)
        .saturating_add(day_of_year);
    era.saturating_mul(146_097).saturating_add(day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates() {
        let at = |seconds, nanos| rfc3339_nanos(UNIX_EPOCH + Duration::new(seconds, nanos));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_199, 120_000_000), "2024-02-29T23:59:59.12Z");
        assert_eq!(at(4_102_444_800, 1), "2100-01-01T00:00:00.000000001Z");
        assert_eq!(rfc3339_seconds(UNIX_EPOCH + Duration::new(1_795_449_600, 5)), "2026-11-23T16:00:00Z");
        for seconds in (0..4_102_444_800).step_by(8_640_123) {
            assert_eq!(parse_seconds(&at(seconds, 500_000_000)), Some(seconds as f64 + 0.5), "{seconds}");
        }
        for bad in ["", "Z", "2026-13-01T00:00:00Z", "1900-01-01T00:00:00Z", "2026-01-01T00:00:00", "x-y-zT1:2:3Z"] {
            assert_eq!(parse_seconds(bad), None, "{bad}");
        }
    }
}
