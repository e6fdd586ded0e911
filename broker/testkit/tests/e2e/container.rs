//! The contract of the images, without an engine: each program runs as an unprivileged user, without any capability, on a
//! read-only root that has nothing but glibc, certificates and the program; what it may write to is named here.

use crate::stage::{BOOT, SOON};
use celery_testkit::kubelet::image::{self, Sandbox};
use celery_testkit::{Program, Rabbit, Redis, binary, ports, wait};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const USER: u32 = 65532;

/// A program in a container of its own, with these folders to write to.
async fn contained(
    program: &str,
    args: &[&str],
    env: &[(&str, &str)],
    writable: &[(&Path, &str)],
) -> Program {
    let mut command = image::entry_points(&image::dockerfile()).remove(program).unwrap();
    let inside = command[0].clone();
    command.extend(args.iter().map(|arg| (*arg).to_owned()));
    let sandbox = Sandbox {
        hostname: format!("{program}-0"),
        user: (USER, USER),
        read_only: true,
        program: (binary(program), inside),
        mounts: writable.iter().map(|(from, to)| (from.to_path_buf(), (*to).to_owned(), true)).collect(),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    sandbox.start(&command)
}

/// What the kernel says of a process: `CapEff`, `Uid`, …
fn said_of(program: &Program) -> BTreeMap<String, String> {
    let status = fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let pairs = status.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// The files of a process that are open for writing, but for its output and what has no name.
fn written(program: &Program) -> Vec<String> {
    let folder = format!("/proc/{}/fd", program.pid());
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).unwrap().flatten() {
        let number: u32 = entry.file_name().to_string_lossy().parse().unwrap();
        let target = fs::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned();
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", program.pid())).unwrap_or_default();
        let flags =
            info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("0").trim().to_owned();
        let writes = u32::from_str_radix(&flags, 8).unwrap_or(0) & 0o3 != 0;
        if number > 2 && writes && target.starts_with('/') && !target.starts_with("/dev/") {
            found.push(target);
        }
    }
    found
}

/// No user, no capability, no way to get one, and nothing written but its output.
fn is_held(program: &Program) {
    let status = said_of(program);
    assert_eq!(status["Uid"].split_whitespace().collect::<Vec<_>>(), ["65532"; 4], "{status:?}");
    assert_eq!(status["Gid"].split_whitespace().collect::<Vec<_>>(), ["65532"; 4]);
    assert_eq!((status["Groups"].as_str(), status["NoNewPrivs"].as_str()), ("65532", "1"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&status[set], 16).unwrap(), 0, "{set}");
    }
    assert_eq!(written(program), Vec::<String>::new());
}

async fn ends_well(program: &Program) {
    program.term();
    let status = program.wait_exit(SOON).await;
    assert!(status.success(), "{status}\n{}", program.log_tail());
}

#[tokio::test]
async fn the_programs_need_no_privilege_and_no_disk() {
    let broker = Rabbit::shared().await.vhost("container").await;
    let backend = Redis::shared().await.database();
    let addresses = [("CELERY_BROKER_URL", broker.as_str()), ("CELERY_RESULT_BACKEND", backend.as_str())];

    let api = contained("producer-api", &["--port", "0"], &addresses, &[]).await;
    api.wait_for_log("listening on http://", BOOT).await;
    let monitor = contained("flower-lite", &["--port", "0"], &addresses, &[]).await;
    monitor.wait_for_log("listening on http://", BOOT).await;
    let worker = contained("celery-worker", &["-l", "info", "-c", "2"], &addresses, &[]).await;
    worker.wait_for_log("celery@celery-worker-0 ready.", BOOT).await;
    for program in [&api, &monitor, &worker] {
        is_held(program);
    }
    for program in [&api, &monitor, &worker] {
        ends_well(program).await;
    }
}

