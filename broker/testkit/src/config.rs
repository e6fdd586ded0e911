//! The environment of the test run: the only place of this crate that reads it.
//!
//! | variable | meaning |
//! |---|---|
//! | `CELERIAC_VENV` | the Python environment with Celery and Flower; default `<repository>/.venv`, made by `make venv` |
//! | `CELERIAC_BIN_DIR` | where the project's built programs are; default: beside the running test |
//! | `CELERIAC_RABBITMQ_DIR` | the folder with `rabbitmq-server` and `rabbitmqctl` |
//! | `CELERIAC_WORKER` | `python`: the end-to-end tests run against Python Celery, to see what it does |
//! | `UPDATE` | what is made from code and checked in is written anew, see [`golden`](crate::golden) |
//! | `CELERIAC_KEEP` | keep the temporary folder with all logs, and print where it is |

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The root of the repository that this crate was built from.
pub fn repository() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// The Python virtual environment of the peers.
pub fn venv() -> PathBuf {
    std::env::var_os("CELERIAC_VENV").map_or_else(|| repository().join(".venv"), PathBuf::from)
}

/// The folder with the project's own programs: that of the running test's build profile.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("CELERIAC_BIN_DIR") {
        return PathBuf::from(dir);
    }
    let exe = std::env::current_exe().unwrap_or_default();
    let dir = exe.parent().unwrap_or(Path::new("."));
    // A test runs from target/<profile>/deps, a program or example from one of its neighbours.
    let inner = ["deps", "examples"].iter().any(|inner| dir.ends_with(inner));
    if inner { dir.parent().unwrap_or(dir).to_owned() } else { dir.to_owned() }
}

/// Where RabbitMQ's scripts may be: Debian's folder, whose scripts honour the environment (the wrapper in
/// `/usr/sbin` drops it), then where Homebrew and the generic archive put them.
pub(crate) fn rabbitmq_dirs() -> Vec<PathBuf> {
    let chosen = std::env::var_os("CELERIAC_RABBITMQ_DIR").map(PathBuf::from);
    let known = ["/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin", "/opt/rabbitmq/sbin"];
    chosen.into_iter().chain(known.iter().map(PathBuf::from)).collect()
}

/// Whether the end-to-end tests put Python Celery in the place of our worker: the oracle.
pub fn python_is_judged() -> bool {
    std::env::var_os("CELERIAC_WORKER").is_some_and(|worker| worker == "python")
}

/// Whether what is made from code is written anew instead of compared.
pub(crate) fn update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// Whether the temporary folder is kept.
pub(crate) fn keep() -> bool {
    std::env::var_os("CELERIAC_KEEP").is_some()
}

/// What a started program inherits: everything except settings of the programs under test, so that a
/// developer's shell cannot change a test.
pub(crate) fn inherited() -> impl Iterator<Item = (OsString, OsString)> {
    const OURS: [&str; 7] =
        ["CELERY_", "FLOWER_", "PRODUCER_API_", "RABBITMQ_", "CONF_", "PYTHONPATH", "RUST_LOG"];
    std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        !OURS.iter().any(|prefix| name.starts_with(prefix))
    })
}
