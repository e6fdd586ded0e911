//! What a worker told about itself, as it lies on disk.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::state::worker::Facts;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Stored {
    freq: Option<f64>,
    pid: Option<i64>,
    sw_ident: Option<Arc<str>>,
    sw_ver: Option<Arc<str>>,
    sw_sys: Option<Arc<str>>,
    loadavg: Option<[f64; 3]>,
    active: Option<u64>,
    processed: Option<u64>,
}

pub(super) fn write(facts: &Facts) -> String {
    let Facts { freq, pid, sw_ident, sw_ver, sw_sys, loadavg, active, processed } = facts.clone();
    let stored = Stored { freq, pid, sw_ident, sw_ver, sw_sys, loadavg, active, processed };
    serde_json::to_string(&stored).unwrap_or_else(|_| String::from("{}"))
}

pub(super) fn read(json: &str) -> Facts {
    let Stored { freq, pid, sw_ident, sw_ver, sw_sys, loadavg, active, processed } =
        serde_json::from_str(json).unwrap_or_default();
    Facts { freq, pid, sw_ident, sw_ver, sw_sys, loadavg, active, processed }
}
