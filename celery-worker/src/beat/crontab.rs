//! Celery's crontab: which minutes match, and the next one after a moment.
//!
//! The grammar is Celery's, not cron's: all of the day fields must match, 0 is Sunday and 7 is refused, ranges wrap
//! (`fri-mon`, `22-3`), `*/n` counts from the field's minimum. Matched against the wall clock of a time zone.

use std::fmt;
use std::time::SystemTime;

use celery_protocol::zone::Zone;

/// How far [`Crontab::next_after`] looks: 29 February falls out in 1900 and 2100, so eight years hold one.
const HORIZON_DAYS: i64 = 366 * 8 + 2;
const DAY: i64 = 86_400;

/// Five fields, each a set of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crontab {
    minute: Set,
    hour: Set,
    day_of_week: Set,
    day_of_month: Set,
    month_of_year: Set,
    text: String,
}

/// The fields of a crontab in Celery's keyword form; what is left out is `*`.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// 0–59.
    pub minute: Option<String>,
    /// 0–23.
    pub hour: Option<String>,
    /// 0–6, 0 is Sunday; names by their first three letters.
    pub day_of_week: Option<String>,
    /// 1–31.
    pub day_of_month: Option<String>,
    /// 1–12; names by their first three letters.
    pub month_of_year: Option<String>,
}

/// Why a crontab was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("crontab field {field} = {text:?}: {problem}")]
pub struct CrontabError {
    field: &'static str,
    text: String,
    problem: String,
}

impl Crontab {
    /// Reads the usual five-column form: minute, hour, day of month, month, day of week.
    ///
    /// # Errors
    /// Names the column that cannot be read, or says that no date matches.
    pub fn from_columns(text: &str) -> Result<Crontab, CrontabError> {
        let columns: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day_of_month, month_of_year, day_of_week] = columns[..] else {
            let problem = "expected five columns: minute hour day-of-month month day-of-week".to_owned();
            return Err(CrontabError { field: "all", text: text.to_owned(), problem });
        };
        let own = |text: &str| Some(text.to_owned());
        Crontab::from_fields(&Fields {
            minute: own(minute),
            hour: own(hour),
            day_of_week: own(day_of_week),
            day_of_month: own(day_of_month),
            month_of_year: own(month_of_year),
        })
    }

    /// Reads Celery's keyword form.
    ///
    /// # Errors
    /// Names the field that cannot be read, or says that no date matches.
    pub fn from_fields(fields: &Fields) -> Result<Crontab, CrontabError> {
        let read =
            |text: &Option<String>, field, first, last| {
                let text = text.as_deref().unwrap_or("*");
                Set::parse(text, first, last)
                    .map(|set| (set, text.to_owned()))
                    .map_err(|problem| CrontabError { field, text: text.to_owned(), problem })
            };
        let (minute, m) = read(&fields.minute, "minute", 0, 59)?;
        let (hour, h) = read(&fields.hour, "hour", 0, 23)?;
        let (day_of_week, dow) = read(&fields.day_of_week, "day_of_week", 0, 6)?;
        let (day_of_month, dom) = read(&fields.day_of_month, "day_of_month", 1, 31)?;
        let (month_of_year, moy) = read(&fields.month_of_year, "month_of_year", 1, 12)?;
        let text = format!("{m} {h} {dom} {moy} {dow}");
        let crontab = Crontab { minute, hour, day_of_week, day_of_month, month_of_year, text };
        if crontab.next_after(SystemTime::UNIX_EPOCH, &Zone::utc()).is_none() {
            let problem = "no date matches day_of_month, month_of_year and day_of_week together".to_owned();
            return Err(CrontabError { field: "all", text: crontab.text, problem });
        }
        Ok(crontab)
    }

    /// The first matching minute of the wall clock that begins after `after`. When the clock is put back, the minutes that
    /// come again are passed over, as in Celery; what falls into an hour that is skipped is due an hour later.
    pub fn next_after(&self, after: SystemTime, zone: &Zone) -> Option<SystemTime> {
        let from = (zone.wall(after).div_euclid(60) + 1) * 60;
        let first_day = from.div_euclid(DAY);
        let mut minute_of_day = u32::try_from(from.rem_euclid(DAY) / 60).ok()?;
        for day in first_day..first_day + HORIZON_DAYS {
            if self.day_matches(day)
                && let Some(minute) = self.first_minute_from(minute_of_day)
            {
                return zone.moment(day * DAY + i64::from(minute) * 60, after);
            }
            minute_of_day = 0;
        }
        None
    }

    fn day_matches(&self, day: i64) -> bool {
        let (_, month, day_of_month) = civil_from_days(day);
        let day_of_week = u32::try_from((day + 4).rem_euclid(7)).unwrap_or_default(); // 1970-01-01 was a Thursday
        self.month_of_year.has(month)
            && self.day_of_month.has(day_of_month)
            && self.day_of_week.has(day_of_week)
    }

    fn first_minute_from(&self, minute_of_day: u32) -> Option<u32> {
        (minute_of_day..24 * 60).find(|m| self.hour.has(m / 60) && self.minute.has(m % 60))
    }
}

impl fmt::Display for Crontab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A set of small numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set(u64);

impl Set {
    fn has(self, value: u32) -> bool {
        self.0 >> value & 1 == 1
    }

    fn parse(text: &str, first: u32, last: u32) -> Result<Set, String> {
        let mut bits = 0;
        for part in text.split(',') {
            for value in expand(part.trim(), first, last)? {
                bits |= 1 << value;
            }
        }
        Ok(Set(bits))
    }
}

