//! Probes as the kubelet runs them.

use super::manifest::{Exec, HttpGet, Probe, TcpSocket};
use anyhow::{Context as _, bail, ensure};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a probe needs to know of its container.
pub(crate) struct Target<'a> {
    /// The process, whose namespaces a program is run in.
    pub(crate) pid: u32,
    /// User and group.
    pub(crate) user: (u32, u32),
    /// Where each named port is.
    pub(crate) ports: &'a BTreeMap<String, u16>,
    /// The variables of the container.
    pub(crate) env: &'a BTreeMap<String, String>,
}

/// Runs the probe once.
pub(crate) async fn run(probe: &Probe, target: &Target<'_>) -> anyhow::Result<()> {
    let deadline = Duration::from_secs(probe.timeout_seconds);
    let outcome = tokio::time::timeout(deadline, async {
        match probe {
            Probe { http_get: Some(get), .. } => http(get, target).await,
            Probe { tcp_socket: Some(tcp), .. } => connect(tcp, target).await.map(drop),
            Probe { exec: Some(exec), .. } => execute(exec, target).await,
            _ => bail!("a probe of this kind is not known to the stand-in"),
        }
    });
    outcome.await.with_context(|| format!("no answer in {deadline:?}"))?
}

async fn connect(tcp: &TcpSocket, target: &Target<'_>) -> anyhow::Result<TcpStream> {
    let port = target.ports.get(&tcp.port).with_context(|| format!("no port {}", tcp.port))?;
    Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await?)
}

async fn http(get: &HttpGet, target: &Target<'_>) -> anyhow::Result<()> {
    let mut stream = connect(&TcpSocket { port: get.port.clone() }, target).await?;
    let request = format!("GET {} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n", get.path);
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    let fine = status.is_some_and(|status| (200..400).contains(&status));
    ensure!(fine, "{} answers {}", get.path, answer.lines().next().unwrap_or("nothing"));
    Ok(())
}

async fn execute(exec: &Exec, target: &Target<'_>) -> anyhow::Result<()> {
    let (user, group) = target.user;
    let output = tokio::process::Command::new("nsenter")
        .args(["--target", &target.pid.to_string(), "--mount", "--uts", "--root", "--wd=/"])
        .args(["--setuid", &user.to_string(), "--setgid", &group.to_string(), "--"])
        .args(&exec.command)
        .env_clear()
        .envs(target.env)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("nsenter is missing: it comes with Debian's util-linux")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{} says no ({}): {}",
        exec.command.join(" "),
        output.status,
        said.trim()
    );
    Ok(())
}
