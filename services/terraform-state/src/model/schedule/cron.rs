//! Cron expressions in time zones: which instants they mean, also where clocks are put forward or back.
//!
//! A local time that the clock skips means the next instant after it; one that the clock shows twice, the first of the two.

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone},
};
use serde::Serialize;
use time::OffsetDateTime;

/// The most days that are looked through: a 29th of February comes at least every eight years.
const MOST_DAYS: i32 = 9 * 366;
const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A cron expression of five fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, diesel_derive_newtype::DieselNewType)]
#[serde(transparent)]
pub struct Cron(String);

/// An IANA time zone's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, diesel_derive_newtype::DieselNewType)]
#[serde(transparent)]
pub struct Zone(String);

impl Cron {
    /// What it must be.
    pub const RULE: &'static str = "must be five fields: minute, hour, day of the month, month, day of the week";

    /// The expression, if it is one.
    pub fn parse(text: &str) -> Option<Cron> {
        (text.len() <= 200 && Fields::parse(text).is_some()).then(|| Cron(text.to_owned()))
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> String {
        cron.0
    }
}

impl Zone {
    /// What it must be.
    pub const RULE: &'static str = "must be the IANA name of a time zone";

    /// The zone, if there is one of this name; UTC for none.
    pub fn parse(name: &str) -> Option<Zone> {
        let name = if name.is_empty() { "UTC" } else { name };
        let zone = TimeZone::get(name).ok().filter(|zone| !zone.is_unknown())?;
        Some(Zone(zone.iana_name()?.to_owned()))
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.0
    }
}

/// The first instant after another that an expression means in a time zone; `None` where there is none.
pub fn next(cron: &Cron, zone: &Zone, after: OffsetDateTime) -> Option<OffsetDateTime> {
    let fields = Fields::parse(&cron.0)?;
    let zone = TimeZone::get(&zone.0).ok()?;
    let after = Timestamp::from_second(after.unix_timestamp()).ok()?;
    let from = zone.to_datetime(after);
    let mut date = from.date();
    // The same clock time may come twice; the second time has been skipped once it is later than `after`.
    let mut earliest = i16::from(from.hour()) * 60 + i16::from(from.minute());
    for _ in 0..MOST_DAYS {
        if fields.has_day(date) {
            for minute in fields.minutes_of_day(earliest) {
                let (hour, minute) = (i8::try_from(minute / 60).ok()?, i8::try_from(minute % 60).ok()?);
                let at = instant(&zone, date.at(hour, minute, 0, 0))?;
                if at > after {
                    return OffsetDateTime::from_unix_timestamp(at.as_second()).ok();
                }
            }
        }
        date = date.tomorrow().ok()?;
        earliest = 0;
    }
    None
}

/// The first instant at which a zone's clocks show a time, or the next that they show where they skip it.
fn instant(zone: &TimeZone, local: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    let skipped = matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
    let at = ambiguous.compatible().ok()?;
    if !skipped {
        return Some(at);
    }
    // As late after the gap as it would be after its begin: the gap's end is the transition before it.
    let after = at.checked_add(1.second()).ok()?;
    zone.preceding(after).next().map(|transition| transition.timestamp())
}

/// Sets of numbers, a bit for each.
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether a day fits by either of its fields; otherwise it needs both.
    either: bool,
}

impl Fields {
    fn parse(text: &str) -> Option<Fields> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return None;
        };
        let either = !days.starts_with('*') && !weekdays.starts_with('*');
        let mut weekdays = field(weekdays, 0, 7, &WEEKDAYS, 0)?;
        if weekdays & 1 << 7 != 0 {
            weekdays |= 1;
        }
        Some(Fields {
            minutes: field(minutes, 0, 59, &[], 0)?,
            hours: field(hours, 0, 23, &[], 0)?,
            days: field(days, 1, 31, &[], 0)?,
            months: field(months, 1, 12, &MONTHS, 1)?,
            weekdays,
            either,
        })
    }

    fn has_day(&self, date: Date) -> bool {
        let has = |set: u64, number: i8| set & 1 << number != 0;
        let (day, weekday) = (
            has(self.days, date.day()),
            has(self.weekdays, date.weekday().to_sunday_zero_offset()),
        );
        let fits = if self.either { day || weekday } else { day && weekday };
        fits && has(self.months, date.month())
    }

    fn minutes_of_day(&self, earliest: i16) -> impl Iterator<Item = i16> {
        (earliest..24 * 60)
            .filter(|minute| self.hours & 1 << (minute / 60) != 0 && self.minutes & 1 << (minute % 60) != 0)
    }
}

