//! What the scripts of `make` say of tests: failures are counted, and a name that no test has is one.

use celery_testkit::config::repository;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

/// `test.sh` with a `cargo` that prints this and ends with this status: its last line, and whether it was content.
fn judged(name: &str, printed: &str, status: i32) -> (String, bool) {
    let folder = std::env::temp_dir().join(format!("celeriac-tidy-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let cargo = folder.join("cargo");
    std::fs::write(&cargo, format!("#!/bin/sh\nprintf '{printed}'\nexit {status}\n")).unwrap();
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("bash")
        .arg(repository().join("broker/testkit/scripts/test.sh"))
        .args(["--workspace", "some_name"])
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display()))
        .output()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    (out.lines().last().unwrap_or_default().to_owned(), output.status.success())
}

#[test]
fn tests_are_counted_and_none_is_an_error() {
    let said = |ok: u32, bad: u32| format!("test result: ok. {ok} passed; {bad} failed; 0 ignored\\n");
    for (name, printed, status, last, content) in [
        ("some", [said(2, 0), said(0, 0), said(1, 0)].concat(), 0, "3 passed, 0 failed", true),
        ("bad", [said(2, 1), said(1, 0)].concat(), 101, "3 passed, 1 failed", false),
        ("misspelt", [said(0, 0), said(0, 0)].concat(), 0, "0 passed, 1 failed", false),
        ("uncompiled", String::new(), 101, "0 passed, 1 failed", false),
    ] {
        assert_eq!(judged(name, &printed, status), (last.to_owned(), content), "{name}");
    }
}
