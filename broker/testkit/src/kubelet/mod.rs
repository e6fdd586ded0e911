//! A stand-in for a cluster: it starts the pods of an overlay of `manifests/` as processes of this machine.
//!
//! What it takes from the manifests: images (by the Dockerfile's entry points), commands, variables, ConfigMaps and
//! Secrets, volumes, user, read-only root, probes, replicas, rolling updates, grace periods, services. Each container has
//! a root folder of its own with glibc, certificates and our program, runs without privileges and writes to its volumes
//! only. It needs root, for the namespaces.
//!
//! What it changes: pods share the network of the machine, so each port is a free one (in the variable that names it, too)
//! and `service:port` in values and files becomes an address of 127.0.0.1. RabbitMQ's and Redis' pods are the testkit's
//! private servers with the Secret's user and password. Network policies, resources and schedulers do nothing.

mod kubectl;
mod manifest;
mod pod;
mod probe;

pub mod image;

pub use kubectl::Kubectl;
pub use manifest::{Container, Objects, PodSpec, Probe as ProbeSpec, ServiceSpec, Volume, Workload};
pub use pod::{End, Pod, PodStatus};

use crate::program::{binary, or_give_up};
use crate::{Rabbit, Redis, config, guard, ports, wait};
use anyhow::{Context as _, bail, ensure};
use image::Sandbox;
use manifest::PodSecurity;
use pod::Body;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;

/// How long a pod may take to become ready: debug builds on two busy cores.
const READY: Duration = Duration::from_secs(120);

/// The cluster; cheap to clone. Its processes end with the last clone.
#[derive(Clone, Debug)]
pub struct Cluster(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Images that were built, by name and tag; `None` takes all.
    images: Mutex<Option<BTreeSet<String>>>,
    objects: Mutex<Arc<Objects>>,
    wanted: Mutex<BTreeMap<String, usize>>,
    pods: Mutex<Vec<Arc<Pod>>>,
    lives: Mutex<JoinSet<()>>,
    /// One rollout at a time.
    rollout: AsyncMutex<()>,
    counter: AtomicU32,
    rabbit: OnceLock<Rabbit>,
    redis: OnceLock<Redis>,
    /// The folders of claims, by name.
    claims: Mutex<BTreeMap<String, PathBuf>>,
}

/// The objects of `manifests/<overlay>` as kustomize builds them.
///
/// # Panics
/// When kustomize refuses, or its tools are not installed.
pub fn render(name: &str) -> Vec<Value> {
    or_give_up(try_render(name))
}