/// The values of one element of a comma list, in order.
fn expand(part: &str, first: u32, last: u32) -> Result<Vec<u32>, String> {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => {
            let step = step
                .parse::<usize>()
                .ok()
                .filter(|step| *step > 0)
                .ok_or("the step must be a positive number")?;
            (range, Some(step))
        }
        None => (part, None),
    };
    let values: Vec<u32> = if range == "*" {
        (first..=last).collect()
    } else if let Some((from, to)) = range.split_once('-') {
        let (from, to) = (number(from, first, last)?, number(to, first, last)?);
        if from <= to { (from..=to).collect() } else { (from..=last).chain(first..=to).collect() }
    } else if step.is_some() {
        return Err("a step needs a range or * before it".to_owned());
    } else {
        vec![number(range, first, last)?]
    };
    Ok(values.into_iter().step_by(step.unwrap_or(1)).collect())
}

fn number(text: &str, first: u32, last: u32) -> Result<u32, String> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let position = |names: &[&str], offset| {
        let short: String = text.chars().take(3).flat_map(char::to_lowercase).collect();
        names
            .iter()
            .position(|name| *name == short)
            .and_then(|at| u32::try_from(at).ok())
            .map(|at| at + offset)
    };
    let value = match text.parse::<u32>() {
        Ok(value) => value,
        Err(_) => position(&MONTHS, 1)
            .or_else(|| position(&DAYS, 0))
            .ok_or_else(|| format!("{text:?} is neither a number nor a name"))?,
    };
    if !(first..=last).contains(&value) {
        return Err(format!("{value} is not within {first} to {last}"));
    }
    Ok(value)
}

/// Year, month and day of the day `days` after 1970-01-01 (Gregorian, years from March so that the leap day is last).
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u32::try_from(month).unwrap_or_default(), u32::try_from(day).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(days: u64, hour: u64, minute: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400 + hour * 3600 + minute * 60)
    }

    fn next(columns: &str, after: SystemTime) -> SystemTime {
        Crontab::from_columns(columns).unwrap().next_after(after, &Zone::utc()).unwrap()
    }

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        for (days, date) in
            [(0, (1970, 1, 1)), (59, (1970, 3, 1)), (11_016, (2000, 2, 29)), (20_781, (2026, 11, 24))]
        {
            assert_eq!(civil_from_days(days), date);
        }
    }

    #[test]
    fn the_next_run_follows_celerys_grammar() {
        let thursday = at(0, 0, 0);
        for (columns, expected) in [
            ("* * * * *", at(0, 0, 1)),
            ("*/15 * * * *", at(0, 0, 15)),
            ("30 4 * * *", at(0, 4, 30)),
            ("0 0 * * *", at(1, 0, 0)),
            ("0 0 * * sun", at(3, 0, 0)),
            ("0 0 * * fri-mon", at(1, 0, 0)),
            ("0 22-3 * * *", at(0, 1, 0)),
            ("0 12 */2 * *", at(0, 12, 0)),
            ("0 12 2-31/2 * *", at(1, 12, 0)),
            ("0 0 13 * fri", at(43, 0, 0)), // both day fields must match: Friday 13 February 1970
            ("0 0 29 feb *", at(789, 0, 0)), // 1972
            ("5,10 8 1 March,jun *", at(59, 8, 5)),
        ] {
            assert_eq!(next(columns, thursday), expected, "{columns}");
        }
    }

    #[test]
    fn the_minute_that_just_ran_is_not_next() {
        assert_eq!(next("30 4 * * *", at(0, 4, 30)), at(1, 4, 30));
        assert_eq!(next("30 4 * * *", at(0, 4, 30) - Duration::from_secs(1)), at(0, 4, 30));
    }

    #[test]
    fn what_celery_refuses_is_refused_with_the_field_named() {
        for (columns, field) in [
            ("60 * * * *", "minute"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day_of_month"),
            ("* * * 13 *", "month_of_year"),
            ("* * * * 7", "day_of_week"),
            ("*/0 * * * *", "minute"),
            ("5/2 * * * *", "minute"),
            ("-1 * * * *", "minute"),
            ("* * 31 feb *", "all"),
            ("* * * *", "all"),
        ] {
            assert_eq!(Crontab::from_columns(columns).unwrap_err().field, field, "{columns}");
        }
    }

    #[test]
    fn fields_expand_as_celerys_do() {
        // Celery ignores what follows a range; that is a mistake which nobody wants to be silent.
        const REFUSED_HERE: &[&str] = &["1-5-9"];
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/schedules.json")).unwrap();
        let bounds = |field: &str| match field {
            "minute" => (0, 59),
            "hour" => (0, 23),
            "day_of_week" => (0, 6),
            "day_of_month" => (1, 31),
            _ => (1, 12),
        };
        for (field, cases) in golden["fields"].as_object().unwrap() {
            let (first, last) = bounds(field);
            for (text, expected) in cases.as_object().unwrap() {
                let ours = Set::parse(text, first, last).ok().filter(|_| !REFUSED_HERE.contains(&&**text));
                let ours = ours.map(|set| (0..64).filter(|n| set.has(*n)).collect::<Vec<u32>>());
                let expected: Option<Vec<u32>> = serde_json::from_value(expected.clone()).unwrap();
                let expected = expected.filter(|_| !REFUSED_HERE.contains(&&**text));
                assert_eq!(ours, expected, "{field} {text:?}");
            }
        }
    }
}
