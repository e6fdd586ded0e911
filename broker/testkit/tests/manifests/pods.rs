//! The pods of the base and of each overlay.

use crate::tables::{PROGRAMS, started, stopping, strangers, table};
use celery_broker::config::Setting;
use celery_testkit::kubelet::{Container, Objects, ProbeSpec, Workload, image, render};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const KUSTOMIZATIONS: [&str; 3] = ["base", "overlays/dev", "overlays/prod"];

/// Every pod of one of our programs: where it stands, the program, the workload, the objects around it.
fn every_pod(mut check: impl FnMut(&str, &str, &Workload, &Objects) -> Vec<String>) {
    let mut wrong = Vec::new();
    for name in KUSTOMIZATIONS {
        let objects = Objects::read(&render(name)).unwrap();
        let mut seen = 0;
        for workload in objects.workloads.values() {
            let program = workload.name.as_str();
            if PROGRAMS.contains(&program) {
                seen += 1;
                let found = check(name, program, workload, &objects);
                wrong.extend(found.into_iter().map(|what| format!("{name}: {what}")));
            }
        }
        assert_eq!(seen, PROGRAMS.len(), "{name}: {PROGRAMS:?}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn container(workload: &Workload) -> &Container {
    &workload.template.spec.containers[0]
}

/// The variables of a container with those that name files replaced by what stands in the files.
fn environment(workload: &Workload, objects: &Objects) -> BTreeMap<String, String> {
    let container = container(workload);
    let mut env = BTreeMap::new();
    let table = table(&workload.name);
    for (name, value) in objects.environment(container).unwrap() {
        let secret_of =
            |setting: &&Setting| setting.secret && name.strip_suffix("_FILE") == Some(setting.env);
        match table.iter().find(secret_of) {
            Some(setting) => {
                let value = secret(workload, objects, setting.env, &value);
                env.insert(setting.env.to_owned(), value);
            }
            None => drop(env.insert(name, value)),
        }
    }
    env
}

/// What stands in the file `path` of a container. A secret that is not made by the overlay is made up.
fn secret(workload: &Workload, objects: &Objects, setting: &str, path: &str) -> String {
    let (folder, file) = path.rsplit_once('/').unwrap();
    let mount = container(workload).volume_mounts.iter().find(|mount| mount.mount_path == folder);
    let mount = mount.unwrap_or_else(|| panic!("{}: nothing is mounted at {folder}", workload.name));
    let volume = workload.template.spec.volumes.iter().find(|volume| volume.name == mount.name).unwrap();
    let items = &volume.secret.as_ref().unwrap().items;
    assert!(items.iter().any(|item| item.path == file), "{}: no secret gives {path}", workload.name);
    if let Ok(Some(files)) = objects.files(volume) {
        return files[file].clone();
    }
    match setting {
        "CELERY_BROKER_URL" => "amqps://u:p@rabbitmq.celeriac.svc:5671/".to_owned(),
        "CELERY_RESULT_BACKEND" => "rediss://:p@redis.celeriac.svc:6379/0?ssl_cert_reqs=required".to_owned(),
        _ => "somebody:secret".to_owned(),
    }
}

#[test]
fn every_variable_is_a_setting_of_its_program() {
    every_pod(|_, program, workload, objects| {
        strangers(program, objects.environment(container(workload)).unwrap().keys())
    });
}

#[test]
fn every_program_takes_its_settings_and_listens_where_the_pod_says() {
    every_pod(|_, program, workload, objects| {
        let ports: Vec<u16> = container(workload).ports.iter().map(|port| port.container_port).collect();
        match started(program, &environment(workload, objects)) {
            Err(refusal) => vec![format!("{program} would not start: {refusal}")],
            Ok(None) if ports.is_empty() => vec![],
            Ok(Some(address)) if ports == [address.port()] && address.ip().is_unspecified() => vec![],
            Ok(address) => vec![format!("{program} listens on {address:?}, its pod says {ports:?}")],
        }
    });
}

#[test]
fn a_pod_may_take_as_long_to_stop_as_its_program() {
    every_pod(|_, program, workload, objects| {
        let grace = Duration::from_secs(workload.template.spec.termination_grace_period_seconds);
        let needed = stopping(program, &environment(workload, objects));
        let wrong = || format!("{program} may take {needed:?} to stop, its pod has {grace:?}");
        if grace < needed { vec![wrong()] } else { vec![] }
    });
}

#[test]
fn probes_ask_what_the_programs_answer() {
    let entry_points = image::entry_points(&image::dockerfile());
    let fits = |program: &str, probe: &ProbeSpec, paths: &[&str], question: &[&str]| match probe {
        ProbeSpec { http_get: Some(get), .. } => {
            !["celery-worker", "celery-beat"].contains(&program)
                && paths.contains(&get.path.split('?').next().unwrap())
        }
        ProbeSpec { exec: Some(exec), .. } => {
            let (command, rest) = exec.command.split_first().unwrap();
            let word = rest.get(1).map(String::as_str).unwrap_or_default();
            ["celery-worker", "celery-beat"].contains(&program)
                && *command == entry_points[program][0]
                && rest.first().is_some_and(|flag| flag == "--healthcheck")
                && question.contains(&word)
        }
        _ => false,
    };
    every_pod(|_, program, workload, _| {
        let container = container(workload);
        let startup = container.startup_probe.as_ref().unwrap();
        let ready = container.readiness_probe.as_ref().unwrap();
        let live = container.liveness_probe.as_ref().unwrap();
        let mut wrong = vec![];
        if !fits(program, startup, &["/livez"], &["live"]) || !fits(program, live, &["/livez"], &["live"]) {
            wrong.push(format!(
                "{program}: its startup and liveness probes must ask whether it lives, and no more"
            ));
        }
        if !fits(program, ready, &["/livez", "/readyz"], &["ready"]) {
            wrong.push(format!("{program}: its readiness probe asks something else"));
        }
        wrong
    });
}

#[test]
fn a_service_leads_to_each_program_that_listens() {
    for name in KUSTOMIZATIONS {
        let objects = Objects::read(&render(name)).unwrap();
        for program in ["producer-api", "flower-lite"] {
            let service = &objects.services[program];
            assert_eq!(
                (service.ports[0].port, service.ports[0].target_port.as_str()),
                (80, "http"),
                "{name}"
            );
        }
        for program in ["celery-worker", "celery-beat"] {
            assert!(!objects.services.contains_key(program), "{name}: {program} has no port");
        }
    }
}

#[test]
fn the_schedule_of_the_base_is_one_that_beat_reads_and_tasks_of_the_worker() {
    for name in KUSTOMIZATIONS {
        let objects = Objects::read(&render(name)).unwrap();
        let beat = &objects.workloads["celery-beat"];
        let env = environment(beat, &objects);
        // More than one must share their schedule, or everything is sent twice.
        assert!(env.contains_key("CELERY_BEAT_SHARED_SCHEDULE"), "{name}");
        let [flag, path] = container(beat).args.as_slice() else {
            panic!("{name}: {:?}", container(beat).args)
        };
        let (folder, file) = path.rsplit_once('/').unwrap();
        let mount = container(beat).volume_mounts.iter().find(|mount| mount.mount_path == folder).unwrap();
        let volume = beat.template.spec.volumes.iter().find(|volume| volume.name == mount.name).unwrap();
        let files = objects.files(volume).unwrap().unwrap();
        let (_, entries) = celery_worker::beat::entry::take(&files[file]).unwrap();
        assert_eq!((flag.as_str(), entries.is_empty()), ("--config", false), "{name}");
        assert!(entries.iter().all(|entry| entry.signature.task.as_str().starts_with("demo.")), "{name}");
    }
}

/// The history and what SQLite needs beside it (its journal, and pages that are freed later) fit on the volume.
#[test]
fn the_history_fits_on_its_volume() {
    for name in KUSTOMIZATIONS {
        let objects = Objects::read(&render(name)).unwrap();
        let monitor = &objects.workloads["flower-lite"];
        let env = environment(monitor, &objects);
        let (folder, _) = env["FLOWER_DB"].rsplit_once('/').unwrap();
        let mount = container(monitor).volume_mounts.iter().find(|mount| mount.mount_path == folder).unwrap();
        let volume = monitor.template.spec.volumes.iter().find(|volume| volume.name == mount.name).unwrap();
        let claim = &objects.claims[&volume.persistent_volume_claim.as_ref().unwrap().claim_name];
        let room = claim.strip_suffix("Gi").unwrap().parse::<u64>().unwrap() * 1024;
        let history: u64 = env["FLOWER_MAX_DB_SIZE"].parse().unwrap();
        assert!(history * 5 <= room * 4, "{name}: {history} MiB of history on {claim}");
    }
}

#[test]
fn programs_and_servers_agree_on_secrets_in_dev() {
    let objects = Objects::read(&render("overlays/dev")).unwrap();
    let value = |secret: &str, key: &str| {
        let found = objects.data.iter().find(|((kind, name), _)| {
            kind == "Secret" && name.rsplit_once('-').map_or(name.as_str(), |(name, _)| name) == secret
        });
        found.unwrap_or_else(|| panic!("no secret {secret}")).1[key].clone()
    };
    let (user, password) = (value("rabbitmq", "username"), value("rabbitmq", "password"));
    assert_eq!(value("broker", "url"), format!("amqp://{user}:{password}@rabbitmq:5672/%2f"));
    let password = value("redis", "password");
    assert_eq!(value("redis", "auth.conf"), format!("requirepass {password}"));
    assert_eq!(value("backend", "url"), format!("redis://:{password}@redis:6379/0"));
}

#[test]
fn five_workers_are_the_base_and_keda_counts_their_queue() {
    let base = Objects::read(&render("base")).unwrap();
    assert_eq!(base.workloads["celery-worker"].replicas, Some(5));
    let prod = render("overlays/prod");
    let scaled = prod.iter().find(|object| object["kind"] == "ScaledObject").unwrap();
    let table = table("celery-worker");
    let queue = table.iter().find(|setting| setting.name == "task_default_queue").unwrap().default.unwrap();
    assert_eq!(scaled["spec"]["triggers"][0]["metadata"]["queueName"], Value::from(queue));
}
