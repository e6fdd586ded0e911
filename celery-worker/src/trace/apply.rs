//! Publishing what tasks leave behind: retries, callbacks, errbacks, the next steps of chains, the bodies of chords.

use std::time::Duration;

use celery_broker::BrokerError;
use celery_protocol::canvas::{Call, Canvas, Plan};
use celery_protocol::{QueueName, ResultTuple, SignatureOptions};

use super::patience::{Patience, Stuck};
use super::settle::{Application, FollowUp};
use super::settler::Ground;

/// The first pause before another try.
const PAUSE: Duration = Duration::from_millis(100);

/// How publishing ended.
pub(super) enum Publishing {
    /// The broker has it; its result, if it has one.
    Confirmed(Option<ResultTuple>),
    /// The broker will never take it.
    Refused(String),
    /// The broker could not be reached for long enough.
    GaveUp(BrokerError),
}

/// Publishes what a task leaves behind, and tries again while the broker is away. The ids are chosen before the first
/// try, so that a message whose fate is unknown is at worst sent twice under one id.
pub(super) async fn publish(ground: &Ground<'_>, follow_up: FollowUp) -> Publishing {
    match follow_up {
        FollowUp::Resend { route, message, delay } => {
            let raw = message.into_raw();
            let queue =
                QueueName::parse(route.routing_key.as_str()).ok().filter(|_| route.exchange.is_empty());
            let far = queue.filter(|_| delay > ground.eta_horizon);
            persist(ground, None, async || match &far {
                Some(queue) => ground.celery.delay(queue, raw.clone(), delay).await,
                None => ground.celery.publish(&route, raw.clone()).await,
            })
            .await
        }
        FollowUp::Apply(application) => match plan(ground, *application) {
            Ok(mut plan) => {
                let child = plan.result.take();
                persist(ground, child, || ground.celery.run(&plan)).await
            }
            Err(err) => Publishing::Refused(err.to_string()),
        },
    }
}

async fn persist<F>(ground: &Ground<'_>, child: Option<ResultTuple>, attempt: impl Fn() -> F) -> Publishing
where
    F: Future<Output = Result<(), BrokerError>>,
{
    let patience = Patience { span: ground.patience, pause: PAUSE };
    let problem = "a follow-up could not be published yet";
    match patience.attempt(problem, BrokerError::is_transient, attempt).await {
        Ok(()) => Publishing::Confirmed(child),
        Err(Stuck::Refused(error)) => Publishing::Refused(error.to_string()),
        Err(Stuck::GaveUp(error)) => Publishing::GaveUp(error),
    }
}

/// What has to be published to apply a signature to what a task leaves for it.
fn plan(ground: &Ground<'_>, application: Application) -> Result<Plan, BrokerError> {
    let Application { signature, arguments, chain, parent_id, root_id } = application;
    let mut options = SignatureOptions::new();
    options.set("parent_id", &parent_id);
    options.set("root_id", &root_id);
    if let Some(chain) = chain {
        options.set("chain", &chain);
    }
    let call = Call { args: arguments, options, ..Call::default() };
    ground.celery.plan(Canvas::Task(signature), call)
}
