//! What ends with the test process: its temporary folder and the process groups it started.
//!
//! A shell waits for the end of a pipe whose other end only this process holds. When the process is gone,
//! by whatever cause (a panic, an abort, SIGKILL, a static that is never dropped), it kills the groups
//! that are still listed in the folder and removes the folder.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

static GUARD: LazyLock<Result<Guard, String>> =
    LazyLock::new(|| Guard::start().map_err(|err| err.to_string()));

struct Guard {
    root: PathBuf,
    next: AtomicU32,
    _shell: Child,
}

const SCRIPT: &str = r#"
cat >/dev/null
for group in "$1"/groups/*; do
    [ -e "$group" ] && kill -s KILL -- "-${group##*/}" 2>/dev/null
done
[ "$2" = keep ] || rm -rf "$1"
"#;

impl Guard {
    fn start() -> io::Result<Self> {
        let root = std::env::temp_dir().join(format!("celeriac-testkit-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root); // of an earlier process with this id
        fs::create_dir_all(root.join("groups"))?;
        let keep = crate::config::keep();
        if keep {
            eprintln!("testkit: logs and data stay in {}", root.display());
        }
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "guard"])
            .arg(&root)
            .arg(if keep { "keep" } else { "remove" })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C in the terminal must not end it first
            .spawn()?;
        Ok(Self { root, next: AtomicU32::new(0), _shell: shell })
    }
}

fn guard() -> anyhow::Result<&'static Guard> {
    GUARD.as_ref().map_err(|err| anyhow::anyhow!("cannot prepare a temporary folder: {err}"))
}

/// A new folder that is removed with the test process.
pub(crate) fn folder(name: &str) -> anyhow::Result<PathBuf> {
    let guard = guard()?;
    let path = guard.root.join(format!("{name}-{}", guard.next.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// From now on the process group ends with the test process.
pub(crate) fn adopt(group: u32) -> anyhow::Result<()> {
    Ok(fs::write(entry(&guard()?.root, group), "")?)
}

/// The process group has ended; its number may be used again by others.
pub(crate) fn release(group: u32) {
    if let Ok(guard) = guard() {
        let _ = fs::remove_file(entry(&guard.root, group));
    }
}

fn entry(root: &Path, group: u32) -> PathBuf {
    root.join("groups").join(group.to_string())
}
