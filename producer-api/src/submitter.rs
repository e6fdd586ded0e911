//! What all submissions of one request have in common, and the way from a body to the broker's word.

use actix_web::{HttpRequest, web};
use celery_protocol::TaskId;

use crate::dto::submit::SubmitTask;
use crate::plan::{self, Plan};
use crate::problem::{Kind, Outcome, Problem};
use crate::state::Api;
use crate::submit::{self, Done, Identity};
use crate::trace_context::TraceContext;

/// Submits the tasks of one request; clones are the same.
#[derive(Clone)]
pub struct Submitter {
    api: web::Data<Api>,
    trace: Option<TraceContext>,
    raw_priority: bool,
}

impl Submitter {
    /// For the tasks of `request`.
    pub fn new(api: web::Data<Api>, request: &HttpRequest) -> Self {
        let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let trace = TraceContext::from_headers(text("traceparent"), text("tracestate"));
        Submitter { api, trace, raw_priority: false }
    }

    /// Allows priorities beyond Celery's ten.
    #[must_use]
    pub fn raw_priority(mut self, wanted: Option<bool>) -> Self {
        self.raw_priority = wanted.unwrap_or(false);
        self
    }

    /// The shared state.
    pub fn api(&self) -> &web::Data<Api> {
        &self.api
    }

    /// The caller's trace.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// What a submission is judged by.
    pub fn context(&self) -> plan::Context<'_> {
        plan::Context {
            now: crate::clock::now(),
            origin: &self.api.origin,
            router: self.api.celery.router(),
            policy: &self.api.policy,
            limits: &self.api.limits,
            trace: self.trace.clone(),
            raw_priority: self.raw_priority,
        }
    }

    /// Judges a task and builds its message.
    ///
    /// # Errors
    /// 403 or 422 with everything that is wrong.
    pub fn plan(&self, task: SubmitTask, id: &TaskId) -> Result<Plan, Problem> {
        Plan::make(task, id, &self.context())
    }

    /// Publishes a task. Once begun this goes on to its end, also when the client has gone: a record that says
    /// `publishing` for ever would be a lie.
    ///
    /// # Errors
    /// Whatever keeps the broker from confirming it.
    pub async fn publish(&self, id: TaskId, identity: Identity, plan: Plan) -> Result<Done, Problem> {
        let api = self.api.clone();
        let publishing =
            self.api.under_way.spawn(async move { submit::run(&api, &id, identity, plan).await });
        match publishing.await {
            Ok(done) => done,
            Err(err) => {
                let problem = Problem::new(Kind::Internal, format!("the submission broke off: {err}"));
                Err(problem.outcome(Outcome::Unknown))
            }
        }
    }
}
