//! Events of the sun as seen from a place: Celery's `solar` schedules. Pure; the sun's place is computed by Jean Meeus,
//! *Astronomical Algorithms*, chapters 12, 13, 22 and 25.
//!
//! Celery asks PyEphem. What counts is the same: no refraction, sunrise and sunset when the upper limb is 34' below the
//! horizon, dawn and dusk when the centre is 6, 12 or 18 degrees below it, and an event that does not happen on a day (a polar
//! night has no sunrise) waits for the day on which it does.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far an event is searched for: each that there is comes once a year.
const SEARCH: f64 = 366.0;
/// Noon of the first of January 2000 in days since 1970.
const J2000: f64 = 10_957.5;
/// The earth's clock runs behind the planets' by about so much, in days.
const DELTA_T: f64 = 70.0 / 86_400.0;
/// The sun is so much lower seen from the ground than from the earth's centre, in degrees at the horizon.
const PARALLAX: f64 = 8.794 / 3_600.0;
/// Half the sun's width at its mean distance, in degrees.
const RADIUS: f64 = 959.63 / 3_600.0;
/// An event so soon after the last run is that run.
const SAME: Duration = Duration::from_secs(1);

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The sun's centre rises through 18 degrees below the horizon.
    DawnAstronomical,
    /// Through 12 degrees.
    DawnNautical,
    /// Through 6 degrees.
    DawnCivil,
    /// Its upper limb rises.
    Sunrise,
    /// It is in the south, or north.
    SolarNoon,
    /// Its upper limb sets.
    Sunset,
    /// Its centre sets through 6 degrees below the horizon.
    DuskCivil,
    /// Through 12 degrees.
    DuskNautical,
    /// Through 18 degrees.
    DuskAstronomical,
}

/// Celery's words for them.
const EVENTS: [(&str, Event); 9] = [
    ("dawn_astronomical", Event::DawnAstronomical),
    ("dawn_nautical", Event::DawnNautical),
    ("dawn_civil", Event::DawnCivil),
    ("sunrise", Event::Sunrise),
    ("solar_noon", Event::SolarNoon),
    ("sunset", Event::Sunset),
    ("dusk_civil", Event::DuskCivil),
    ("dusk_nautical", Event::DuskNautical),
    ("dusk_astronomical", Event::DuskAstronomical),
];

/// An event at a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Solar {
    event: Event,
    latitude: f64,
    longitude: f64,
}

/// Why an event was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SolarError {
    /// Celery has no such event.
    #[error("solar: there is no event {0:?}; there are {known}", known = known())]
    Event(String),
    /// No such place.
    #[error("lat: {0} is no latitude; it is from -90 (south) to 90 (north)")]
    Latitude(f64),
    /// No such place.
    #[error("lon: {0} is no longitude; it is from -180 (west) to 180 (east)")]
    Longitude(f64),
}

impl FromStr for Event {
    type Err = SolarError;

    fn from_str(word: &str) -> Result<Self, SolarError> {
        let found = EVENTS.iter().find(|(known, _)| *known == word);
        found.map(|(_, event)| *event).ok_or_else(|| SolarError::Event(word.chars().take(64).collect()))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = EVENTS.iter().find(|(_, event)| event == self).map_or("", |(word, _)| word);
        f.write_str(word)
    }
}

impl Solar {
    /// An event at this latitude (north is positive) and longitude (east is positive), in degrees.
    ///
    /// # Errors
    /// There is no such place.
    pub fn new(event: Event, latitude: f64, longitude: f64) -> Result<Solar, SolarError> {
        if !(-90.0..=90.0).contains(&latitude) {
            return Err(SolarError::Latitude(latitude));
        }
        if !(-180.0..=180.0).contains(&longitude) {
            return Err(SolarError::Longitude(longitude));
        }
        Ok(Solar { event, latitude, longitude })
    }

    /// The first time after `last_run` at which it happens; `None` if that is not within a year.
    pub fn next_after(&self, last_run: SystemTime) -> Option<SystemTime> {
        let start = days(last_run);
        let found = self.search(start)?;
        if found > last_run + SAME { Some(found) } else { self.search(start + 1.0 / 24.0) }
    }

    fn search(&self, start: f64) -> Option<SystemTime> {
        let day = match self.event {
            Event::SolarNoon => self.turn(start, 0.0),
            _ => self.crossing(start)?,
        };
        moment(day)
    }

