//! The settings of a running worker as `inspect conf` and `inspect report` show them: Celery's names, no secrets. Some of
//! Celery's have one value here, and are shown with it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::worker::engine::Engine;

/// Name and value of each setting that has a meaning here. The broker's URL is without its password.
pub(super) fn shown(engine: &Engine) -> Vec<(&'static str, Value)> {
    let settings = &engine.settings;
    let tasks = settings.tasks.resolve(&celery_protocol::TaskOptions::DEFAULT);
    vec![
        ("accept_content", json!(settings.accept.names())),
        ("task_serializer", json!("json")),
        ("result_serializer", json!("json")),
        ("task_default_queue", json!(engine.celery.default_queue().as_str())),
        ("result_backend", json!(engine.celery.backend().name())),
        ("result_extended", json!(settings.result_extended)),
        ("worker_concurrency", json!(engine.pool.size())),
        ("worker_prefetch_multiplier", json!(settings.prefetch_multiplier)),
        ("worker_send_task_events", json!(engine.wants_events())),
        ("worker_enable_remote_control", json!(settings.remote_control)),
        ("worker_deduplicate_successful_tasks", json!(settings.deduplicate)),
        ("worker_eta_task_limit", json!(settings.eta_limit)),
        ("worker_eta_horizon", seconds(Some(settings.eta_horizon))),
        ("worker_heartbeat_interval", seconds(settings.heartbeat)),
        ("worker_shutdown_grace", seconds(settings.shutdown_grace)),
        ("result_backend_patience", seconds(Some(settings.store_patience))),
        ("task_acks_late", json!(tasks.acks_late)),
        ("task_acks_on_failure", json!(tasks.acks_on_failure)),
        ("task_acks_on_timeout", json!(tasks.acks_on_timeout)),
        ("task_ignore_result", json!(tasks.ignore_result)),
        ("task_store_errors_even_if_ignored", json!(tasks.store_errors_even_if_ignored)),
        ("task_track_started", json!(tasks.track_started)),
        ("task_time_limit", seconds(tasks.time_limit)),
        ("task_soft_time_limit", seconds(tasks.soft_time_limit)),
        ("task_reject_on_worker_lost", json!(tasks.reject_on_worker_lost)),
        ("worker_pool", json!(if settings.prefork { "prefork" } else { "tasks" })),
        ("worker_max_tasks_per_child", json!(settings.max_tasks_per_child)),
        ("worker_max_memory_per_child", json!(settings.max_memory_per_child)),
        ("worker_max_crashes", json!(settings.max_crashes)),
        ("worker_soft_shutdown_timeout", seconds(Some(settings.soft_shutdown_timeout))),
        ("worker_enable_soft_shutdown_on_idle", json!(settings.soft_shutdown_on_idle)),
        ("worker_cancel_long_running_tasks_on_connection_loss", json!(settings.cancel_on_connection_loss)),
        ("worker_revoke_expires", seconds(Some(settings.revoke_expires))),
        ("worker_state_db", json!(settings.statedb)),
        ("worker_cluster_rate_limits", json!(settings.cluster_limits)),
        ("broker_url", broker_url(&engine.celery.broker_info())),
        ("broker_heartbeat", engine.celery.broker_info()["heartbeat"].clone()),
        ("include", json!([])),
        ("deprecated_settings", Value::Null),
        ("worker_hijack_root_logger", json!(false)),
        ("worker_log_color", json!(false)),
        ("timezone", json!("UTC")),
        ("enable_utc", json!(true)),
    ]
}

fn seconds(duration: Option<Duration>) -> Value {
    json!(duration.map(|duration| duration.as_secs_f64()))
}

/// As Celery shows it: `amqp://user:**@host:5672//`.
fn broker_url(info: &Value) -> Value {
    let text = |name: &str| info.get(name).and_then(Value::as_str).unwrap_or_default();
    let scheme = if info["ssl"] == true { "amqps" } else { "amqp" };
    let (user, host, vhost) = (text("userid"), text("hostname"), text("virtual_host"));
    json!(format!("{scheme}://{user}:**@{host}:{}/{vhost}", info["port"]))
}
