//! `kubectl`, `docker` and `kind` as programs for a shell, so that the commands of a document can be run as they stand
//! there: those that the documents use, with the words that they use. Anything else is refused.

use super::{Cluster, image};
use crate::document::{self, Desk};
use crate::guard;
use crate::program::or_give_up;
use anyhow::{Context as _, bail, ensure};
use serde_json::json;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Asks the stand-in, prints its answer, and stays while a port is forwarded.
const SHIM: &str = r#"#!/usr/bin/env python3
import json, os, socket, sys
with socket.create_connection(('127.0.0.1', PORT)) as line:
    line.sendall(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]).encode() + b'\n')
    for answer in line.makefile('r'):
        answer = json.loads(answer)
        print(answer['text'], end='', file=sys.stderr if answer['code'] else sys.stdout, flush=True)
        if not answer['stay']:
            sys.exit(answer['code'])
sys.exit(1)
"#;

/// The programs, and the one that answers them.
#[derive(Debug)]
pub struct Kubectl {
    folder: PathBuf,
    _serving: JoinSet<()>,
}

impl Kubectl {
    /// Makes the programs for a cluster.
    ///
    /// # Panics
    /// When they cannot be written.
    pub async fn new(cluster: &Cluster) -> Self {
        or_give_up(Self::try_new(cluster).await)
    }

    async fn try_new(cluster: &Cluster) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let folder = guard::folder("kubectl")?;
        for name in ["kubectl", "docker", "kind"] {
            let path = folder.join(name);
            fs::write(&path, SHIM.replace("PORT", &listener.local_addr()?.port().to_string()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        let mut serving = JoinSet::new();
        serving.spawn(serve(cluster.clone(), listener));
        Ok(Self { folder, _serving: serving })
    }
}

async fn serve(cluster: Cluster, listener: TcpListener) {
    let mut lines = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let cluster = cluster.clone();
        lines.spawn(async move {
            let _ = answer(cluster, stream).await;
        });
        while lines.try_join_next().is_some() {}
    }
}

async fn answer(cluster: Cluster, stream: TcpStream) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let words: Vec<String> = serde_json::from_str(&line)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = obey(&cluster, &words).await;
    let (text, code, forward) = match said {
        Ok(Said::Text(text)) => (text, 0, None),
        Ok(Said::Forward { text, local, service, port }) => (text, 0, Some((local, service, port))),
        Err(error) => (format!("error: {error:#}\n"), 1, None),
    };
    let told = json!({"text": text, "code": code, "stay": forward.is_some()});
    let Some((local, service, port)) = forward else {
        return Ok(stream.write_all(format!("{told}\n").as_bytes()).await?);
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, local)).await?;
    stream.write_all(format!("{told}\n").as_bytes()).await?;
    let mut hung_up = String::new();
    tokio::select! {
        _ = stream.read_line(&mut hung_up) => Ok(()),
        () = forward_all(cluster, listener, service, port) => Ok(()),
    }
}

async fn forward_all(cluster: Cluster, listener: TcpListener, service: String, port: u16) {
    let mut lines = JoinSet::new();
    while let Ok((mut here, _)) = listener.accept().await {
        let Ok(endpoint) = cluster.endpoint(&service, port) else { continue };
        lines.spawn(async move {
            if let Ok(mut there) = TcpStream::connect((Ipv4Addr::LOCALHOST, endpoint)).await {
                let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
            }
        });
        while lines.try_join_next().is_some() {}
    }
}

enum Said {
    Text(String),
    Forward { text: String, local: u16, service: String, port: u16 },
}

