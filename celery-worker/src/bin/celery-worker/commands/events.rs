//! `events --dump`: one line per event, as `celery events --dump` prints them.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Result, bail};
use celery_broker::Celery;
use celery_broker::event::{EventsOptions, Received};
use celery_protocol::WireTime;
use celery_protocol::event::{Event, EventBody, TaskFields};
use clap::Command;

use super::flag;

/// Events taken at once.
const BATCH: usize = 256;

pub(super) fn arguments(command: Command) -> Command {
    command.arg(flag("dump", 'd', "Print events; there is no other way here"))
}

pub(super) async fn dump(celery: &Celery) -> Result<ExitCode> {
    let mut receiver = celery.events(&EventsOptions::default())?;
    let mut buffer = Vec::new();
    loop {
        let received = tokio::select! {
            received = receiver.recv_many(&mut buffer, BATCH) => received,
            end = tokio::signal::ctrl_c() => {
                end?;
                return Ok(ExitCode::SUCCESS);
            }
        };
        if received == 0 {
            bail!("the broker ended the subscription");
        }
        let mut out = std::io::stdout().lock();
        for one in buffer.drain(..) {
            if let Received::Event { event, .. } = one {
                writeln!(out, "{}", line(&event))?;
            }
        }
        out.flush()?;
    }
}

fn line(event: &Event) -> String {
    let at = UNIX_EPOCH + Duration::try_from_secs_f64(event.timestamp).unwrap_or_default();
    let time = WireTime::from(at).isoformat();
    let start = format!("{} [{time}]", event.hostname);
    let kind = event.body.type_name();
    let word = match kind.as_ref() {
        "worker-online" => "started".to_owned(),
        "worker-offline" => "shutdown".to_owned(),
        "worker-heartbeat" => "heartbeat".to_owned(),
        other => other.replace('-', " "),
    };
    match &event.body {
        EventBody::Task(task) => {
            let name = task.fields.name.as_deref().unwrap_or("");
            format!("{start} {word}: {name}({}) {}", task.uuid, fields(&task.fields)).trim_end().to_owned()
        }
        _ => format!("{start} {word}"),
    }
}

fn fields(fields: &TaskFields) -> String {
    let seconds = fields.runtime.map(|runtime| format!("{runtime:?}"));
    let all = [
        ("args", &fields.args),
        ("kwargs", &fields.kwargs),
        ("eta", &fields.eta),
        ("queue", &fields.queue),
        ("result", &fields.result),
        ("runtime", &seconds),
        ("exception", &fields.exception),
    ];
    let shown = all.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    shown.collect::<Vec<_>>().join(", ")
}
