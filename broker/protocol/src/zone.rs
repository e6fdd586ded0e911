//! Time zones for schedules: what a wall clock shows at a moment, and when it shows something.
//!
//! The zones' rules are compiled in, so that every machine has the same.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};

/// A time zone.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

/// A name that no time zone has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time zone; names are those of the IANA database, such as `Europe/Berlin` or `UTC`")]
pub struct ZoneError(String);

impl Zone {
    /// Universal time.
    #[must_use]
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }

    /// The zone of this name in the IANA database.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(name: &str) -> Result<Self, ZoneError> {
        if name.eq_ignore_ascii_case("utc") {
            return Ok(Self::utc());
        }
        match TimeZoneDatabase::bundled().get(name) {
            Ok(rules) => Ok(Self { name: name.to_owned(), rules }),
            Err(_) => Err(ZoneError(name.chars().take(64).collect())),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a wall clock shows, as seconds from the first of January 1970 on the same wall; fractions are cut off.
    #[must_use]
    pub fn wall(&self, at: SystemTime) -> i64 {
        let seconds = match at.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
        };
        let offset =
            Timestamp::from_second(seconds).map_or(0, |moment| self.rules.to_offset(moment).seconds());
        seconds.saturating_add(i64::from(offset))
    }

    /// When the wall clock shows this, after `after`. A time that a clock skips when it is put forward counts from before
    /// the change (02:30 becomes 03:30); of a time that comes twice it is the first that is after `after`.
    #[must_use]
    pub fn moment(&self, wall: i64, after: SystemTime) -> Option<SystemTime> {
        let civil = Offset::UTC.to_datetime(Timestamp::from_second(wall).ok()?);
        let moments = self.rules.to_ambiguous_timestamp(civil);
        let first = system_time(moments.compatible().ok()?)?;
        if first > after {
            return Some(first);
        }
        system_time(moments.later().ok()?).filter(|second| *second > after)
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(name: &str) -> Result<Self, ZoneError> {
        Self::parse(name)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.name).finish()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn system_time(moment: Timestamp) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(moment.as_second()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// 2026-03-29 00:00 and 2026-10-25 00:00 in UTC.
    const SPRING: u64 = 1_774_742_400;
    const AUTUMN: u64 = 1_792_886_400;
    const HALF: u64 = 1_800;

    #[test]
    fn a_wall_clock_is_put_forward_and_back() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        let wall = |at: u64| (berlin.wall(utc(at)) - i64::try_from(at).unwrap()) / 3_600;
        assert_eq!([wall(SPRING), wall(SPRING + 3_600)], [1, 2]);
        assert_eq!([wall(AUTUMN), wall(AUTUMN + 3_600)], [2, 1]);
        // 02:30 does not exist in spring: half an hour after 03:00.
        let two_thirty = i64::try_from(SPRING + 5 * HALF).unwrap();
        assert_eq!(berlin.moment(two_thirty, utc(SPRING)), Some(utc(SPRING + 3 * HALF)));
        // In autumn it comes twice.
        let two_thirty = i64::try_from(AUTUMN + 5 * HALF).unwrap();
        let (first, second) = (utc(AUTUMN + HALF), utc(AUTUMN + 3 * HALF));
        assert_eq!(berlin.moment(two_thirty, utc(AUTUMN)), Some(first));
        assert_eq!(berlin.moment(two_thirty, first), Some(second));
        assert_eq!(berlin.moment(two_thirty, second), None);
    }

    #[test]
    fn names_are_those_of_the_database() {
        for name in ["UTC", "utc", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"] {
            assert!(Zone::parse(name).is_ok(), "{name}");
        }
        for name in ["", "Berlin", "Mars/Olympus", "+01:00"] {
            assert!(Zone::parse(name).unwrap_err().to_string().contains("IANA"), "{name}");
        }
    }
}