/// The set that a field means; `names` stand for numbers from `first` on.
fn field(text: &str, least: u32, most: u32, names: &[&str], first: u32) -> Option<u64> {
    let number = |text: &str| {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let number = match named {
            Some(place) => first + u32::try_from(place).ok()?,
            None if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (least..=most).contains(&number).then_some(number)
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (
                range,
                Some(step.parse::<u32>().ok().filter(|step| (1..=most).contains(step))?),
            ),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((from, to)) => (number(from)?, number(to)?),
            // `5/10` is every tenth from the fifth on.
            None if step.is_some() => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return None;
        }
        let step = usize::try_from(step.unwrap_or(1)).ok()?;
        set |= (from..=to).step_by(step).fold(0, |set, number| set | 1 << number);
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The first times after one, in UTC.
    fn times(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(cron).unwrap();
        let zone = Zone::parse(zone).unwrap();
        let after: Timestamp = after.parse().unwrap();
        let mut at = OffsetDateTime::from_unix_timestamp(after.as_second()).unwrap();
        let mut times = Vec::new();
        for _ in 0..count {
            at = next(&cron, &zone, at).unwrap();
            times.push(Timestamp::from_second(at.unix_timestamp()).unwrap().to_string());
        }
        times
    }

    #[test]
    fn an_expression_means_its_minutes_hours_and_days() {
        for (cron, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            ("* * * * *", "2026-01-01T00:00:59Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:50:00Z", "2026-01-01T01:00:00Z"),
            ("5/20 3 * * *", "2026-01-01T03:05:00Z", "2026-01-01T03:25:00Z"),
            ("0-30/10,45 0 * * *", "2026-01-01T00:30:00Z", "2026-01-01T00:45:00Z"),
            ("0 6 * * MON-fri", "2026-01-02T06:00:00Z", "2026-01-05T06:00:00Z"),
            ("0 6 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T06:00:00Z"),
            ("0 0 31 * *", "2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z"),
            ("0 0 29 feb *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"),
            // Either of two days will do, and both where one is a star.
            ("0 0 13 * fri", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 */2 * fri", "2026-01-01T00:00:00Z", "2026-01-09T00:00:00Z"),
        ] {
            assert_eq!(times(cron, "", after, 1), [expected], "{cron}");
        }
        let never = Cron::parse("0 0 30 2 *").unwrap();
        assert_eq!(
            next(&never, &Zone::parse("").unwrap(), OffsetDateTime::UNIX_EPOCH),
            None
        );
    }

    #[test]
    fn what_is_no_expression_or_zone_is_refused() {
        for cron in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "@daily",
            "-1 * * * *",
            "1, * * * *",
            "+1 * * * *",
            "1-2-3 * * * *",
            "* * * * mo",
        ] {
            assert_eq!(Cron::parse(cron), None, "{cron}");
        }
        for zone in ["Berlin", "CEST+2", "../etc/passwd", "Etc/Unknown"] {
            assert_eq!(Zone::parse(zone), None, "{zone}");
        }
        assert_eq!(String::from(Zone::parse("europe/berlin").unwrap()), "Europe/Berlin");
    }

    #[test]
    fn a_local_time_that_is_skipped_is_due_at_the_next_that_is_shown() {
        // On 29 March 2026, 02:00 to 03:00 is skipped: 03:00 is 01:00 UTC.
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        // Times that meet there are due once.
        assert_eq!(
            times("*/20 * * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", 3),
            ["2026-03-29T00:40:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:20:00Z"]
        );
        // Half an hour is skipped here: 02:00 to 02:30 on 4 October 2026, 02:30 is 15:30 UTC the day before.
        assert_eq!(
            times("10 2 * * *", "Australia/Lord_Howe", "2026-10-02T16:00:00Z", 2),
            ["2026-10-03T15:30:00Z", "2026-10-04T15:10:00Z"]
        );
    }

    #[test]
    fn a_local_time_that_is_shown_twice_is_due_the_first_time_only() {
        // On 25 October 2026, 02:00 to 03:00 is shown twice, from 00:00 and from 01:00 UTC.
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", 3),
            ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z"]
        );
        // Asked between the two.
        assert_eq!(
            times("45 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1),
            ["2026-10-26T01:45:00Z"]
        );
    }
}
