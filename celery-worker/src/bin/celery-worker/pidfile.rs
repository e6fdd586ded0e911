//! The file with the process id: refused if the process named there lives, removed at the end.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Removes the file when it is dropped.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

/// Writes the file; a stale one is replaced.
pub(crate) fn write(path: &str) -> Result<PidFile> {
    let own = std::process::id();
    for _ in 0..2 {
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(mut file) => {
                writeln!(file, "{own}").with_context(|| format!("--pidfile: cannot write {path}"))?;
                return Ok(PidFile(path.into()));
            }
            Err(err) if err.kind() == ErrorKind::AlreadyExists => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let pid = text.trim().parse::<u32>().ok().filter(|pid| *pid != own);
                if let Some(pid) = pid.filter(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
                    bail!(
                        "--pidfile: {path} names the process {pid}, which is alive; stop it or name another file"
                    );
                }
                std::fs::remove_file(path)
                    .with_context(|| format!("--pidfile: cannot replace the stale {path}"))?;
            }
            Err(err) => return Err(err).with_context(|| format!("--pidfile: cannot write {path}")),
        }
    }
    bail!("--pidfile: another process is writing {path}")
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // The next start replaces a file that stays behind.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_process_keeps_its_file_and_a_dead_one_does_not() {
        let path = std::env::temp_dir().join(format!("celery-worker-pid-{}", std::process::id()));
        let name = path.to_str().unwrap();
        std::fs::write(&path, "1\n").unwrap();
        assert!(write(name).unwrap_err().to_string().contains("is alive"));
        std::fs::write(&path, "4294967294\n").unwrap();
        let file = write(name).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
    }
}
