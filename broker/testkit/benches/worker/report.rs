//! What was measured: rows of a table, ratios with what is asked of them, and all of it as JSON.

use crate::measure::Row;
use serde_json::{Value, json};

/// The figures of a run.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Value>,
    ratios: Vec<Ratio>,
}

struct Ratio {
    name: String,
    value: f64,
    asked: Asked,
}

/// What is asked of a figure.
#[derive(Clone, Copy)]
pub(crate) enum Asked {
    AtLeast(f64),
    AtMost(f64),
    /// Only told.
    Nothing,
}

impl Report {
    /// Says what comes next.
    pub(crate) fn title(&self, title: &str) {
        println!("\n{title}");
    }

    /// Prints what was seen of one contestant over all rounds and gives the median back.
    pub(crate) fn rounds(&mut self, case: &str, rows: Vec<Row>) -> Row {
        let rates: Vec<f64> = rows.iter().map(|row| row.rate).collect();
        let (low, high) =
            rates.iter().fold((f64::MAX, 0.0_f64), |(low, high), &rate| (low.min(rate), high.max(rate)));
        let row = median(rows, |row| row.rate);
        println!("{row}   {low:.0}–{high:.0}");
        let mut value = row.json();
        value["case"] = case.into();
        value["low"] = low.into();
        value["high"] = high.into();
        self.rows.push(value);
        row
    }

    /// Keeps figures that are no drain's; `line` is printed.
    pub(crate) fn figures(&mut self, case: &str, name: &str, line: &str, figures: &Value) {
        println!("{name:<30} {line}");
        self.rows.push(json!({"case": case, "name": name, "figures": figures}));
    }

    /// Keeps a ratio, or another figure that something is asked of.
    pub(crate) fn ratio(&mut self, name: &str, value: f64, asked: Asked) {
        self.ratios.push(Ratio { name: name.to_owned(), value, asked });
    }

    /// The ratio of that name.
    pub(crate) fn value_of(&self, name: &str) -> Option<f64> {
        self.ratios.iter().find(|ratio| ratio.name == name).map(|ratio| ratio.value)
    }

    pub(crate) fn print_ratios(&self) {
        println!("\nratios");
        for Ratio { name, value, asked } in &self.ratios {
            let (asked, held) = match asked {
                Asked::AtLeast(bound) => (format!("at least {bound}"), value >= bound),
                Asked::AtMost(bound) => (format!("at most {bound}"), value <= bound),
                Asked::Nothing => (String::new(), true),
            };
            let missed = if held { "" } else { "   MISSED" };
            println!("{name:<58} {value:>9.3}   {asked}{missed}");
        }
    }

    /// Everything, for those who keep records.
    pub(crate) fn json(&self) -> String {
        let ratios = self.ratios.iter().map(|Ratio { name, value, asked }| match asked {
            Asked::AtLeast(bound) => json!({"name": name, "value": value, "at_least": bound}),
            Asked::AtMost(bound) => json!({"name": name, "value": value, "at_most": bound}),
            Asked::Nothing => json!({"name": name, "value": value}),
        });
        let ratios: Vec<Value> = ratios.collect();
        format!("{:#}\n", json!({"rows": self.rows, "ratios": ratios}))
    }
}

/// The one in the middle by that figure.
pub(crate) fn median<T>(mut values: Vec<T>, figure: impl Fn(&T) -> f64) -> T {
    values.sort_by(|a, b| figure(a).total_cmp(&figure(b)));
    values.swap_remove(values.len() / 2)
}
