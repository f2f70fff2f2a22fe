//! Dates as ISO 8601 and RFC 3339 write them.

/// Seconds from the beginning of 1970 (UTC), and whether the text names a time zone; without one it is taken for UTC.
/// `None` for what is no such date.
pub(super) fn seconds_since_1970(text: &str) -> Option<(f64, bool)> {
    let (date, rest) = text.split_at_checked(10)?;
    let mut parts = date.split(['-', '/']);
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if year.len() != 4 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let days = days(digits(year)?, digits(month)?, digits(day)?)?;
    let midnight = days as f64 * 86_400.0;
    if rest.is_empty() {
        return Some((midnight, false));
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, offset_s) = zone(rest)?;
    let mut parts = clock.split(':');
    let (hours, minutes) = (digits(parts.next()?)?, digits(parts.next()?)?);
    let seconds = match parts.next() {
        None => 0.0,
        Some(text) if text.starts_with(|c: char| c.is_ascii_digit()) => {
            text.replace(',', ".").parse().ok()?
        }
        Some(_) => return None,
    };
    // A minute may have a leap second.
    if parts.next().is_some() || hours > 23 || minutes > 59 || !(0.0..61.0).contains(&seconds) {
        return None;
    }
    let in_day = hours as f64 * 3_600.0 + minutes as f64 * 60.0 + seconds;
    Some((midnight + in_day - offset_s.unwrap_or(0.0), offset_s.is_some()))
}

/// The time of day before its zone, and the zone's offset in seconds.
fn zone(text: &str) -> Option<(&str, Option<f64>)> {
    let text = text.trim_end();
    for utc in ["Z", "z", " UTC", " GMT"] {
        if let Some(clock) = text.strip_suffix(utc) {
            return Some((clock, Some(0.0)));
        }
    }
    let Some(at) = text.find(['+', '-']) else { return Some((text, None)) };
    let (clock, offset) = text.split_at(at);
    let sign = if offset.starts_with('-') { -1.0 } else { 1.0 };
    let offset: String = offset.chars().skip(1).filter(|c| *c != ':').collect();
    let (hours, minutes) = match offset.len() {
        2 => (digits(&offset)?, 0),
        4 => (digits(offset.get(..2)?)?, digits(offset.get(2..)?)?),
        _ => return None,
    };
    let offset_s = sign * (hours * 3_600 + minutes * 60) as f64;
    (hours <= 18 && minutes <= 59).then_some((clock.trim_end(), Some(offset_s)))
}

fn digits(text: &str) -> Option<i64> {
    let all = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}

/// Days from 1970-01-01 to a date of the Gregorian calendar: years are counted from March, so that the leap day is the last
/// of its year.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    // 719,468 days lie between the first of March of the year 0 and 1970.
    Some(
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
            - 719_468,
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        let read = |text| seconds_since_1970(text).unwrap();
        assert_eq!(read("1970-01-01"), (0.0, false));
        assert_eq!(read("2000-02-29T00:00:00Z"), (951_782_400.0, true));
        assert_eq!(read("2024-05-01 12:00:00.250"), (1_714_564_800.25, false));
        assert_eq!(read("2024-05-01T14:00:00+02:00"), (1_714_564_800.0, true));
        assert_eq!(read("2024-05-01 07:30-0430"), (1_714_564_800.0, true));
        assert_eq!(read("2024/05/01 12:00:00 UTC"), (1_714_564_800.0, true));
    }

    #[test]
    fn what_is_no_date_is_none() {
        let texts = [
            "",
            "01/02/2024",
            "2024-13-01",
            "2023-02-29",
            "2024-05-01T25:00",
            "2024-05-01T12",
            "2024-05-01T12:00:00+",
            "2024-05-01T12:00:xx",
            "2024-05-01x",
            "ééééé",
            "2024-05-01T12:00:00:00",
            "20240501",
        ];
        for text in texts {
            assert_eq!(seconds_since_1970(text), None, "{text}");
        }
    }
}
