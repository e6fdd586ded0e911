//! Images without an engine: what the Dockerfile says of each, and a container's root folder with nothing in it but the
//! libraries that the program is linked to (of glibc; a test holds that), the certificates and the program. The restrictions of the manifest hold: user, no privileges, read-only root.

use crate::program::{Program, Recipe, or_give_up};
use crate::{config, guard};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The targets of a Dockerfile with their entry points.
pub fn entry_points(dockerfile: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    let mut stage = String::new();
    for line in dockerfile.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["FROM", _, "AS", name] => stage = (*name).to_owned(),
            ["ENTRYPOINT", ..] => {
                let list = line.trim_start_matches("ENTRYPOINT").trim();
                if let Ok(command) = serde_json::from_str(list) {
                    found.insert(stage.clone(), command);
                }
            }
            _ => {}
        }
    }
    found
}

/// The text of the Dockerfile of all images.
///
/// # Panics
/// When it cannot be read.
pub fn dockerfile() -> String {
    let path = config::repository().join("manifests/docker/Dockerfile");
    or_give_up(fs::read_to_string(&path).with_context(|| path.display().to_string()))
}

/// One process as a container would hold it.
#[derive(Debug)]
pub struct Sandbox {
    /// The host name it sees.
    pub hostname: String,
    /// User and group id.
    pub user: (u32, u32),
    /// Whether only `writable` can be written to.
    pub read_only: bool,
    /// Our program: its path outside, and inside.
    pub program: (PathBuf, String),
    /// Folders from outside: path outside, path inside, whether they can be written to.
    pub mounts: Vec<(PathBuf, String, bool)>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
}

/// A new folder that anybody may write to: a volume of a container.
///
/// # Panics
/// When it cannot be made.
pub fn volume(name: &str) -> PathBuf {
    let make = || {
        let folder = guard::folder(name)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        Ok(folder)
    };
    or_give_up(make())
}

impl Sandbox {
    /// Starts a container with this command.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&self, command: &[String]) -> Program {
        or_give_up(guard::folder(&self.hostname).and_then(|folder| self.start_in(&folder, command)))
    }

    /// Starts it with its root and its output in a folder.
    pub(crate) fn start_in(&self, folder: &Path, command: &[String]) -> anyhow::Result<Program> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let root = status.lines().any(|line| line.starts_with("Uid:\t0\t"));
        anyhow::ensure!(
            root,
            "the restricted-image part of `make test` (containers made of namespaces) needs root with mount rights \
             (in Docker `--privileged`)"
        );
        let root = folder.join("root");
        fs::create_dir_all(&root)?;
        let script = self.script(&root, command);
        let recipe = Recipe {
            path: "unshare".into(),
            args: ["--mount", "--uts", "sh", "-c", &script].map(Into::into).to_vec(),
            env: vec![],
            folder: folder.to_owned(),
        };
        Program::run(&self.hostname, recipe)
    }

    /// The script that becomes the process, to be run by `unshare` in namespaces of its own.
    fn script(&self, root: &Path, command: &[String]) -> String {
        let root = quoted(&root.to_string_lossy());
        let mut text = format!(
            "set -e\nprintf %s {host} >/proc/sys/kernel/hostname\nmount -t tmpfs -o mode=0755 tmpfs {root}\ncd {root}\n\
             mkdir -p proc dev etc/ssl usr/local/bin tmp\nmount --rbind /proc proc\n\
             for name in null zero urandom random; do touch dev/$name; mount --bind /dev/$name dev/$name; done\n\
             for file in $(ldd {program} | grep -o '/[^ ]*'); do\n\
             mkdir -p .${{file%/*}}; touch .$file; mount --bind $file .$file; mount -o remount,bind,ro .$file; done\n\
             [ ! -d /etc/ssl ] || mount --bind /etc/ssl etc/ssl\n\
             echo '127.0.0.1 localhost' >etc/hosts\necho 'nonroot:x:65532:65532::/nonexistent:' >etc/passwd\n",
            host = quoted(&self.hostname),
            program = quoted(&self.program.0.to_string_lossy()),
        );
        let (outside, inside) = &self.program;
        let inside = quoted(inside.trim_start_matches('/'));
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "touch {inside}; mount --bind {} {inside}", quoted(&outside.to_string_lossy()));
        for (outside, inside, writable) in &self.mounts {
            let inside = quoted(inside.trim_start_matches('/'));
            let outside = quoted(&outside.to_string_lossy());
            let _ = writeln!(text, "mkdir -p {inside}; mount --bind {outside} {inside}");
            if !writable {
                let _ = writeln!(text, "mount -o remount,bind,ro {inside}");
            }
        }
        if self.read_only {
            let _ = writeln!(text, "mount -o remount,ro {root}");
        }
        let _ = write!(text, "exec env -i");
        for (name, value) in &self.env {
            let _ = write!(text, " {}", quoted(&format!("{name}={value}")));
        }
        let (user, group) = self.user;
        let _ = write!(
            text,
            " setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid \
             /usr/sbin/chroot --userspec={user}:{group} --groups={group} {root}"
        );
        for word in command {
            let _ = write!(text, " {}", quoted(word));
        }
        text.push('\n');
        text
    }
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_points_belong_to_their_stage() {
        let found = entry_points(
            "FROM x AS build\nRUN y\nFROM z AS a\nENTRYPOINT [\"/bin/a\", \"-x\"]\nFROM z AS b\n",
        );
        assert_eq!(found, BTreeMap::from([("a".to_owned(), vec!["/bin/a".to_owned(), "-x".to_owned()])]));
    }

    #[test]
    fn words_stay_words() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
