//! Moments as Celery writes them: Python's `isoformat()` out, what `dateutil`'s `isoparse` takes in.
//!
//! A text without offset means UTC, as it does to Celery's readers. A [`WireTime`] remembers how its offset was
//! written, so that a message passed on says the same as the message received.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::{
    SignedDuration,
    civil::{Date, DateTime, ISOWeekDate, Time, Weekday},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
/// 0001-01-01T00:00:00 and 9999-12-31T23:59:59.999999, Python's `datetime.min` and `datetime.max`.
const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// A moment with microseconds, in the years 1 to 9999. Compares as an instant, whatever offset it was written with.
#[derive(Clone, Copy)]
pub struct WireTime {
    micros: i64,
    offset: Offset,
}

/// How the offset of a moment is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offset {
    /// Not at all; readers take it as UTC.
    Naive,
    /// Minutes east of UTC; `Z` is read as 0 and written as `+00:00`.
    East(i16),
}

/// `YYYY-MM-DDTHH:MM:SS.ffffff+HH:MM`, the longest form, has 32 characters.
pub(crate) struct Text {
    bytes: [u8; 32],
    len: usize,
}

impl Text {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn digits(&mut self, mut number: u32, count: usize) {
        for place in self.bytes[self.len..self.len + count].iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.len += count;
    }
}

/// A text that is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an ISO 8601 time: {0:?}")]
pub struct TimeError(String);

impl WireTime {
    /// The moment `micros` microseconds after 1970 in UTC, if it is within the years 1 to 9999.
    pub fn from_unix_micros(micros: i64) -> Option<Self> {
        RANGE.contains(&micros).then_some(Self { micros, offset: Offset::East(0) })
    }

    /// The moment `seconds` after 1970 in UTC, rounded to microseconds, if it is within the years 1 to 9999.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float-to-int cast saturates, and the range is checked"
    )]
    pub fn from_unix_seconds(seconds: f64) -> Option<Self> {
        if seconds.is_nan() { None } else { Self::from_unix_micros((seconds * 1e6).round() as i64) }
    }

    /// Microseconds since 1970.
    pub fn unix_micros(self) -> i64 {
        self.micros
    }

    /// Seconds since 1970.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of the years 1 to 9999 lose at most 32 µs")]
    pub fn unix_seconds(self) -> f64 {
        self.micros as f64 / 1e6
    }

    /// This moment in UTC, written with the offset `+00:00`.
    #[must_use]
    pub fn in_utc(self) -> Self {
        Self { micros: self.micros, offset: Offset::East(0) }
    }

    /// The moment `duration` later, or `None` beyond the year 9999.
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        let micros = self.micros.checked_add(i64::try_from(duration.as_micros()).ok()?)?;
        RANGE.contains(&micros).then_some(Self { micros, offset: self.offset })
    }

    /// How long it is from `earlier` to this moment; `None` if this moment is not after `earlier`.
    pub fn duration_since(self, earlier: Self) -> Option<Duration> {
        u64::try_from(self.micros.checked_sub(earlier.micros)?).ok().map(Duration::from_micros)
    }

    /// What Python's `datetime.isoformat()` gives for this moment.
    pub fn isoformat(self) -> String {
        self.to_string()
    }

    /// The text of [`isoformat`](Self::isoformat), without allocating.
    pub(crate) fn text(self) -> Text {
        let civil = self.civil();
        let (date, time) = (civil.date(), civil.time());
        let mut text = Text { bytes: [0; 32], len: 0 };
        text.digits(date.year().unsigned_abs().into(), 4);
        for (separator, part) in [
            (b'-', date.month()),
            (b'-', date.day()),
            (b'T', time.hour()),
            (b':', time.minute()),
            (b':', time.second()),
        ] {
            text.push(separator);
            text.digits(part.unsigned_abs().into(), 2);
        }
        let micros = time.subsec_nanosecond().unsigned_abs() / 1000;
        if micros != 0 {
            text.push(b'.');
            text.digits(micros, 6);
        }
        if let Offset::East(minutes) = self.offset {
            let east = u32::from(minutes.unsigned_abs());
            text.push(if minutes < 0 { b'-' } else { b'+' });
            text.digits(east / 60, 2);
            text.push(b':');
            text.digits(east % 60, 2);
        }
        text
    }

    /// Reads what Celery reads as `eta` or `expires`: any form that `dateutil.parser.isoparse` takes, and a space for `T`.
    ///
    /// # Errors
    /// The text is in no such form, or outside the years 1 to 9999.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        parse(text).ok_or_else(|| TimeError(text.chars().take(64).collect()))
    }

    fn civil(self) -> DateTime {
        let east = match self.offset {
            Offset::Naive => 0,
            Offset::East(minutes) => i64::from(minutes),
        };
        let local = self.micros + east * 60_000_000;
        // jiff's civil range reaches far beyond the one kept here, so the saturation never happens
        EPOCH.saturating_add(SignedDuration::from_micros(local))
    }

    fn from_civil(local: DateTime, offset: Offset) -> Option<Self> {
        let east = match offset {
            Offset::Naive => 0,
            Offset::East(minutes) => i64::from(minutes),
        };
        let micros = i64::try_from(local.duration_since(EPOCH).as_micros()).ok()? - east * 60_000_000;
        RANGE.contains(&micros).then_some(Self { micros, offset })
    }
}

