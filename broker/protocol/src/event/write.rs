//! Events to JSON, fields in Celery's order.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Event, EventBody, TaskEvent, TaskEventKind, WorkerEvent, WorkerEventKind};
use crate::pyjson;

/// The body of a message with one event.
///
/// # Errors
/// A float that JSON can't hold.
pub fn encode(event: &Event) -> Result<Vec<u8>, pyjson::EncodeError> {
    pyjson::to_vec(event)
}

/// The body of a `<group>.multi` message: always an array.
///
/// # Errors
/// A float that JSON can't hold.
pub fn encode_multi(events: &[Event]) -> Result<Vec<u8>, pyjson::EncodeError> {
    pyjson::to_vec(events)
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("hostname", &self.hostname)?;
        map.serialize_entry("utcoffset", &self.utcoffset)?;
        map.serialize_entry("pid", &self.pid)?;
        map.serialize_entry("clock", &self.clock)?;
        match &self.body {
            EventBody::Task(event) => task(&mut map, event)?,
            EventBody::Worker(event) => worker(&mut map, event)?,
            EventBody::Other { fields, .. } => {
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
            }
        }
        map.serialize_entry("timestamp", &self.timestamp)?;
        map.serialize_entry("type", &self.body.type_name())?;
        map.end()
    }
}

fn task<M: SerializeMap>(map: &mut M, event: &TaskEvent) -> Result<(), M::Error> {
    use TaskEventKind as Kind;
    let fields = &event.fields;
    if !event.uuid.is_empty() {
        map.serialize_entry("uuid", &event.uuid)?;
    }
    match event.kind {
        Kind::Sent => {
            map.serialize_entry("root_id", &fields.root_id)?;
            map.serialize_entry("parent_id", &fields.parent_id)?;
            map.serialize_entry("name", &fields.name)?;
            map.serialize_entry("args", &fields.args)?;
            map.serialize_entry("kwargs", &fields.kwargs)?;
            map.serialize_entry("retries", &fields.retries)?;
            map.serialize_entry("eta", &fields.eta)?;
            map.serialize_entry("expires", &fields.expires)?;
            map.serialize_entry("queue", &fields.queue)?;
            map.serialize_entry("exchange", &fields.exchange)?;
            map.serialize_entry("routing_key", &fields.routing_key)?;
        }
        Kind::Received => {
            map.serialize_entry("name", &fields.name)?;
            map.serialize_entry("args", &fields.args)?;
            map.serialize_entry("kwargs", &fields.kwargs)?;
            map.serialize_entry("root_id", &fields.root_id)?;
            map.serialize_entry("parent_id", &fields.parent_id)?;
            map.serialize_entry("retries", &fields.retries)?;
            map.serialize_entry("eta", &fields.eta)?;
            map.serialize_entry("expires", &fields.expires)?;
        }
        Kind::Succeeded => {
            map.serialize_entry("result", &fields.result)?;
            map.serialize_entry("runtime", &fields.runtime)?;
        }
        Kind::Failed | Kind::Retried => {
            map.serialize_entry("exception", &fields.exception)?;
            // An unregistered task's failure has no such field.
            if fields.traceback.is_some() || event.kind == Kind::Retried {
                map.serialize_entry("traceback", &fields.traceback)?;
            }
        }
        Kind::Revoked => {
            map.serialize_entry("terminated", &fields.terminated.unwrap_or(false))?;
            map.serialize_entry("signum", &fields.signum)?;
            map.serialize_entry("expired", &fields.expired.unwrap_or(false))?;
        }
        Kind::Rejected => map.serialize_entry("requeue", &fields.requeue.unwrap_or(false))?,
        Kind::Started | Kind::Cancelled | Kind::Custom(_) => {}
    }
    for (name, value) in &fields.extra {
        map.serialize_entry(name, value)?;
    }
    Ok(())
}

fn worker<M: SerializeMap>(map: &mut M, event: &WorkerEvent) -> Result<(), M::Error> {
    let status = &event.status;
    if !matches!(event.kind, WorkerEventKind::Other(_)) {
        map.serialize_entry("freq", &status.freq)?;
        // The answer to the control command `heartbeat` lacks these three.
        if let Some(active) = status.active {
            map.serialize_entry("active", &active)?;
        }
        if let Some(processed) = status.processed {
            map.serialize_entry("processed", &processed)?;
        }
        if let Some(loadavg) = status.loadavg {
            map.serialize_entry("loadavg", &loadavg)?;
        }
        map.serialize_entry("sw_ident", &status.sw_ident)?;
        map.serialize_entry("sw_ver", &status.sw_ver)?;
        map.serialize_entry("sw_sys", &status.sw_sys)?;
    }
    for (name, value) in &status.extra {
        map.serialize_entry(name, value)?;
    }
    Ok(())
}