fn try_render(name: &str) -> anyhow::Result<Vec<Value>> {
    let repository = config::repository();
    let python = repository.join(".run/manifests/bin/python");
    ensure!(
        python.exists(),
        "the tools for manifests are missing: run `broker/testkit/scripts/manifests.sh tools`"
    );
    let output = std::process::Command::new(python)
        .arg(repository.join("manifests/check/render.py"))
        .arg(name)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

impl Cluster {
    /// An empty cluster that has every image of the Dockerfile.
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// An empty cluster that has no image yet: `docker build` and `kind load` bring them.
    pub fn without_images() -> Self {
        let cluster = Self::new();
        *lock(&cluster.0.images) = Some(BTreeSet::new());
        cluster
    }

    /// Creates what an overlay asks for, or changes what there is; returns without waiting for pods to be ready.
    ///
    /// # Panics
    /// When a manifest cannot be followed.
    pub async fn apply(&self, overlay: &str) {
        or_give_up(self.try_apply(overlay).await);
    }

    async fn try_apply(&self, overlay: &str) -> anyhow::Result<Vec<String>> {
        let objects = Arc::new(Objects::read(&try_render(overlay)?)?);
        for workload in objects.workloads.values().filter(|workload| !is_server(workload)) {
            self.entry_point(&container(workload)?.image)?;
        }
        *lock(&self.0.objects) = objects.clone();
        let mut made = Vec::new();
        // Servers first: the addresses of the others' secrets come from them.
        for server in [true, false] {
            for workload in objects.workloads.values().filter(|workload| is_server(workload) == server) {
                if server {
                    self.serve(&objects, workload).await?;
                }
                self.try_scale(&workload.name, workload.replicas.unwrap_or(1))?;
                made.push(workload.name.clone());
            }
        }
        Ok(made)
    }

    /// Starts the testkit's server in place of this workload, with the user and password of its variables.
    async fn serve(&self, objects: &Objects, workload: &Workload) -> anyhow::Result<()> {
        let container = container(workload)?;
        let env = objects.environment(container)?;
        let value = |name: &str| {
            let value = env.get(name).cloned();
            value.with_context(|| format!("{}: no variable {name}", workload.name))
        };
        if container.image.starts_with("rabbitmq:") {
            if self.rabbit().is_none() {
                let (user, password) = (value("RABBITMQ_DEFAULT_USER")?, value("RABBITMQ_DEFAULT_PASS")?);
                let rabbit = started(async move || {
                    let rabbit = Rabbit::start().await;
                    rabbit.ctl(&["add_user", &user, &password]).await;
                    rabbit.ctl(&["set_permissions", "-p", "/", &user, ".*", ".*", ".*"]).await;
                    rabbit.ctl(&["delete_user", "guest"]).await;
                    rabbit
                });
                let _ = self.0.rabbit.set(rabbit.await?);
            }
        } else if self.redis().is_none() {
            let password = value("REDISCLI_AUTH")?;
            let redis = started(async move || {
                let redis = Redis::start_durable().await;
                redis.cli(&["CONFIG", "SET", "requirepass", &password]).await;
                redis
            });
            let _ = self.0.redis.set(redis.await?);
        }
        Ok(())
    }

    /// RabbitMQ, once an overlay that has it was applied.
    pub fn rabbit(&self) -> Option<&Rabbit> {
        self.0.rabbit.get()
    }

    /// Redis, once an overlay that has it was applied.
    pub fn redis(&self) -> Option<&Redis> {
        self.0.redis.get()
    }

    /// How many pods there are to be.
    ///
    /// # Panics
    /// When there is no such workload.
    pub fn scale(&self, workload: &str, replicas: usize) {
        or_give_up(self.try_scale(workload, replicas));
    }

    fn try_scale(&self, workload: &str, replicas: usize) -> anyhow::Result<()> {
        let objects = self.objects();
        let spec =
            objects.workloads.get(workload).with_context(|| format!("there is no workload {workload}"))?;
        lock(&self.0.wanted).insert(workload.to_owned(), replicas);
        let pods = self.pods(workload);
        let revision = pods.iter().map(|pod| pod.revision).max().unwrap_or(1);
        for _ in pods.len()..replicas {
            self.create(&objects, spec, revision)?;
        }
        for pod in pods.iter().skip(replicas) {
            pod.delete();
        }
        Ok(())
    }

    /// The pods of a workload that were not told to go, oldest first.
    pub fn pods(&self, workload: &str) -> Vec<Arc<Pod>> {
        let mut pods = self.all_pods();
        pods.retain(|pod| pod.workload == workload && !pod.status().terminating);
        pods
    }

    /// All pods that ever were, oldest first.
    pub fn all_pods(&self) -> Vec<Arc<Pod>> {
        lock(&self.0.pods).clone()
    }

    /// The objects of the overlay that was applied last.
    pub fn objects(&self) -> Arc<Objects> {
        lock(&self.0.objects).clone()
    }

    /// Waits until a workload has the pods it is to have, all of them ready, and all others are gone.
    ///
    /// # Panics
    /// When that takes too long, with what the pods say.
    pub async fn settled(&self, workload: &str) {
        wait::until(READY, &format!("{workload} to be ready"), async || match self.unsettled(workload) {
            None => Ok(()),
            Some(why) => Err(why),
        })
        .await;
    }

    async fn try_settled(&self, workload: &str) -> anyhow::Result<()> {
        ensure!(self.objects().workloads.contains_key(workload), "there is no workload {workload}");
        let settled = wait::polled(READY, || self.unsettled(workload).map_or(Ok(()), Err));
        settled.await.map_err(|why| anyhow::anyhow!("{workload}: {why}"))
    }

    fn unsettled(&self, workload: &str) -> Option<String> {
        let wanted = lock(&self.0.wanted).get(workload).copied().unwrap_or(0);
        let pods = self.pods(workload);
        let ready = pods.iter().filter(|pod| pod.status().ready).count();
        let going = self.all_pods();
        let going = going.iter().filter(|pod| pod.workload == workload && pod.status().terminating);
        let going = going.filter(|pod| pod.status().end.is_none()).count();
        let told = || {
            let words =
                pods.iter().map(|pod| format!("{}: {:?}\n{}", pod.name, pod.status(), tail(&pod.log())));
            words.collect::<Vec<_>>().join("\n")
        };
        (ready != wanted || pods.len() != wanted || going > 0)
            .then(|| format!("{ready} of {wanted} ready, {going} going\n{}", told()))
    }

    /// Replaces all pods of a workload as its strategy says, and waits for the end of it.
    ///
    /// # Panics
    /// When a new pod does not become ready.
    pub async fn rollout(&self, workload: &str) {
        or_give_up(self.try_rollout(workload).await);
    }

    async fn try_rollout(&self, workload: &str) -> anyhow::Result<()> {
        let _one = self.0.rollout.lock().await;
        let objects = self.objects();
        let spec =
            objects.workloads.get(workload).with_context(|| format!("there is no workload {workload}"))?;
        let wanted = lock(&self.0.wanted).get(workload).copied().unwrap_or(0);
        let old = self.pods(workload);
        let revision = old.iter().map(|pod| pod.revision).max().unwrap_or(0) + 1;
        if spec.recreates() {
            old.iter().for_each(|pod| pod.delete());
            for pod in &old {
                self.gone(pod).await?;
            }
        }
        let (surge, missing) = if spec.recreates() { (wanted, wanted) } else { spec.bounds(wanted) };
        let steady = Duration::from_secs(spec.min_ready_seconds);
        wait::polled(READY * 2, || {
            let pods = self.pods(workload);
            let fresh = pods.iter().filter(|pod| pod.revision == revision).count();
            for _ in 0..(wanted - fresh).min((wanted + surge).saturating_sub(pods.len())) {
                if let Err(error) = self.create(&objects, spec, revision) {
                    return Ok(Err(error));
                }
            }
            let available = |pod: &&Arc<Pod>| {
                let status = pod.status();
                status.ready && status.ready_since.is_some_and(|since| since.elapsed() >= steady)
            };
            let spare = pods.iter().filter(available).count().saturating_sub(wanted - missing);
            let mut leftover: Vec<_> = pods.iter().filter(|pod| pod.revision != revision).collect();
            leftover.sort_by_key(|pod| pod.status().ready);
            leftover.iter().take(spare).for_each(|pod| pod.delete());
            let done = leftover.is_empty() && pods.iter().filter(available).count() == wanted;
            if done { Ok(Ok(())) } else { Err(self.unsettled(workload).unwrap_or_default()) }
        })
        .await
        .map_err(|why| anyhow::anyhow!("the rollout of {workload} is stuck: {why}"))??;
        for pod in &old {
            self.gone(pod).await?;
        }
        Ok(())
    }

    /// Waits for the end of a pod that was told to go.
    async fn gone(&self, pod: &Pod) -> anyhow::Result<End> {
        let ended = wait::polled(pod.grace + READY, || pod.status().end.ok_or(()));
        ended.await.map_err(|()| anyhow::anyhow!("{} has not ended", pod.name))
    }

    /// Deletes everything and waits for its end.
    ///
    /// # Panics
    /// When a pod does not end.
    pub async fn delete(&self) {
        or_give_up(self.try_delete().await);
    }

    async fn try_delete(&self) -> anyhow::Result<()> {
        lock(&self.0.wanted).clear();
        let pods = self.all_pods();
        // The servers stay, so that what is in their queues can still be looked at.
        pods.iter().for_each(|pod| pod.delete());
        for pod in &pods {
            self.gone(pod).await?;
        }
        Ok(())
    }

    /// The address of a ready pod of a service's first port.
    ///
    /// # Panics
    /// When there is no such service or none of its pods is ready.
    pub fn address(&self, service: &str) -> String {
        let objects = self.objects();
        let port =
            objects.services.get(service).and_then(|service| service.ports.first()).map(|port| port.port);
        let found = port.context("no such service").and_then(|port| self.endpoint(service, port));
        format!("127.0.0.1:{}", or_give_up(found))
    }

    /// A port of a ready pod of a service.
    fn endpoint(&self, service: &str, port: u16) -> anyhow::Result<u16> {
        let objects = self.objects();
        let spec = objects.services.get(service).with_context(|| format!("there is no service {service}"))?;
        let port = spec.ports.iter().find(|known| known.port == port);
        let port = port.with_context(|| format!("service {service} has no such port"))?;
        let selected = |pod: &Arc<Pod>| {
            spec.selector.iter().all(|(label, value)| pod.labels.get(label) == Some(value))
                && pod.status().ready
        };
        let pod = self.all_pods().into_iter().find(selected);
        let pod = pod.with_context(|| format!("no pod of service {service} is ready"))?;
        pod.ports.get(&port.target_port).copied().with_context(|| format!("no port {}", port.target_port))
    }

    fn create(&self, objects: &Objects, workload: &Workload, revision: u32) -> anyhow::Result<()> {
        let number = self.0.counter.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{revision}-{number}", workload.name);
        let pod = self.prepare(objects, workload, revision, name);
        let pod = Arc::new(pod.with_context(|| format!("workload {}", workload.name))?);
        lock(&self.0.pods).push(pod.clone());
        lock(&self.0.lives).spawn(pod.live());
        Ok(())
    }

    fn prepare(
        &self,
        objects: &Objects,
        workload: &Workload,
        revision: u32,
        name: String,
    ) -> anyhow::Result<Pod> {
        let container = container(workload)?.clone();
        if is_server(workload) {
            let port = if container.image.starts_with("rabbitmq:") {
                self.rabbit().map(Rabbit::port)
            } else {
                self.redis().map(Redis::port)
            };
            // Only the first port: the others are of plugins that the testkit's servers do not run.
            let first = container.ports.first().context("a server needs a port")?.name.clone();
            let ports = BTreeMap::from([(first, port.context("its server does not run")?)]);
            return Ok(Pod::new(name, revision, workload, container, ports, Body::Server));
        }
        let entry_point = self.entry_point(&container.image)?;
        let command =
            if container.command.is_empty() { entry_point.clone() } else { container.command.clone() };
        let command: Vec<String> = command.iter().chain(&container.args).cloned().collect();
        let program = entry_point.first().context("the image has no entry point")?;
        let file_name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
        let outside = binary(&file_name);
        let folder = guard::folder(&name)?;
        let mut ports = BTreeMap::new();
        let mut env = objects.environment(&container)?;
        for port in &container.ports {
            let free = ports::free();
            let number = port.container_port.to_string();
            let mut variables =
                env.iter_mut().filter(|(name, value)| name.ends_with("_PORT") && **value == number);
            let (_, value) =
                variables.next().with_context(|| format!("no variable says the port {number}"))?;
            *value = free.to_string();
            ports.insert(port.name.clone(), free);
        }
        for value in env.values_mut() {
            *value = self.with_addresses(objects, value);
        }
        let PodSecurity { run_as_user, run_as_group } = workload.template.spec.security_context;
        let sandbox = Sandbox {
            hostname: name.clone(),
            user: (run_as_user, run_as_group),
            read_only: container.security_context.read_only_root_filesystem,
            program: (outside, program.clone()),
            mounts: self.mounts(objects, workload, &container, &folder)?,
            env,
        };
        let body = Body::Process { sandbox, command, folder, program: Mutex::new(None) };
        Ok(Pod::new(name, revision, workload, container, ports, body))
    }

    /// The volumes of a pod as folders.
    fn mounts(
        &self,
        objects: &Objects,
        workload: &Workload,
        container: &Container,
        folder: &Path,
    ) -> anyhow::Result<Vec<(PathBuf, String, bool)>> {
        let mut mounts = Vec::new();
        for mount in &container.volume_mounts {
            let volume = workload.template.spec.volumes.iter().find(|volume| volume.name == mount.name);
            let volume = volume.with_context(|| format!("there is no volume {}", mount.name))?;
            let outside = match &volume.persistent_volume_claim {
                Some(claim) => self.claimed(&claim.claim_name)?,
                None => folder.join("volumes").join(&mount.name),
            };
            fs::create_dir_all(&outside)?;
            match objects.files(volume)? {
                None => fs::set_permissions(&outside, fs::Permissions::from_mode(0o777))?,
                Some(files) => {
                    for (file, text) in files {
                        fs::write(outside.join(file), self.with_addresses(objects, &text))?;
                    }
                }
            }
            mounts.push((outside, mount.mount_path.clone(), !mount.read_only));
        }
        Ok(mounts)
    }

    /// The folder of a claim, which outlives pods.
    fn claimed(&self, name: &str) -> anyhow::Result<PathBuf> {
        let mut claims = lock(&self.0.claims);
        if let Some(folder) = claims.get(name) {
            return Ok(folder.clone());
        }
        let folder = guard::folder(name)?;
        claims.insert(name.to_owned(), folder.clone());
        Ok(folder)
    }

    /// `service:port` becomes an address of this machine, for the servers.
    fn with_addresses(&self, objects: &Objects, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, service) in &objects.services {
            for port in &service.ports {
                if let Ok(endpoint) = self.server_port(objects, name, &port.target_port) {
                    text = text.replace(&format!("{name}:{}", port.port), &format!("127.0.0.1:{endpoint}"));
                }
            }
        }
        text
    }

    fn server_port(&self, objects: &Objects, service: &str, target: &str) -> anyhow::Result<u16> {
        let spec = &objects.services[service];
        let chosen = objects.workloads.values().filter(|workload| is_server(workload)).find(|workload| {
            let labels = &workload.template.metadata.labels;
            spec.selector.iter().all(|(label, value)| labels.get(label) == Some(value))
        });
        let container = container(chosen.context("not a server")?)?;
        ensure!(container.ports.first().is_some_and(|port| port.name == target), "a port of a plugin");
        let port = match container.image.starts_with("rabbitmq:") {
            true => self.rabbit().map(Rabbit::port),
            false => self.redis().map(Redis::port),
        };
        port.context("its server does not run")
    }

    /// The entry point of an image that the cluster has.
    fn entry_point(&self, image: &str) -> anyhow::Result<Vec<String>> {
        if lock(&self.0.images).as_ref().is_some_and(|known| !known.contains(image)) {
            bail!("the image {image} was neither built nor loaded");
        }
        let target = image.rsplit('/').next().unwrap_or(image).split(':').next().unwrap_or_default();
        let mut entry_points = image::entry_points(&image::dockerfile());
        entry_points
            .remove(target)
            .with_context(|| format!("the Dockerfile has no target {target} for {image}"))
    }

    /// From now on the image is there.
    fn load(&self, image: &str) {
        if let Some(known) = lock(&self.0.images).as_mut() {
            known.insert(image.to_owned());
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts a server on a thread of its own: what polls for it does not move between threads.
async fn started<T: Send + 'static>(start: impl AsyncFnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Handle::current();
    Ok(tokio::task::spawn_blocking(move || runtime.block_on(start())).await?)
}

fn is_server(workload: &Workload) -> bool {
    let image = workload.template.spec.containers.first().map(|container| container.image.as_str());
    image.is_some_and(|image| image.starts_with("rabbitmq:") || image.starts_with("redis:"))
}

fn container(workload: &Workload) -> anyhow::Result<&Container> {
    match workload.template.spec.containers.as_slice() {
        [container] => Ok(container),
        others => bail!("the stand-in knows pods with one container, this has {}", others.len()),
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
