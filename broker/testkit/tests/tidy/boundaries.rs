//! Rules about what may be named where: the invariants I2, I3, I6 and I7 of docs/architecture.md.

use super::{Source, none, rust};

/// Where a foreign crate may be named at all.
fn only_under(word: &str, folders: &[&str], remedy: &str) {
    let mut bad = Vec::new();
    for file in rust().iter().filter(|file| !folders.iter().any(|folder| file.path.starts_with(folder))) {
        for (number, line) in file.text.lines().enumerate() {
            if !line.trim_start().starts_with("//") && names(line, word) {
                bad.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    none(&bad, remedy);
}

/// Whether the path `word` (such as `lapin::`) occurs, and not as the end of a longer name.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        line[..at]
            .chars()
            .next_back()
            .is_none_or(|before| !before.is_alphanumeric() && !"_\":".contains(before))
    })
}

#[test]
fn lapin_stays_in_amqp() {
    only_under("lapin::", &["broker/src/amqp/", "broker/testkit/"], "only broker/src/amqp/ knows lapin (I2)");
}

#[test]
fn redis_stays_in_its_backend() {
    // The example of Celery's suite has a module `redis` of its own: the suite's tasks write there.
    let places = ["broker/src/backend/redis/", "broker/testkit/", "celery-worker/examples/integration_tasks"];
    only_under("redis::", &places, "only broker/src/backend/redis/ knows the redis crate (I2)");
}

#[test]
fn foreign_types_stay_out_of_public_signatures() {
    let mut bad = Vec::new();
    for file in rust().iter().filter(|file| file.is_product()) {
        for krate in ["lapin", "redis"] {
            let imported = imported_from(file, krate);
            for (number, line) in file.product_lines() {
                let public = ["pub fn ", "pub async fn ", "pub type ", "pub use ", "pub struct "];
                let signature = line.trim_start();
                let foreign = names(signature, &format!("{krate}::"))
                    || imported.iter().any(|name| contains_word(signature, name));
                if public.iter().any(|start| signature.starts_with(start)) && foreign {
                    bad.push(format!("{}:{number}: {signature}", file.path));
                }
            }
        }
    }
    none(&bad, "a public signature names a foreign type; make it pub(crate) or convert (I2)");
}

fn imported_from(file: &Source, krate: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in file.text.match_indices(&format!("use {krate}::")) {
        let list = file.text[at..].split(';').next().unwrap_or_default();
        let words = list.split(|c: char| !c.is_alphanumeric() && c != '_');
        found.extend(words.filter(|word| word.starts_with(char::is_uppercase)).map(str::to_owned));
    }
    found
}

fn contains_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

#[test]
fn tasks_are_spawned_where_they_are_supervised() {
    // I6. Blocking threads are the worker's pool; the tests may do as they like.
    let places = [
        "celery-worker/src/worker/supervisor.rs",
        "broker/src/tasks.rs",
        "producer-api/src/startup.rs",
        "flower-lite/src/startup.rs",
    ];
    let mut bad = Vec::new();
    for file in rust().iter().filter(|file| file.is_product() && !places.contains(&file.path.as_str())) {
        for (number, line) in file.product_lines() {
            if !line.trim_start().starts_with("//") && spawns(line) {
                bad.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    none(
        &bad,
        "spawn through the supervisor: a task must be named, awaited and have its failure handled (I6)",
    );
}

fn spawns(line: &str) -> bool {
    names(line, "tokio::spawn(") || line.contains("Handle::current().spawn(") || line.contains(".spawn_on(")
}

#[test]
fn environment_is_read_in_config() {
    let mut bad = Vec::new();
    for file in rust().iter().filter(|file| file.is_product() && !file.path.ends_with("config.rs")) {
        for (number, line) in file.product_lines() {
            if ["env::var(", "env::vars(", "env::var_os("].iter().any(|call| line.contains(call)) {
                bad.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    none(&bad, "the environment is read in config.rs of each program (I7)");
}

#[test]
fn protocol_reads_no_clock_and_no_chance() {
    let calls =
        ["SystemTime::now(", "Instant::now(", "Zoned::now(", "Timestamp::now(", "new_v4(", "thread_rng("];
    let mut bad = Vec::new();
    for file in rust().iter().filter(|file| file.is_product() && file.path.starts_with("broker/protocol/")) {
        for (number, line) in file.product_lines() {
            if !line.trim_start().starts_with("//") && calls.iter().any(|call| line.contains(call)) {
                bad.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    none(&bad, "celery-protocol takes the time and the ids as arguments (I1)");
}

#[test]
fn tests_wait_for_events() {
    let mut bad = Vec::new();
    for file in rust().iter().filter(|file| file.path.contains("/tests/") && !file.path.contains("/tidy/")) {
        for (number, line) in file.text.lines().enumerate() {
            if ["thread::sleep(", "time::sleep("].iter().any(|call| line.contains(call)) {
                bad.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    none(
        &bad,
        "poll with celery_testkit::wait, which has a deadline and shows the state (docs/style.md, rule 25)",
    );
}