impl fmt::Display for WireTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(self.text().as_slice()).unwrap_or_default())
    }
}

impl fmt::Debug for WireTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireTime({self})")
    }
}

impl PartialEq for WireTime {
    fn eq(&self, other: &Self) -> bool {
        self.micros == other.micros
    }
}

impl Eq for WireTime {}

impl PartialOrd for WireTime {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for WireTime {
    fn cmp(&self, other: &Self) -> Ordering {
        self.micros.cmp(&other.micros)
    }
}

impl Hash for WireTime {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.micros.hash(state);
    }
}

impl From<SystemTime> for WireTime {
    /// Saturates at the years 1 and 9999.
    fn from(time: SystemTime) -> Self {
        let micros = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        };
        Self { micros: micros.clamp(*RANGE.start(), *RANGE.end()), offset: Offset::East(0) }
    }
}

impl From<WireTime> for SystemTime {
    fn from(time: WireTime) -> Self {
        let distance = Duration::from_micros(time.micros.unsigned_abs());
        if time.micros < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
    }
}

impl FromStr for WireTime {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        Self::parse(text)
    }
}

impl Serialize for WireTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WireTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

fn parse(text: &str) -> Option<WireTime> {
    let mut rest = Digits(text.as_bytes());
    let date = parse_date(&mut rest)?;
    if rest.0.is_empty() {
        return WireTime::from_civil(date.at(0, 0, 0, 0), Offset::Naive);
    }
    let _separator = rest.byte()?;
    let (mut date, time) = match parse_time(&mut rest)? {
        Some(time) => (date, time),
        None => (date.tomorrow().ok()?, Time::midnight()),
    };
    if date.year() > 9999 {
        return None;
    }
    let offset = parse_offset(&mut rest)?;
    if !rest.0.is_empty() {
        return None;
    }
    date = Date::new(date.year(), date.month(), date.day()).ok()?;
    WireTime::from_civil(DateTime::from_parts(date, time), offset)
}

/// `YYYY`, `YYYY-MM`, `YYYY-MM-DD`, `YYYYMMDD`, `YYYY-Www[-D]`, `YYYYWww[D]`, `YYYY-DDD`, `YYYYDDD`.
fn parse_date(rest: &mut Digits<'_>) -> Option<Date> {
    let year = i16::try_from(rest.number(4)?).ok()?;
    if year == 0 {
        return None;
    }
    let dashed = rest.skip(b'-');
    if rest.skip(b'W') {
        let week = i8::try_from(rest.number(2)?).ok()?;
        let day = match rest.0.first() {
            Some(b'-') if dashed => {
                rest.skip(b'-');
                rest.number(1)?
            }
            Some(digit) if !dashed && digit.is_ascii_digit() => rest.number(1)?,
            _ => 1,
        };
        let weekday = Weekday::from_monday_one_offset(i8::try_from(day).ok()?).ok()?;
        return ISOWeekDate::new(year, week, weekday).ok().map(ISOWeekDate::date);
    }
    let digits = rest.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match (dashed, digits) {
        (true, 2) => {
            let month = i8::try_from(rest.number(2)?).ok()?;
            let day = if rest.skip(b'-') { i8::try_from(rest.number(2)?).ok()? } else { 1 };
            Date::new(year, month, day).ok()
        }
        (false, 4) => {
            let (month, day) = (rest.number(2)?, rest.number(2)?);
            Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
        }
        (_, 3) => {
            let day = i16::try_from(rest.number(3)?).ok()?;
            Date::new(year, 1, 1).ok()?.with().day_of_year(day).build().ok()
        }
        (false, 0) => Date::new(year, 1, 1).ok(),
        _ => None,
    }
}

/// `HH`, `HH:MM[:SS[.ffffff]]`, `HHMM[SS[.ffffff]]`; the inner `None` is 24:00, the start of the next day.
fn parse_time(rest: &mut Digits<'_>) -> Option<Option<Time>> {
    let hour = rest.number(2)?;
    let colon = rest.0.first() == Some(&b':');
    let mut parts = [0_u32; 2];
    let mut nanos = 0;
    for (index, part) in parts.iter_mut().enumerate() {
        let more = if colon { rest.skip(b':') } else { rest.0.first().is_some_and(u8::is_ascii_digit) };
        if !more {
            break;
        }
        *part = rest.number(2)?;
        // only seconds have a fraction
        if index == 1 && matches!(rest.0.first(), Some(b'.' | b',')) {
            rest.byte()?;
            nanos = rest.fraction()?;
        }
    }
    let [minute, second] = parts;
    if hour == 24 {
        return (minute == 0 && second == 0 && nanos == 0).then_some(None);
    }
    let small = |number: u32| i8::try_from(number).ok();
    Time::new(small(hour)?, small(minute)?, small(second)?, nanos).ok().map(Some)
}

