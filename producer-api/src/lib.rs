//! HTTP in, Celery messages out: submit tasks, read states and results.
//!
//! A submission passes, in this order: [`middleware`] (id, log, measurement), [`auth`], [`extract`] (limits, strict
//! JSON), [`dto`] (types), [`plan`] (values; the exact message, pure), [`submit`] (record and publish). A reading passes
//! [`routes::results`], which puts the [`submission`] record and the result backend's state together in [`view`].
//! Whatever is refused on the way is a [`problem`].

pub mod auth;
pub mod canvas;
pub mod clock;
pub mod config;
pub mod dashboard;
pub mod dedupe;
pub mod depth;
pub mod dto;
pub mod extract;
pub mod gate;
pub mod hub;
pub mod idempotency;
pub mod json;
pub mod middleware;
pub mod plan;
pub mod policy;
pub mod prefer;
pub mod problem;
pub mod registry;
pub mod request_id;
pub mod routes;
pub mod sets;
pub mod sse;
pub mod startup;
pub mod state;
pub mod submission;
pub mod submit;
pub mod submitter;
pub mod telemetry;
pub mod tickets;
pub mod trace_context;
pub mod view;
pub mod wait;
