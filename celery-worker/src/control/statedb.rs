//! The file of `--statedb`: what is revoked and the logical clock, for the next start. JSON, replaced as a whole.
//!
//! Celery's own file is Python's and cannot be read here; one that is there stops nothing and is replaced.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use celery_broker::control::Revocation;
use celery_protocol::TaskId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::consumer::revoked::Revoked;

/// A file larger than this is none of ours.
const MAX_BYTES: u64 = 64 << 20;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// The logical clock.
    pub(super) clock: u64,
    revoked: Vec<String>,
    stamps: BTreeMap<String, Vec<Value>>,
}

impl State {
    pub(super) fn of(revoked: &Revoked<TaskId>, clock: u64) -> State {
        State {
            clock,
            revoked: revoked.ids().map(ToString::to_string).collect(),
            stamps: revoked.stamps().map(|(name, values)| (name.to_owned(), values.to_vec())).collect(),
        }
    }

    /// What is revoked; ids that are none are left out.
    pub(super) fn revocations(&self) -> Vec<Revocation> {
        let ids = self.revoked.iter().filter_map(|id| TaskId::parse(id.as_str()).ok()).map(Revocation::Task);
        let stamps = self.stamps.iter().flat_map(|(name, values)| {
            values.iter().map(|value| Revocation::Stamp(name.clone(), value.clone()))
        });
        ids.chain(stamps).collect()
    }
}

/// Reads the file; `None` if there is none.
pub(super) fn read(path: &str) -> io::Result<Option<State>> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_BYTES => return Err(io::Error::other("too large to be ours")),
        Ok(_) => {}
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err),
    }
    let bytes = std::fs::read(path)?;
    serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other)
}

/// Replaces the file: whoever reads it finds the old state or the new.
pub(super) fn write(path: &str, state: &State) -> io::Result<()> {
    let path = Path::new(path);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    std::fs::write(&new, serde_json::to_vec(state)?)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let path = std::env::temp_dir().join(format!("celery-worker-state-{}", std::process::id()));
        let path = path.to_str().unwrap();
        assert_eq!(read(path).unwrap(), None);
        let mut revoked = Revoked::default();
        revoked.add(TaskId::parse("a").unwrap(), SystemTime::now());
        revoked.add_stamp("job", [json!("j1"), json!(2)]);
        write(path, &State::of(&revoked, 7)).unwrap();
        let state = read(path).unwrap().unwrap();
        assert_eq!(state.clock, 7);
        assert_eq!(
            state.revocations(),
            [
                Revocation::Task(TaskId::parse("a").unwrap()),
                Revocation::Stamp("job".into(), json!("j1")),
                Revocation::Stamp("job".into(), json!(2)),
            ]
        );
        std::fs::write(path, "\x00shelve").unwrap();
        assert!(read(path).is_err());
        std::fs::remove_file(path).unwrap();
    }
}