/// Nothing, `Z`, or `±HH[[:]MM]`.
fn parse_offset(rest: &mut Digits<'_>) -> Option<Offset> {
    let sign = match rest.0.first() {
        None => return Some(Offset::Naive),
        Some(b'Z' | b'z') => {
            rest.byte()?;
            return Some(Offset::East(0));
        }
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(_) => return None,
    };
    rest.byte()?;
    let hours = rest.number(2)?;
    rest.skip(b':');
    let minutes = if rest.0.is_empty() { 0 } else { rest.number(2)? };
    if hours > 23 || minutes > 59 {
        return None;
    }
    i16::try_from(hours * 60 + minutes).ok().map(|minutes| Offset::East(sign * minutes))
}

/// What is left to read.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn number(&mut self, digits: usize) -> Option<u32> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        number
            .iter()
            .try_fold(0_u32, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
    }

    /// Nanoseconds from one or more digits; those beyond the sixth are cut off as Python does.
    fn fraction(&mut self) -> Option<i32> {
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (fraction, rest) = self.0.split_at(digits);
        self.0 = rest;
        let micros = fraction
            .iter()
            .chain([b'0'; 6].iter())
            .take(6)
            .fold(0_i32, |sum, byte| sum * 10 + i32::from(byte - b'0'));
        (digits > 0).then_some(micros * 1000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros(text: &str) -> Option<i64> {
        WireTime::parse(text).ok().map(WireTime::unix_micros)
    }

    #[test]
    fn written_as_python_writes_it() {
        for text in [
            "2026-11-24T02:15:46.588462+00:00",
            "2030-01-02T03:04:05",
            "2030-01-02T03:04:05+05:30",
            "2030-01-02T03:04:05.000001-03:30",
            "0001-01-01T00:00:00",
            "9999-12-31T23:59:59.999999+00:00",
        ] {
            assert_eq!(WireTime::parse(text).unwrap().isoformat(), text);
        }
        assert_eq!(WireTime::parse("2030-01-02T03:04:05Z").unwrap().isoformat(), "2030-01-02T03:04:05+00:00");
    }

    #[test]
    fn accepts_what_celery_accepts() {
        let same = micros("2026-01-02T03:04:05+00:00");
        assert!(same.is_some());
        for text in [
            "2026-01-02T03:04:05",
            "2026-01-02 03:04:05Z",
            "20260102T030405",
            "2026-01-02T04:04:05+0100",
            "2026-01-02T04:04:05+01",
            "2026-002T03:04:05",
            "2026-W01-5T03:04:05",
            "2026W015T030405",
            "2026-01-02T03:04:05,000000",
            "2026-01-02T03:04:05.0000009",
        ] {
            assert_eq!(micros(text), same, "{text}");
        }
        assert_eq!(micros("2026-01-01T24:00"), micros("2026-01-02"));
        assert_eq!(micros("2026"), micros("2026-01-01T00:00:00"));
        assert_eq!(micros("2026-02"), micros("2026-02-01T00:00:00"));
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "garbage",
            "0",
            "0000-01-01",
            "2026-13-01",
            "2026-02-30",
            "2026-01-02T",
            "2026-01-02T25:00",
            "2026-01-02T23:59:60",
            "2026-01-02T03:04:05+24:00",
            "2026-01-02T03:04:05.",
            "2026-01-02T03:04:05 x",
            "10000-01-01",
            "2026-W54-1",
            "+2026-01-02",
            "9999-12-31T24:00",
            "0001-01-01T00:00:00+01:00",
            "٢٠٢٦-01-02",
        ] {
            assert_eq!(micros(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(micros in RANGE) {
            let time = WireTime::from_unix_micros(micros).unwrap();
            let read = WireTime::parse(&time.isoformat()).unwrap();
            prop_assert_eq!(read, time);
            prop_assert_eq!(read.isoformat(), time.isoformat());
            prop_assert_eq!(WireTime::from(SystemTime::from(time)), time);
        }

        #[test]
        fn offsets_round_trip(micros in -60_000_000_000_000_000_i64..250_000_000_000_000_000, minutes in -1439_i16..1440) {
            let time = WireTime { micros, offset: Offset::East(minutes) };
            let read = WireTime::parse(&time.isoformat()).unwrap();
            prop_assert_eq!(read.isoformat(), time.isoformat());
            prop_assert_eq!(read, time);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = WireTime::parse(&text);
        }
    }
}
