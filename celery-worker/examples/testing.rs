//! Unit tests of tasks, without servers: `cargo test --example testing` runs them, `cargo run --example testing` shows what
//! they look at.

use std::error::Error;

use celery_worker::prelude::*;
use celery_worker::testing::{Run, TestWorker};

/// Where the tasks of this example write. A test gives them another one.
#[derive(Clone)]
struct Mailer {
    /// Nobody answers.
    down: bool,
}

#[task(name = "shop.confirm", max_retries = 2)]
async fn confirm(#[ctx] ctx: Context, #[state] mailer: Mailer, order: u64) -> TaskResult<String> {
    ctx.progress(1, 2).await;
    if mailer.down {
        return Err(ctx.retry().because(Failure::new("ConnectionError", "no mail server")).into());
    }
    ctx.celery().send(log::s(format!("order {order} is confirmed"))).await?;
    Ok(format!("confirmation {order}"))
}

#[task(name = "shop.log")]
async fn log(line: String) -> TaskResult<()> {
    if line.is_empty() {
        raise!("ValueError", "nothing to log");
    }
    Ok(())
}

fn worker(mailer: Mailer) -> TestWorker<Mailer> {
    TestWorker::new(mailer).task::<confirm>().task::<log>()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let run = worker(Mailer { down: false }).run(confirm::s(7).link(log::s("then"))).await?;
    println!("value: {:?}", run.value::<String>());
    println!("sent while it ran: {:?}, because it ended: {:?}", run.sent(), run.followed_by());

    let run: Run = worker(Mailer { down: true }).run_until_done(confirm::s(7)).await?;
    println!("after {} retries: {}", run.retries(), run.exception().unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use celery_protocol::TaskState;
    use celery_worker::testing::Disposition;

    use super::*;

    #[tokio::test]
    async fn the_function_itself_can_be_called() {
        assert!(log("x".to_owned()).await.is_ok());
    }

    #[tokio::test]
    async fn a_confirmation_is_logged() {
        let run = worker(Mailer { down: false }).run(confirm::s(7)).await.unwrap();
        assert_eq!(run.value::<String>().as_deref(), Some("confirmation 7"));
        assert_eq!(run.sent(), ["shop.log"]);
        assert_eq!(run.stored(), [&TaskState::from("PROGRESS")]);
        assert_eq!(run.settled_states(), [&TaskState::Success]);
    }

    #[tokio::test]
    async fn a_mail_server_that_is_down_is_tried_three_times() {
        let first = worker(Mailer { down: true }).run(confirm::s(7)).await.unwrap();
        assert_eq!(first.retry().unwrap().delay, Duration::from_secs(180));
        assert_eq!(first.followed_by(), ["shop.confirm"]);
        let last = worker(Mailer { down: true }).run_until_done(confirm::s(7)).await.unwrap();
        assert_eq!(last.retries(), 2);
        assert_eq!(last.exception().as_deref(), Some("ConnectionError('no mail server')"));
    }

    #[tokio::test]
    async fn a_failure_is_stored_and_reaches_the_errback() {
        let call = log::s("").link_error(log::s("failed"));
        let run = worker(Mailer { down: false }).run(call).await.unwrap();
        assert_eq!(run.settled[0].exception().unwrap().repr(), "ValueError('nothing to log')");
        assert_eq!(run.followed_by(), ["shop.log"]);
        assert_eq!(run.disposition, Disposition::Ack);
    }
}
