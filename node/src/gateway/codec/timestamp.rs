//! TIMESTAMP as text: microseconds since 1970 to and from the proleptic Gregorian calendar.

use super::text::put_unsigned;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// 2000-01-01, which PostgreSQL's binary format counts from, in microseconds since 1970.
pub(crate) const POSTGRES_EPOCH: i64 = 946_684_800 * MICROS_PER_SECOND;
/// The years that can be written: PostgreSQL's from 4713 BC, and as far as 64 bits of microseconds reach.
const YEARS: std::ops::RangeInclusive<i64> = -4712..=294_276;

/// Appends `2026-01-31 23:59:59.5`; fraction only if there is one, ` BC` before year 1.
pub(super) fn put(out: &mut Vec<u8>, micros: i64) {
    let (year, month, day) = date_of(micros.div_euclid(MICROS_PER_DAY));
    let of_day = micros.rem_euclid(MICROS_PER_DAY);
    let seconds = of_day / MICROS_PER_SECOND;
    let shown = if year > 0 { year } else { 1 - year };
    put_padded(out, shown as u64, 4);
    for (separator, number) in [
        (b'-', month),
        (b'-', day),
        (b' ', seconds / 3600),
        (b':', seconds / 60 % 60),
        (b':', seconds % 60),
    ] {
        out.push(separator);
        put_padded(out, number as u64, 2);
    }
    let mut fraction = (of_day % MICROS_PER_SECOND) as u64;
    if fraction > 0 {
        let mut width = 6;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        out.push(b'.');
        put_padded(out, fraction, width);
    }
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

fn put_padded(out: &mut Vec<u8>, number: u64, width: usize) {
    let digits = number.max(1).ilog10() as usize + 1;
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits)));
    put_unsigned(out, number);
}

/// Reads `2026-01-31`, `2026-01-31 23:59[:59[.5]]`, with `T` or a blank between, and a zone `Z`, `+01`, `+01:30`,
/// which is taken off. None: that is no timestamp, or out of range.
pub(super) fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("epoch") {
        return Some(0);
    }
    let (text, before_christ) = text.strip_suffix(" BC").map_or((text, false), |rest| (rest, true));
    let split = text.find([' ', 'T', 't']).unwrap_or(text.len());
    let (date, time) = text.split_at_checked(split)?;
    let days = parse_date(date, before_christ)?;
    let time = time.get(1..).unwrap_or("").trim();
    let of_day = if time.is_empty() { 0 } else { parse_time(time)? };
    days.checked_mul(MICROS_PER_DAY)?.checked_add(of_day)
}

fn parse_date(text: &str, before_christ: bool) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
    let year = if before_christ { 1 - year } else { year };
    if !YEARS.contains(&year) || (year == 0 && !before_christ) {
        return None;
    }
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    Some(days_of(year, month, day))
}

fn parse_time(text: &str) -> Option<i64> {
    let zone_at = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (clock, zone) = text.split_at_checked(zone_at)?;
    let mut parts = clock.trim().splitn(3, ':');
    let (hour, minute) = (number(parts.next()?)?, number(parts.next()?)?);
    let (second, fraction) = parts.next().map_or(Some((0, 0)), parse_seconds)?;
    let whole_day = hour == 24 && minute == 0 && second == 0 && fraction == 0;
    if (hour > 23 && !whole_day) || minute > 59 || second > 60 {
        return None;
    }
    let seconds = hour * 3600 + minute * 60 + second - parse_zone(zone)?;
    Some(seconds * MICROS_PER_SECOND + fraction)
}

fn parse_seconds(text: &str) -> Option<(i64, i64)> {
    let Some((whole, fraction)) = text.split_once('.') else {
        return Some((number(text)?, 0));
    };
    if fraction.is_empty() {
        return Some((number(whole)?, 0));
    }
    let kept = fraction.get(..fraction.len().min(6))?;
    let scale = 10i64.pow(6 - kept.len() as u32);
    number(
        fraction
            .get(kept.len()..)
            .filter(|rest| !rest.is_empty())
            .unwrap_or("0"),
    )?;
    Some((number(whole)?, number(kept)? * scale))
}

/// Seconds east of UTC.
fn parse_zone(text: &str) -> Option<i64> {
    if text.is_empty() || text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some((hours, minutes)) => (number(hours)?, number(minutes)?),
        None if digits.len() == 4 => (number(digits.get(..2)?)?, number(digits.get(2..)?)?),
        None => (number(digits)?, 0),
    };
    (hours <= 15 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

/// At most nine digits and nothing else.
fn number(text: &str) -> Option<i64> {
    let digits = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 (Howard Hinnant's `days_from_civil`).
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// (year, month, day) of days since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}