    /// When the sun next goes through the height that counts. Between its highest and its lowest point of a day it goes
    /// through it once or never.
    fn crossing(&self, start: f64) -> Option<f64> {
        let rising = match self.event {
            Event::DawnAstronomical | Event::DawnNautical | Event::DawnCivil | Event::Sunrise => 1.0,
            _ => -1.0,
        };
        let above = |day: f64| rising * self.height(day);
        let (mut from, end) = (start, start + SEARCH);
        while from < end {
            // A little beyond, so that the next step does not find the same point.
            let to = self.turn(from, 0.0).min(self.turn(from, 180.0)) + 1e-6;
            if above(from) < 0.0 && above(to) >= 0.0 {
                return Some(bisect(above, from, to));
            }
            from = to;
        }
        None
    }

    /// When the sun's hour angle is next this: 0 when it is highest, 180 when it is lowest.
    fn turn(&self, start: f64, angle: f64) -> f64 {
        let mut day = start + (angle - self.hour_angle(start)).rem_euclid(360.0) / 360.0;
        for _ in 0..4 {
            day += half_turn(angle - self.hour_angle(day)) / 360.0;
        }
        // By the equation of time the first guess may be half a minute off, to either side.
        if day <= start { self.turn(start + 0.01, angle) } else { day }
    }

    fn hour_angle(&self, day: f64) -> f64 {
        let sun = Sun::at(day);
        half_turn(sun.sidereal + self.longitude - sun.ascension)
    }

    /// How high the sun is above the height that counts, in degrees.
    fn height(&self, day: f64) -> f64 {
        let sun = Sun::at(day);
        let angle = (sun.sidereal + self.longitude - sun.ascension).to_radians();
        let (latitude, declination) = (self.latitude.to_radians(), sun.declination.to_radians());
        let sine = latitude.sin() * declination.sin() + latitude.cos() * declination.cos() * angle.cos();
        let altitude = sine.clamp(-1.0, 1.0).asin();
        let seen = altitude.to_degrees() - PARALLAX * altitude.cos();
        match self.event {
            Event::Sunrise | Event::Sunset => seen + RADIUS / sun.distance + 34.0 / 60.0,
            Event::DawnCivil | Event::DuskCivil => seen + 6.0,
            Event::DawnNautical | Event::DuskNautical => seen + 12.0,
            Event::DawnAstronomical | Event::DuskAstronomical => seen + 18.0,
            Event::SolarNoon => seen,
        }
    }
}

/// Where the sun is seen from the earth's centre, in degrees.
struct Sun {
    ascension: f64,
    declination: f64,
    /// In astronomical units.
    distance: f64,
    /// Apparent sidereal time at Greenwich.
    sidereal: f64,
}

impl Sun {
    /// `day` in days since 1970.
    fn at(day: f64) -> Sun {
        let universal = day - J2000;
        let t = (universal + DELTA_T) / 36_525.0;
        let mean_longitude = 280.466_46 + t * (36_000.769_83 + t * 0.000_303_2);
        let anomaly = (357.529_11 + t * (35_999.050_29 - t * 0.000_153_7)).to_radians();
        let eccentricity = 0.016_708_634 - t * (0.000_042_037 + t * 0.000_000_126_7);
        let centre = (1.914_602 - t * (0.004_817 + t * 0.000_014)) * anomaly.sin()
            + (0.019_993 - t * 0.000_101) * (2.0 * anomaly).sin()
            + 0.000_289 * (3.0 * anomaly).sin();
        let true_anomaly = anomaly + centre.to_radians();
        let distance =
            1.000_001_018 * (1.0 - eccentricity * eccentricity) / (1.0 + eccentricity * true_anomaly.cos());
        let node = (125.044_52 - t * 1_934.136_261).to_radians();
        let twice_sun = (2.0 * mean_longitude).to_radians();
        let twice_moon = (2.0 * (218.316_5 + t * 481_267.881_3)).to_radians();
        let nutation = (-17.20 * node.sin() - 1.32 * twice_sun.sin() - 0.23 * twice_moon.sin()
            + 0.21 * (2.0 * node).sin())
            / 3_600.0;
        let tilting = (9.20 * node.cos() + 0.57 * twice_sun.cos() + 0.10 * twice_moon.cos()
            - 0.09 * (2.0 * node).cos())
            / 3_600.0;
        let aberration = 20.4898 / 3_600.0 / distance;
        let longitude = (mean_longitude + centre + nutation - aberration).to_radians();
        let obliquity = 23.439_291_1 - t * (0.013_004_2 + t * 0.000_000_16) + tilting;
        let tilt = obliquity.to_radians();
        let greenwich = 280.460_618_37 + 360.985_647_366_29 * universal + t * t * 0.000_387_933;
        Sun {
            ascension: (tilt.cos() * longitude.sin()).atan2(longitude.cos()).to_degrees(),
            declination: (tilt.sin() * longitude.sin()).asin().to_degrees(),
            distance,
            sidereal: greenwich + nutation * tilt.cos(),
        }
    }
}

