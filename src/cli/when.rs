//! Points in time as people give them on the command line.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Reads RFC 3339, a date, or a span back from now.
pub fn when(text: &str) -> Result<Timestamp, String> {
    when_seen_from(text, Timestamp::now())
}

fn when_seen_from(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    // What is longer than a date has a time of day, and must say of which offset it is.
    if text.len() == "2026-01-31".len()
        && let Ok(date) = text.parse::<Date>()
    {
        return date.to_zoned(TimeZone::UTC).map(|midnight| midnight.timestamp()).map_err(|error| error.to_string());
    }
    if let Ok(timestamp) = text.parse() {
        return Ok(timestamp);
    }
    let span = humantime::parse_duration(text).map_err(|_| {
        "is neither a time such as 2026-01-31T08:00:00Z, nor a date such as 2026-01-31 (from its first moment on, UTC), nor a span back from now such as 2h or 7d".to_owned()
    })?;
    now.checked_sub(span).map_err(|_| "reaches back further than there is a calendar".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        when_seen_from(text, "2026-03-01T12:00:00Z".parse().unwrap()).map(|timestamp| timestamp.to_string())
    }

    #[test]
    fn a_time_a_date_and_a_span_back_from_now_are_taken() {
        for (text, meant) in [
            ("2026-01-31T08:00:00Z", "2026-01-31T08:00:00Z"),
            ("2026-01-31T08:00:00.25+08:00", "2026-01-31T00:00:00.25Z"),
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("2h", "2026-03-01T10:00:00Z"),
            ("7d", "2026-02-22T12:00:00Z"),
            ("1h 30m", "2026-03-01T10:30:00Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(meant), "{text}");
        }
    }

    #[test]
    fn what_could_mean_two_things_is_not_taken() {
        for wrong in ["", "yesterday", "7", "2026-02-30", "2026-01-31T08:00:00", "-2h", "01/02/2026", "99999999999999y"] {
            assert!(read(wrong).is_err(), "{wrong}: {:?}", read(wrong));
        }
    }
}
