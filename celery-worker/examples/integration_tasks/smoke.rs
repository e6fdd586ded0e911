//! The tasks of Celery's smoke suite (`t/smoke/tasks.py`). Some end their process: they are served by child processes.

use celery_protocol::{Canvas, IntoCanvas as _};
use celery_worker::prelude::*;

use crate::Builder;
use crate::values::{replaced_with_me, sum};

pub(crate) fn register(worker: Builder) -> Builder {
    worker
        .task::<noop>()
        .task::<long_running_task>()
        .task::<soft_time_limit_lower_than_time_limit>()
        .task::<self_termination_delay_timeout>()
        .task::<self_termination_sigkill>()
        .task::<self_termination_system_exit>()
        .task::<replace_with_task>()
        .task::<countdown_task_with_retry>()
        .task::<non_eta_task_with_retries>()
        .task::<summarize_results>()
}

#[task(name = "t.smoke.tasks.noop")]
async fn noop(#[args] _args: Vec<Value>, #[kwargs] _kwargs: Map<String, Value>) -> TaskResult<()> {
    Ok(())
}

fn one() -> f64 {
    1.0
}

#[task(name = "t.smoke.tasks.long_running_task")]
async fn long_running_task(
    #[serde(default = "one")] seconds: f64,
    #[serde(default)] verbose: bool,
) -> TaskResult<bool> {
    tracing::info!("Starting long running task");
    let mut second = 0.0;
    while second + 1.0 <= seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if verbose {
            tracing::info!("Sleeping: {second}");
        }
        second += 1.0;
    }
    tracing::info!("Finished long running task");
    Ok(true)
}

#[task(
    name = "t.smoke.tasks.soft_time_limit_lower_than_time_limit",
    soft_time_limit = "3s",
    time_limit = "5s"
)]
async fn soft_time_limit_lower_than_time_limit() -> TaskResult<()> {
    tokio::time::sleep(Duration::from_secs(4)).await;
    Ok(())
}

#[task(name = "t.smoke.tasks.self_termination_delay_timeout", time_limit = "2s")]
async fn self_termination_delay_timeout() -> TaskResult<()> {
    tokio::time::sleep(Duration::from_secs(4)).await;
    Ok(())
}

#[task(name = "t.smoke.tasks.self_termination_sigkill")]
fn self_termination_sigkill() -> TaskResult<()> {
    let own = std::process::id().to_string();
    std::process::Command::new("kill").args(["-KILL", &own]).status()?;
    Ok(())
}

#[task(name = "t.smoke.tasks.self_termination_system_exit")]
async fn self_termination_system_exit() -> TaskResult<()> {
    std::process::exit(1)
}

#[task(name = "t.smoke.tasks.replace_with_task")]
async fn replace_with_task(#[ctx] ctx: Context, replace_with: Option<Canvas>) -> TaskResult<Value> {
    let with = replace_with.map_or_else(|| replaced_with_me::s().into_canvas(), Ok)?;
    Err(ctx.replace(with).await)
}

/// Fails as long as it has been retried less than `times`.
fn until(ctx: &Context, times: u32) -> TaskResult<u32> {
    if ctx.request().retries() < times {
        return Err(ctx.retry().because(Failure::new("Exception", "Simulated failure")).into());
    }
    Ok(ctx.request().retries())
}

#[task(name = "t.smoke.tasks.countdown_task_with_retry", default_retry_delay = "3s", max_retries = 1)]
async fn countdown_task_with_retry(#[ctx] ctx: Context) -> TaskResult<u32> {
    until(&ctx, 1)
}

#[task(name = "t.smoke.tasks.non_eta_task_with_retries", default_retry_delay = "3s", max_retries = 2)]
async fn non_eta_task_with_retries(#[ctx] ctx: Context) -> TaskResult<u32> {
    until(&ctx, 2)
}

#[task(name = "t.smoke.tasks.summarize_results")]
async fn summarize_results(results: Vec<Value>) -> TaskResult<Value> {
    sum(&results)
}
