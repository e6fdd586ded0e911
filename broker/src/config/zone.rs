//! The offset of this machine's time zone, which Celery's events carry. Reads what the C library reads: `TZ`, else
//! `/etc/localtime`.

use std::time::{SystemTime, UNIX_EPOCH};

/// Hours west of UTC right now, by the value of `TZ`; UTC if nothing can be read.
pub(super) fn hours_west_of_utc(zone: Option<&str>) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let read = |path: String| std::fs::read(path).ok().and_then(|file| from_file(&file, now));
    let seconds_east = match zone.filter(|zone| !zone.is_empty()).map(|zone| zone.trim_start_matches(':')) {
        None => read("/etc/localtime".to_owned()),
        Some(path) if path.starts_with('/') => read(path.to_owned()),
        // A name, or else a rule such as `CET-1CEST`.
        Some(name) => read(format!("/usr/share/zoneinfo/{name}")).or_else(|| from_rule(name)),
    };
    -f64::from(seconds_east.unwrap_or(0)) / 3600.0
}

/// Seconds east of UTC at `now` by a TZif file (RFC 9636), version 2 or later.
fn from_file(file: &[u8], now: i64) -> Option<i32> {
    let first = Header::read(file)?;
    let second = file.get(44 + first.body_size(4)..)?;
    let header = Header::read(second)?;
    let body = second.get(44..)?;
    let times = body.get(..header.times * 8)?;
    let kinds = body.get(times.len()..times.len() + header.times)?;
    let types = body.get(times.len() + kinds.len()..)?.get(..header.types * 6)?;
    let footer = second.get(44 + header.body_size(8)..)?;
    let passed =
        times.chunks_exact(8).take_while(|time| big_i64(time).is_some_and(|time| time <= now)).count();
    if passed == header.times
        && let Some(offset) = std::str::from_utf8(footer).ok().and_then(|rule| from_rule(rule.trim()))
        && (header.times == 0 || !footer.contains(&b','))
    {
        return Some(offset);
    }
    // Zones with summer time list its changes up to 2037; the last one that has passed holds.
    let kind = passed.checked_sub(1).and_then(|last| kinds.get(last)).copied().unwrap_or(0);
    big_i32(types.chunks_exact(6).nth(usize::from(kind))?.get(..4)?)
}

struct Header {
    flags_ut: usize,
    flags_std: usize,
    leaps: usize,
    times: usize,
    types: usize,
    chars: usize,
}

impl Header {
    fn read(file: &[u8]) -> Option<Self> {
        let counts = file.get(..44)?.strip_prefix(b"TZif")?.get(16..)?;
        let count = |index: usize| {
            let bytes = counts.get(index * 4..index * 4 + 4)?;
            usize::try_from(big_i32(bytes)?).ok()
        };
        Some(Self {
            flags_ut: count(0)?,
            flags_std: count(1)?,
            leaps: count(2)?,
            times: count(3)?,
            types: count(4)?,
            chars: count(5)?,
        })
    }

    fn body_size(&self, time: usize) -> usize {
        self.times * (time + 1)
            + self.types * 6
            + self.chars
            + self.leaps * (time + 4)
            + self.flags_std
            + self.flags_ut
    }
}

fn big_i32(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(bytes.try_into().ok()?))
}

fn big_i64(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(bytes.try_into().ok()?))
}

/// Seconds east of UTC of the standard time of a POSIX rule: `CET-1CEST,M3.5.0,M10.5.0/3`, `<+0530>-5:30`, `UTC0`.
fn from_rule(rule: &str) -> Option<i32> {
    let rest = match rule.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>')?.1,
        None => rule.trim_start_matches(|c: char| c.is_ascii_alphabetic()),
    };
    if rest.len() == rule.len() {
        return None;
    }
    let end = rest.find(|c: char| !(c.is_ascii_digit() || "+-:".contains(c))).unwrap_or(rest.len());
    let offset = rest.get(..end)?;
    let (sign, digits) = match offset.strip_prefix('-') {
        Some(digits) => (1, digits),
        None => (-1, offset.trim_start_matches('+')),
    };
    let mut seconds = 0;
    for (part, unit) in digits.split(':').zip([3600, 60, 1]) {
        seconds += part.parse::<i32>().ok().filter(|part| *part < 168)? * unit;
    }
    Some(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        for (rule, east) in [
            ("UTC0", Some(0)),
            ("CET-1CEST,M3.5.0,M10.5.0/3", Some(3_600)),
            ("EST5EDT,M3.2.0,M11.1.0", Some(-18_000)),
            ("<+0530>-5:30", Some(19_800)),
            ("Europe/Oslo", None),
            ("", None),
        ] {
            assert_eq!(from_rule(rule), east, "{rule}");
        }
    }

    /// A file as `zic` writes it: one change to summer time and one back.
    fn file() -> Vec<u8> {
        let header = |times: u32, types: u32, chars: u32| {
            let mut bytes = b"TZif2".to_vec();
            bytes.extend([0; 15]);
            for count in [0, 0, 0, times, types, chars] {
                bytes.extend(count.to_be_bytes());
            }
            bytes
        };
        let mut bytes = header(0, 0, 0);
        bytes.extend(header(2, 2, 8));
        bytes.extend(1_000_i64.to_be_bytes());
        bytes.extend(2_000_i64.to_be_bytes());
        bytes.extend([1, 0]);
        bytes.extend(3_600_i32.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(7_200_i32.to_be_bytes());
        bytes.extend([1, 4]);
        bytes.extend(b"CET\0EST\0\nCET-1CEST,M3.5.0,M10.5.0/3\n");
        bytes
    }

    #[test]
    fn files() {
        for (now, east) in [(0, 3_600), (1_500, 7_200), (2_500, 3_600)] {
            assert_eq!(from_file(&file(), now), Some(east), "at {now}");
        }
        assert_eq!(from_file(b"TZif", 0), None);
        assert_eq!(from_file(&file()[..100], 1_500), None);
    }
}
