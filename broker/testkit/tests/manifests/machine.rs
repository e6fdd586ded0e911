//! One machine: the compose file and the systemd units.

use crate::tables::{PROGRAMS, started, stopping, strangers};
use celery_broker::config::parse_duration;
use celery_testkit::config::repository;
use celery_testkit::kubelet::{image, render};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

/// The variables of a service of the compose file, with the defaults of `${NAME:-default}` put in.
fn environment(service: &Value) -> BTreeMap<String, String> {
    let variables = service["environment"].as_object().unwrap();
    variables.iter().map(|(name, value)| (name.clone(), with_defaults(value.as_str().unwrap()))).collect()
}

fn with_defaults(text: &str) -> String {
    match text.split_once("${") {
        None => text.to_owned(),
        Some((before, rest)) => {
            let (variable, after) = rest.split_once('}').unwrap();
            let (_, default) =
                variable.split_once(":-").unwrap_or_else(|| panic!("{variable} has no default"));
            format!("{before}{default}{}", with_defaults(after))
        }
    }
}

#[test]
fn the_compose_file_runs_what_the_programs_take() {
    let compose = render("compose/compose.yaml").remove(0);
    let targets = image::entry_points(&image::dockerfile());
    let mut wrong = Vec::new();
    for program in PROGRAMS {
        let service = &compose["services"][program];
        let env = environment(service);
        wrong.extend(strangers(program, env.keys()));
        assert_eq!(service["image"], format!("celeriac/{program}:{}", env!("CARGO_PKG_VERSION")));
        assert_eq!(service["build"]["target"], program);
        assert!(targets.contains_key(program));
        assert_eq!(
            (&service["read_only"], &service["user"]),
            (&true.into(), &"65532:65532".into()),
            "{program}"
        );
        let context =
            repository().join("manifests/compose").join(service["build"]["context"].as_str().unwrap());
        assert!(context.join(service["build"]["dockerfile"].as_str().unwrap()).exists(), "{program}");
        match started(program, &env) {
            Err(refusal) => wrong.push(format!("{program} would not start: {refusal}")),
            Ok(None) => assert!(service.get("ports").is_none(), "{program} has no port"),
            Ok(Some(address)) => {
                // Reachable from this machine only.
                let port = address.port();
                assert_eq!(service["ports"], serde_json::json!([format!("127.0.0.1:{port}:{port}")]));
            }
        }
        // What is kept is in volumes of Docker's, what is given comes from this folder.
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let (from, _) = volume.as_str().unwrap().split_once(':').unwrap();
            let given = from.starts_with('.') && repository().join("manifests/compose").join(from).is_file();
            assert!(given || compose["volumes"].get(from).is_some(), "{program}: {from}");
        }
        let grace = parse_duration(service["stop_grace_period"].as_str().unwrap()).unwrap();
        assert!(grace >= stopping(program, &env), "{program}: stop_grace_period {grace:?} is too short");
        // The addresses are those of its own servers.
        for server in ["rabbitmq", "redis"] {
            assert!(env.values().any(|value| value.contains(&format!("@{server}:"))), "{program}: {server}");
            assert!(compose["services"][server].is_object());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_units_set_what_the_programs_take() {
    let guide = fs::read_to_string(repository().join("docs/deployment.md")).unwrap();
    let mut wrong = Vec::new();
    for program in PROGRAMS {
        let path = repository().join(format!("manifests/systemd/{program}.service"));
        let unit = fs::read_to_string(&path).unwrap();
        let values = |key: &str| {
            let lines: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix(key)).collect();
            lines.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let pairs: BTreeMap<String, String> = values("Environment=")
            .iter()
            .flat_map(|line| line.split_whitespace())
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        wrong.extend(strangers(program, pairs.keys()));
        if let Err(refusal) = started(program, &pairs) {
            wrong.push(format!("{program} would not start: {refusal}"));
        }
        let command = values("ExecStart=").remove(0);
        assert_eq!(command.split(' ').next().unwrap(), format!("/usr/local/bin/{program}"));
        assert_eq!(values("EnvironmentFile="), [format!("/etc/celeriac/{program}.env")]);
        // Every file that it needs is in the guide.
        let needed = command.split(' ').filter(|word| word.starts_with("/etc/"));
        for path in
            needed.chain([&*format!("/usr/local/bin/{program}"), &*format!("/etc/celeriac/{program}.env")])
        {
            let named =
                [path.to_owned(), path.replace(program, "NAME")].iter().any(|path| guide.contains(path));
            assert!(named, "docs/deployment.md does not tell of {path}");
        }
        assert_eq!(values("ProtectSystem="), ["strict"], "{program}");
        let patience = parse_duration(&values("TimeoutStopSec=")[0]).unwrap();
        assert!(patience >= stopping(program, &pairs), "{program}: TimeoutStopSec {patience:?} is too short");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
