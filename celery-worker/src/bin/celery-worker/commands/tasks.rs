//! `call`, `result` and `purge`: tasks and their queues.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use celery_broker::{Celery, GetError};
use celery_protocol::{QueueName, RawArgs, RawKwargs, TaskId, WireTime, pyjson};
use clap::{Arg, ArgMatches, Command};
use serde_json::Value;

use super::{flag, seconds, text};

/// How long the broker may take to delete the messages of one queue.
const PURGE_DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn arguments(command: Command) -> Command {
    match command.get_name() {
        "call" => command
            .arg(Arg::new("name").required(true).help("The task's name"))
            .arg(text("args").short('a').default_value("[]").help("Positional arguments as a JSON array"))
            .arg(text("kwargs").short('k').default_value("{}").help("Keyword arguments as a JSON object"))
            .arg(text("queue").help("The queue; else as the routes say"))
            .arg(text("exchange").help("The exchange"))
            .arg(text("routing-key").help("The routing key"))
            .arg(text("priority").value_parser(clap::value_parser!(u8)).help("Higher is more urgent"))
            .arg(text("countdown").value_parser(seconds).help("Seconds before it may run"))
            .arg(text("eta").help("When it may run, as 2027-01-31T12:00:00+00:00"))
            .arg(text("expires").help("Until when it may start: seconds, or a moment as for --eta")),
        "result" => command
            .arg(Arg::new("id").required(true).help("The task's id"))
            .arg(
                text("timeout")
                    .short('t')
                    .value_parser(seconds)
                    .default_value("60")
                    .help("How long to wait for it"),
            )
            .arg(flag("traceback", 'T', "Print the traceback of a failure")),
        _ => command
            .arg(flag("force", 'f', "Do not ask"))
            .arg(text("queues").short('Q').help("Queues, separated by commas; else the default queue"))
            .arg(text("exclude-queues").short('X').help("Queues not to touch")),
    }
}

pub(super) async fn call(celery: &Celery, matches: &ArgMatches) -> Result<ExitCode> {
    let given = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let mut call = celery_protocol::Sig::<Value>::new(given("name").unwrap_or_default());
    if let Some(queue) = given("queue") {
        call = call.queue(queue);
    }
    if let Some(exchange) = given("exchange") {
        call = call.option("exchange", exchange);
    }
    if let Some(key) = given("routing-key") {
        call = call.option("routing_key", key);
    }
    if let Some(priority) = matches.get_one::<u8>("priority") {
        call = call.priority(*priority);
    }
    if let Some(countdown) = matches.get_one::<Duration>("countdown") {
        call = call.countdown(*countdown);
    }
    if let Some(eta) = given("eta") {
        call = call.eta(moment(eta).context("--eta")?.into());
    }
    call = match given("expires").map(|text| (text, seconds(text))) {
        None => call,
        Some((_, Ok(after))) => call.expires_in(after),
        Some((text, Err(_))) => call.expires(moment(text).context("--expires")?.into()),
    };
    let mut signature = call.into_signature()?;
    let args: RawArgs =
        pyjson::from_str(given("args").unwrap_or("[]")).context("--args: not a JSON array")?;
    let kwargs: RawKwargs =
        pyjson::from_str(given("kwargs").unwrap_or("{}")).context("--kwargs: not a JSON object")?;
    (signature.args, signature.kwargs) = (args, kwargs);
    let sent = celery.send(signature).await?;
    writeln!(std::io::stdout(), "{}", sent.id())?;
    Ok(ExitCode::SUCCESS)
}

fn moment(text: &str) -> Result<WireTime> {
    text.parse().with_context(|| format!("{text:?} is no moment; write 2027-01-31T12:00:00+00:00"))
}

pub(super) async fn result(celery: &Celery, matches: &ArgMatches) -> Result<ExitCode> {
    let id = matches.get_one::<String>("id").map_or("", String::as_str);
    let result = celery.result::<Value>(TaskId::parse(id).with_context(|| format!("{id:?} is no id"))?);
    let timeout = matches.get_one::<Duration>("timeout").copied().unwrap_or(Duration::from_secs(60));
    let mut out = std::io::stdout();
    match result.wait(timeout).await {
        Ok(meta) if matches.get_flag("traceback") && meta.traceback.is_some() => {
            writeln!(out, "{}", meta.traceback.unwrap_or_default())?;
        }
        Ok(meta) => match meta.exception() {
            Some(exception) => bail!("{}", exception.repr()),
            None => writeln!(out, "{}", meta.result.get())?,
        },
        Err(GetError::Timeout) => bail!("the task has not ended in {timeout:?}; it may still do so"),
        Err(other) => return Err(other.into()),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn purge(celery: &Celery, matches: &ArgMatches) -> Result<ExitCode> {
    let listed = |name: &str| -> Vec<String> {
        let text = matches.get_one::<String>(name).map_or("", String::as_str);
        text.split(',').map(str::trim).filter(|queue| !queue.is_empty()).map(str::to_owned).collect()
    };
    let mut queues = listed("queues");
    if queues.is_empty() {
        queues.push(celery.default_queue().to_string());
    }
    let excluded = listed("exclude-queues");
    queues.retain(|queue| !excluded.contains(queue));
    let mut out = std::io::stdout();
    if !matches.get_flag("force") {
        write!(
            out,
            "WARNING: This will remove all tasks from: {}.\n         There is no undo for this operation!\n\n         (to skip this prompt use the -f option)\nAre you sure you want to delete all tasks (yes/NO)? ",
            queues.join(", ")
        )?;
        out.flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.trim() != "yes" {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let mut count = 0;
    for queue in &queues {
        let name =
            QueueName::parse(queue.as_str()).with_context(|| format!("{queue:?} is no name of a queue"))?;
        count += tokio::time::timeout(PURGE_DEADLINE, celery.purge(&name))
            .await
            .with_context(|| format!("queue {queue}: the broker does not answer"))??;
    }
    let (messages, from) = (if count == 1 { "message" } else { "messages" }, queues.len());
    let known = if from == 1 { "queue" } else { "queues" };
    match count {
        0 => writeln!(out, "No messages purged from {from} {known}")?,
        _ => writeln!(out, "Purged {count} {messages} from {from} known task {known}.")?,
    }
    Ok(ExitCode::SUCCESS)
}
