//! The programs' own tables of settings, and what they make of variables.

use celery_broker::config::{CLIENT_SETTINGS, Layered, Setting, Sources};
use celery_worker::config::{BEAT_PROGRAM_SETTINGS, BEAT_SETTINGS, SETTINGS};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Variables that programs read beside their tables.
const OTHERS: [&str; 3] = ["SSL_CERT_FILE", "RUST_LOG", "TZ"];

pub(crate) const PROGRAMS: [&str; 4] = ["producer-api", "celery-worker", "celery-beat", "flower-lite"];

/// All settings of a program.
pub(crate) fn table(program: &str) -> Vec<Setting> {
    match program {
        "producer-api" => producer_api::config::settings(),
        "celery-worker" => [CLIENT_SETTINGS, SETTINGS, BEAT_SETTINGS].concat(),
        "celery-beat" => [CLIENT_SETTINGS, BEAT_SETTINGS, BEAT_PROGRAM_SETTINGS].concat(),
        "flower-lite" => flower_lite::config::TABLES.concat(),
        other => panic!("{other} is none of our programs"),
    }
}

/// What is wrong with the names of these variables.
pub(crate) fn strangers<'a>(program: &str, names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let table = table(program);
    let known = |name: &str| {
        OTHERS.contains(&name)
            || table.iter().any(|setting| {
                let file = setting.secret && name.strip_suffix("_FILE") == Some(setting.env);
                !setting.env.is_empty() && (setting.env == name || file)
            })
    };
    let strange = names.into_iter().filter(|name| !known(name));
    strange.map(|name| format!("{program}: there is no setting with the variable {name}")).collect()
}

/// What the program itself says when it is started with these variables: where it listens, if it does.
pub(crate) fn started(program: &str, env: &BTreeMap<String, String>) -> Result<Option<SocketAddr>, String> {
    let find = |name: &str| env.get(name).cloned();
    let sources = Sources { flag: &|_| None, env: &find, file: None };
    match program {
        "producer-api" => producer_api::config::Config::load(&sources).map(|config| Some(config.listen)),
        "flower-lite" => flower_lite::config::Config::load(&sources).map(|config| Some(config.serve.address)),
        _ => {
            let values = Layered::load(&[&table(program)], &sources).map_err(|err| err.to_string())?;
            if program == "celery-worker" {
                celery_worker::Settings::from_config(&values)?;
            }
            Ok(None)
        }
    }
}

/// How long the program takes to stop at most, by its own settings, and a margin to store, acknowledge and close.
pub(crate) fn stopping(program: &str, env: &BTreeMap<String, String>) -> Duration {
    let find = |name: &str| env.get(name).cloned();
    let sources = Sources { flag: &|_| None, env: &find, file: None };
    let values = Layered::load(&[&table(program)], &sources).unwrap();
    let seconds = Duration::from_secs;
    match program {
        "producer-api" => {
            values.duration("drain_delay").unwrap()
                + values.duration("shutdown_timeout").unwrap()
                + seconds(10)
        }
        "celery-worker" => {
            let grace = values.duration("worker_shutdown_grace");
            grace.expect("a worker that an orchestrator stops needs worker_shutdown_grace") + seconds(15)
        }
        // To send what is under way and close, and to close the client.
        "celery-beat" => seconds(15),
        _ => seconds(10),
    }
}