#[tokio::test]
async fn what_they_write_is_where_they_are_told() {
    let broker = Rabbit::shared().await.vhost("container").await;
    let backend = Redis::shared().await.database();
    let addresses = [("CELERY_BROKER_URL", broker.as_str()), ("CELERY_RESULT_BACKEND", backend.as_str())];
    let volume = image::volume("state");
    let state: &[(&Path, &str)] = &[(&volume, "/state")];

    let args = ["-l", "info", "--health-file", "/state/health", "--pidfile", "/state/pid"];
    let worker = contained("celery-worker", &args, &addresses, state).await;
    worker.wait_for_log(" ready.", BOOT).await;
    assert!(fs::read_to_string(volume.join("pid")).unwrap().trim().parse::<u32>().is_ok());
    assert!(volume.join("health").exists());
    is_held(&worker);
    ends_well(&worker).await;

    let schedule = "[beat_schedule.often]\ntask = \"demo.add\"\nschedule = 0.2\nargs = [1, 2]\n";
    fs::write(volume.join("beat.toml"), schedule).unwrap();
    let args = ["--config", "/state/beat.toml", "--schedule", "/state/schedule.json"];
    let beat = contained("celery-beat", &args, &addresses, state).await;
    beat.wait_for_log("beat: Starting", BOOT).await;
    is_held(&beat);
    ends_well(&beat).await;
    assert!(volume.join("schedule.json").exists(), "{}", beat.log());
}

#[tokio::test]
async fn a_path_that_cannot_be_written_is_named() {
    let worker = contained("celery-worker", &["--health-file", "/var/health"], &[], &[]).await;
    assert!(!worker.wait_exit(BOOT).await.success());
    assert!(worker.log().contains("--health-file: cannot write /var/health"), "{}", worker.log());
}

/// The image has glibc and libgcc, and no other library.
#[test]
fn the_programs_link_to_glibc_only() {
    for program in image::entry_points(&image::dockerfile()).keys() {
        let output = std::process::Command::new("ldd").arg(binary(program)).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in text.lines() {
            let library = line.split_whitespace().next().unwrap_or_default();
            let name = library.rsplit('/').next().unwrap_or_default();
            let known =
                ["linux-vdso", "ld-linux", "libc.", "libm.", "libgcc_s.", "libpthread.", "libdl.", "librt."];
            assert!(known.iter().any(|known| name.starts_with(known)), "{program} needs {library}");
        }
    }
}

/// An authority of one's own, as the overlay `prod` names it: in SSL_CERT_FILE for the broker, since the operator's
/// address has no parameters, and in the result store's address.
#[tokio::test]
async fn the_authority_of_prod_is_believed() {
    let folder = image::volume("ca");
    let openssl = |args: &str| {
        let output =
            std::process::Command::new("openssl").args(args.split(' ')).current_dir(&folder).output();
        let output = output.unwrap(); // `make deps` installs openssl
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.crt"));
    openssl(&format!("req -new {key} -subj /CN=servers -keyout tls.key -out tls.csr"));
    fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        "x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out tls.crt",
    );

    let path = |name: &str| folder.join(name).display().to_string();
    let (ca, cert, key) = (path("ca.crt"), path("tls.crt"), path("tls.key"));
    let (broker_port, backend_port, port) =
        (ports::free(), ports::free().to_string(), ports::free().to_string());
    let conf = format!(
        "listeners.ssl.default = 127.0.0.1:{broker_port}\nssl_options.cacertfile = {ca}\n\
         ssl_options.certfile = {cert}\nssl_options.keyfile = {key}\nssl_options.verify = verify_none\n"
    );
    let _rabbit = Rabbit::start_with(&conf, "+S 1:1").await;
    let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let more = ["--tls-port", &backend_port, "--tls-auth-clients", "no"];
    let _redis = Redis::start_with(&[&files[..], &more].concat()).await;

    // Secrets and settings as in manifests/overlays/prod/secrets.txt.
    let broker = format!("amqps://guest:guest@127.0.0.1:{broker_port}/");
    let parameters = "ssl_cert_reqs=required&ssl_ca_certs=/etc/celeriac/ca/ca.crt";
    let backend = format!("rediss://127.0.0.1:{backend_port}/0?{parameters}");
    let env = [
        ("CELERY_BROKER_URL", broker.as_str()),
        ("CELERY_RESULT_BACKEND", backend.as_str()),
        ("SSL_CERT_FILE", "/etc/celeriac/ca/ca.crt"),
    ];
    let mounted: &[(&Path, &str)] = &[(&folder, "/etc/celeriac/ca")];
    let api = contained("producer-api", &["--port", &port], &env, mounted).await;
    api.wait_for_log("listening on http://", BOOT).await;
    wait::until(SOON, "both servers, by TLS", async || {
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/readyz?verbose")).await.unwrap();
        if answer.status() == 200 { Ok(()) } else { Err(answer.text().await.unwrap()) }
    })
    .await;
}
