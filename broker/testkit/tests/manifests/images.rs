//! Image names, the Dockerfile, and what it lets into a build.

use celery_testkit::config::repository;
use celery_testkit::kubelet::{Objects, image, render};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_image_of_ours_is_a_target_of_the_dockerfile_with_its_program() {
    let entry_points = image::entry_points(&image::dockerfile());
    assert_eq!(entry_points.len(), crate::tables::PROGRAMS.len());
    for (target, command) in &entry_points {
        assert_eq!(*command, [format!("/usr/local/bin/{target}")]);
        assert!(crate::tables::PROGRAMS.contains(&target.as_str()), "{target}");
        celery_testkit::binary(target);
    }
    for name in ["overlays/dev", "overlays/prod"] {
        for workload in Objects::read(&render(name)).unwrap().workloads.values() {
            let image = &workload.template.spec.containers[0].image;
            let (image, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{name}: {image} has no tag"));
            if image.contains("celeriac/") {
                let target = image.rsplit('/').next().unwrap();
                assert_eq!(target, workload.name, "{name}");
                assert!(entry_points.contains_key(target), "{name}: the Dockerfile has no target {target}");
                assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{name}: the tag of {target} is not the version");
            } else {
                assert!(tag != "latest" && tag.contains('.'), "{name}: {image}:{tag}");
            }
        }
    }
}

#[test]
fn images_say_the_default_ports_and_run_without_root() {
    let text = image::dockerfile();
    for (program, name) in [("producer-api", "api_port"), ("flower-lite", "port")] {
        let table = crate::tables::table(program);
        let port = table.iter().find(|setting| setting.name == name).unwrap().default.unwrap();
        let stage = text.split(&format!("AS {program}\n")).nth(1).unwrap().split("\nFROM").next().unwrap();
        assert!(stage.contains(&format!("EXPOSE {port}\n")), "{program}: {stage}");
    }
    let last = text.lines().filter(|line| line.starts_with("FROM ")).collect::<Vec<_>>();
    assert!(last.iter().any(|line| line.contains("distroless") && line.contains(":nonroot AS runtime")));
    for program in crate::tables::PROGRAMS {
        assert!(last.contains(&format!("FROM runtime AS {program}").as_str()), "{program}");
    }
}

#[test]
fn a_build_gets_all_that_the_sources_include() {
    let ignore = fs::read_to_string(repository().join("manifests/docker/Dockerfile.dockerignore")).unwrap();
    let allowed: BTreeSet<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let mut needed: BTreeSet<String> =
        ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"].map(Into::into).into();
    for package in ["broker", "celery-worker", "flower-lite", "producer-api"] {
        needed.insert(package.to_owned());
        includes(&repository().join(package), &mut needed);
    }
    for path in needed {
        let top = path.split('/').next().unwrap();
        assert!(allowed.contains(top), "Dockerfile.dockerignore keeps {path} out, and a source includes it");
    }
}

/// The files outside of its package that a source includes at compile time, relative to the repository.
fn includes(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && !["node_modules", "tests", "target"].iter().any(|skipped| name == *skipped) {
            includes(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let here = path.parent().unwrap();
            for (at, call) in
                text.match_indices("include_str!(\"").chain(text.match_indices("include_bytes!(\""))
            {
                let target = text[at + call.len()..].split('"').next().unwrap();
                if let Ok(target) = here.join(target).canonicalize() {
                    let target =
                        target.strip_prefix(repository().canonicalize().unwrap()).unwrap().to_owned();
                    found.insert(target.to_string_lossy().into_owned());
                }
            }
        }
    }
}