async fn obey(cluster: &Cluster, words: &[&str]) -> anyhow::Result<Said> {
    let words: Vec<&str> = without_namespace(words);
    match words.as_slice() {
        ["kubectl", "apply", "--kustomize" | "-k", folder] => {
            let made = cluster.try_apply(overlay(folder)?).await?;
            Ok(Said::Text(made.iter().map(|name| format!("{name} created\n")).collect()))
        }
        ["kubectl", "delete", "--kustomize" | "-k", folder] => {
            overlay(folder)?;
            cluster.try_delete().await?;
            Ok(Said::Text("deleted\n".to_owned()))
        }
        ["kubectl", "rollout", "status", workload] => {
            cluster.try_settled(name_of(workload)?).await?;
            Ok(Said::Text(format!("{workload} successfully rolled out\n")))
        }
        ["kubectl", "config", "set-context", "--current"] => Ok(Said::Text("Context modified.\n".to_owned())),
        ["kubectl", "rollout", "restart", workload] => {
            cluster.try_rollout(name_of(workload)?).await?;
            Ok(Said::Text(format!("{workload} restarted\n")))
        }
        ["kubectl", "scale", workload, replicas] => {
            let replicas =
                replicas.strip_prefix("--replicas=").context("kubectl scale needs --replicas=N")?;
            cluster.try_scale(name_of(workload)?, replicas.parse()?)?;
            Ok(Said::Text(format!("{workload} scaled\n")))
        }
        ["kubectl", "get", "pods"] => Ok(Said::Text(listed(cluster))),
        ["kubectl", "logs", workload, rest @ ..] => {
            ensure!(
                rest.iter().all(|flag| flag.starts_with("--tail=")),
                "kubectl logs: unknown words {rest:?}"
            );
            let pods = cluster.pods(name_of(workload)?);
            Ok(Said::Text(pods.first().context("it has no pods")?.log()))
        }
        ["kubectl", "port-forward", service, ports] => {
            let service =
                service.strip_prefix("service/").context("kubectl port-forward needs service/NAME")?;
            let (local, port) = ports.split_once(':').context("kubectl port-forward needs LOCAL:PORT")?;
            let (local, port) = (local.parse()?, port.parse()?);
            cluster.endpoint(service, port)?;
            let text = format!("Forwarding from 127.0.0.1:{local} -> {port}\n");
            Ok(Said::Forward { text, local, service: service.to_owned(), port })
        }
        ["docker", "build", rest @ ..] => built(cluster, rest),
        ["kind", "create" | "delete", "cluster"] => Ok(Said::Text("this is a stand-in\n".to_owned())),
        ["kind", "load", "docker-image", images @ ..] => {
            for image in images {
                cluster.entry_point(image)?;
            }
            Ok(Said::Text(String::new()))
        }
        other => bail!("the stand-in does not know `{}`", other.join(" ")),
    }
}

fn without_namespace<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut kept = Vec::new();
    let mut skip = false;
    for word in words {
        let name = std::mem::replace(&mut skip, *word == "--namespace" || *word == "-n");
        if !name && !skip && *word != "--namespace=celeriac" {
            kept.push(*word);
        }
    }
    kept
}

fn overlay(folder: &str) -> anyhow::Result<&str> {
    folder
        .strip_prefix("manifests/")
        .map(|name| name.trim_end_matches('/'))
        .context("not a folder of manifests/")
}

fn name_of(workload: &str) -> anyhow::Result<&str> {
    let (kind, name) = workload.split_once('/').context("deployment/NAME or statefulset/NAME")?;
    ensure!(["deployment", "statefulset"].contains(&kind), "{kind}: deployment/NAME or statefulset/NAME");
    Ok(name)
}

fn listed(cluster: &Cluster) -> String {
    let mut text = format!("{:<32} READY   STATUS        RESTARTS\n", "NAME");
    let mut pods = cluster.all_pods();
    pods.sort_by(|one, other| one.name.cmp(&other.name));
    for pod in pods {
        let status = pod.status();
        if status.end.is_some() {
            continue;
        }
        let word = if status.terminating { "Terminating" } else { "Running" };
        text +=
            &format!("{:<32} {}/1     {word:<13} {}\n", pod.name, u8::from(status.ready), status.restarts);
    }
    text
}

/// `docker build --file FILE --target TARGET --tag IMAGE FOLDER`: does the Dockerfile have that target?
fn built(cluster: &Cluster, words: &[&str]) -> anyhow::Result<Said> {
    let flag = |name: &str| {
        let at = words
            .iter()
            .position(|word| *word == name)
            .with_context(|| format!("docker build needs {name}"))?;
        words.get(at + 1).copied().with_context(|| format!("{name} needs a value"))
    };
    let (file, target, tag) = (flag("--file")?, flag("--target")?, flag("--tag")?);
    ensure!(file == "manifests/docker/Dockerfile", "there is no {file}");
    ensure!(
        words.len() == 7 && words.last() == Some(&"."),
        "docker build: more or other words than expected"
    );
    let targets = image::entry_points(&image::dockerfile());
    ensure!(targets.contains_key(target), "the Dockerfile has no target {target}");
    let name = tag.split(':').next().unwrap_or_default();
    ensure!(name.rsplit('/').next() == Some(target), "{tag} is not named as its target {target}");
    cluster.load(tag);
    Ok(Said::Text(String::new()))
}

impl Kubectl {
    /// Runs a script of bash with these programs, from the root of the repository; what it printed.
    ///
    /// # Panics
    /// When it fails or takes too long, with what it printed.
    pub async fn script(&self, script: &str) -> String {
        document::shell(script, &self.desk()).await
    }

    /// Where these programs are found, from the root of the repository.
    pub fn desk(&self) -> Desk {
        let folder = Some(crate::config::repository().to_owned());
        Desk { path: vec![self.folder.clone()], folder, ..Desk::default() }
    }
}