/// Where a function that is below 0 at `low` and not at `high` reaches it, to a ten-thousandth of a second.
fn bisect(function: impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> f64 {
    while high - low > 1e-9 {
        let middle = low + (high - low) / 2.0;
        if function(middle) < 0.0 { low = middle } else { high = middle }
    }
    high
}

/// An angle as one from -180 to 180.
fn half_turn(degrees: f64) -> f64 {
    (degrees + 180.0).rem_euclid(360.0) - 180.0
}

/// Days since 1970.
fn days(time: SystemTime) -> f64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64() / 86_400.0,
        Err(before) => -before.duration().as_secs_f64() / 86_400.0,
    }
}

fn moment(day: f64) -> Option<SystemTime> {
    let since = Duration::try_from_secs_f64((day * 86_400_000.0).round() / 1_000.0).ok()?;
    UNIX_EPOCH.checked_add(since)
}

fn known() -> String {
    EVENTS.map(|(word, _)| word).join(", ")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Case {
        event: String,
        lat: f64,
        lon: f64,
        runs: Vec<(f64, f64)>,
    }

    fn at(seconds: f64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn events_are_when_celerys_are() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../tests/golden/solar.json")).unwrap();
        let mut off = Vec::new();
        for case in &cases {
            let solar = Solar::new(case.event.parse().unwrap(), case.lat, case.lon).unwrap();
            for (last, expected) in &case.runs {
                let next = solar.next_after(at(*last)).unwrap();
                let error = (next.duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - expected).abs();
                // On the first day after a polar night the sun only grazes its height: a hundredth of a degree is a minute.
                assert!(error < 120.0, "{error} s off, after {last}: {case:?}");
                off.push(error);
            }
        }
        off.sort_by(f64::total_cmp);
        assert!(off[off.len() * 95 / 100] < 10.0, "{off:?}");
        assert!(off[off.len() / 2] < 2.0, "{off:?}");
    }

    #[test]
    fn each_event_happens_once_a_day_and_is_not_found_again() {
        let mut last = at(1_700_000_000.0);
        let sunset = Solar::new(Event::Sunset, 52.52, 13.405).unwrap();
        for _ in 0..800 {
            let next = sunset.next_after(last).unwrap();
            let pause = next.duration_since(last).unwrap().as_secs_f64() / 3_600.0;
            assert!(last == at(1_700_000_000.0) || (23.5..24.5).contains(&pause), "{pause} h");
            last = next;
        }
    }

    #[test]
    fn what_never_happens_is_not_waited_for() {
        // On the equator no night is without dawn, and at the pole the sun rises once a year.
        let pole = Solar::new(Event::Sunrise, 90.0, 0.0).unwrap();
        let first = pole.next_after(at(1_700_000_000.0)).unwrap();
        let second = pole.next_after(first).unwrap();
        let days = second.duration_since(first).unwrap().as_secs_f64() / 86_400.0;
        assert!((364.0..367.0).contains(&days), "{days}");
    }

    #[test]
    fn mistakes_are_refused_with_a_remedy() {
        let error = "sunries".parse::<Event>().unwrap_err().to_string();
        assert!(error.contains("\"sunries\"") && error.contains("sunrise, solar_noon"), "{error}");
        for (event, word) in EVENTS.map(|(word, event)| (event, word)) {
            assert_eq!(event.to_string(), word);
        }
        let place = |lat, lon| Solar::new(Event::Sunset, lat, lon).unwrap_err().to_string();
        assert!(place(90.5, 0.0).starts_with("lat: 90.5 is no latitude"));
        assert!(place(0.0, -181.0).starts_with("lon: -181 is no longitude"));
        assert!(place(f64::NAN, 0.0).starts_with("lat: "));
    }
}
