//! Node names and the `%h`-style patterns of Celery's command line (`-n`, `--pidfile`, `--logfile`).
//!
//! Pure but for [`hostname`], which asks the kernel.

/// The name part of a node name that was given none.
const DEFAULT_NAME: &str = "celery";

/// The node name for what was given to `-n`: `w1@host` as it is, `w1` as the *host* part (`celery@w1`, as
/// Celery reads it), `@x` as `celery@x`, nothing as `celery@<hostname>`; then `%h`, `%n` and `%d` are expanded
/// from the machine's `hostname`.
pub fn nodename(given: Option<&str>, hostname: &str) -> String {
    let (name, host) = split(given.unwrap_or_default());
    let name = if name.is_empty() { DEFAULT_NAME } else { name };
    let host = if host.is_empty() { hostname } else { host };
    let (short, domain) = hostname.split_once('.').unwrap_or((hostname, ""));
    expand(&format!("{name}@{host}"), |letter| match letter {
        'h' => Some(hostname),
        'n' => Some(short),
        'd' => Some(domain),
        'i' => Some("0"),
        'I' => Some(""),
        _ => None,
    })
}

/// A path pattern (`/var/run/%n%I.pid`) for the node `nodename`: `%n` its name part, `%h` its host part, `%d`
/// the host's domain, `%p` all of it, `%i`/`%I` the index of the process (this one: `0` and nothing).
pub fn path(pattern: &str, nodename: &str) -> String {
    let (name, host) = split(nodename);
    let domain = host.split_once('.').map_or("", |(_, domain)| domain);
    expand(pattern, |letter| match letter {
        'h' => Some(host),
        'n' => Some(name),
        'd' => Some(domain),
        'p' => Some(nodename),
        'i' => Some("0"),
        'I' => Some(""),
        _ => None,
    })
}

/// This machine's name, as the kernel tells it.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// `name@host`; without an `@` all of it is the host.
fn split(nodename: &str) -> (&str, &str) {
    nodename.split_once('@').unwrap_or(("", nodename))
}

/// Replaces `%x` by what `value` says, `%%` by `%`; an unknown letter stays as it was written.
fn expand<'a>(pattern: &str, value: impl Fn(char) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some(letter) => match value(letter) {
                Some(text) => out.push_str(text),
                None => out.extend(['%', letter]),
            },
            None => out.push('%'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_celery_reads_them() {
        for (given, expected) in [
            (None, "celery@box.example.org"),
            (Some(""), "celery@box.example.org"),
            (Some("w1@%h"), "w1@box.example.org"),
            (Some("w1@%n"), "w1@box"),
            (Some("w1@%d"), "w1@example.org"),
            (Some("w1"), "celery@w1"),
            (Some("@x"), "celery@x"),
            (Some("w1@"), "w1@box.example.org"),
            (Some("100%%@h%z"), "100%@h%z"),
        ] {
            assert_eq!(nodename(given, "box.example.org"), expected, "{given:?}");
        }
    }

    #[test]
    fn paths_take_the_parts_of_the_node_name() {
        assert_eq!(path("/var/%n%I.log", "w1@box.example.org"), "/var/w1.log");
        assert_eq!(
            path("%p-%h-%d-%i", "w1@box.example.org"),
            "w1@box.example.org-box.example.org-example.org-0"
        );
    }
}
