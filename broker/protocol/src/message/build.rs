//! From a call with decided options to the message that is published.

use super::{Body, Embed, Headers, Message, Properties, Signatures};
use crate::{RawArgs, RawKwargs, TaskId, TaskName, content, options::Effective, pyjson::EncodeError, repr};

/// A call that is about to be sent.
#[derive(Debug, Clone)]
pub struct NewCall {
    /// The task.
    pub task: TaskName,
    /// The id of the call.
    pub id: TaskId,
    /// Positional arguments.
    pub args: RawArgs,
    /// Keyword arguments.
    pub kwargs: RawKwargs,
    /// How to send it.
    pub options: Effective,
    /// The node that sends it, `gen<pid>@<host>` by custom.
    pub origin: String,
}

impl NewCall {
    /// The message.
    ///
    /// # Errors
    /// The compression that is asked for has no writer here.
    pub fn into_message(self) -> Result<Message, EncodeError> {
        let Self { task, id, args, kwargs, options, origin } = self;
        let Effective { queue, exchange, priority, eta, expires, expires_in, time_limits, .. } = options;
        let rest = options.rest;
        let (delivery_mode, reply_to, correlation_id) = (rest.delivery_mode, rest.reply_to, id.to_string());
        // Celery's routes say 0 where no queue is named, and nothing where one is
        let default_priority = if queue.is_none() && exchange.is_none() { Some(0) } else { None };
        let headers = Headers {
            shadow: rest.shadow,
            eta,
            expires,
            group: rest.group_id,
            group_index: rest.group_index,
            retries: rest.retries.unwrap_or(0),
            time_limits,
            root_id: Some(rest.root_id.unwrap_or_else(|| id.clone())),
            parent_id: rest.parent_id,
            argsrepr: Some(repr::argsrepr(args.as_slice())),
            kwargsrepr: Some(repr::kwargsrepr(kwargs.as_slice())),
            origin: Some(origin),
            ignore_result: options.ignore_result,
            replaced_task_nesting: rest.replaced_task_nesting.unwrap_or(0),
            stamped_headers: rest.stamped_headers,
            stamps: rest.stamps,
            compression: options.compression.map(|method| method.mime().to_owned()),
            extra: rest.headers.into_iter().filter(|(name, _)| !is_own(name)).collect(),
            ..Headers::new(task, id)
        };
        let list = |signatures: Vec<_>| {
            if signatures.is_empty() { Signatures::default() } else { signatures.into() }
        };
        let embed = Embed {
            callbacks: list(rest.link),
            errbacks: list(rest.link_error),
            chain: rest.chain.map(Signatures::new).unwrap_or_default(),
            chord: rest.chord,
            ..Embed::default()
        };
        let json = Body { args, kwargs, embed }.encode_json();
        let (content_type, encoding, body) = content::written(options.serializer, json.into())?;
        let body = match options.compression {
            None => body,
            Some(method) => content::compress(method, &body)
                .ok_or_else(|| EncodeError(format!("no writer for {}", method.mime())))?,
        };
        let properties = Properties {
            content_type: Some(content_type.to_owned()),
            content_encoding: Some(encoding.to_owned()),
            delivery_mode: Some(delivery_mode.unwrap_or(Properties::PERSISTENT)),
            priority: priority.or(default_priority),
            correlation_id: Some(correlation_id),
            reply_to,
            expiration: expires_in.map(|time| time.as_millis().to_string()),
            ..Properties::default()
        };
        Ok(Message { properties, headers, body: body.into() })
    }
}

/// Whether a header is one of protocol 2's, which a caller can't set by the option `headers`.
fn is_own(name: &str) -> bool {
    Headers::NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Limits, WireTime,
        content::Compression,
        options::{SendOptions, Serializer, TaskOptions, resolve},
        pyjson,
    };

    #[test]
    fn a_call_becomes_celerys_message() {
        let options: SendOptions = SendOptions::from_signature(
            &pyjson::from_str(r#"{"queue": "mail", "expires": 60, "time_limit": 30, "soft_time_limit": 20.5, "headers": {"x-h": "v", "id": "no"}}"#)
                .unwrap(),
        )
        .unwrap();
        let now = WireTime::parse("2026-11-24T02:51:34.920842+00:00").unwrap();
        let effective =
            resolve(options, SendOptions::default(), &TaskOptions::DEFAULT, &TaskOptions::DEFAULT, now);
        let mut args = RawArgs::new();
        args.push(&1).unwrap();
        let call = NewCall {
            task: TaskName::parse("t.add").unwrap(),
            id: TaskId::parse("a").unwrap(),
            args,
            kwargs: RawKwargs::new(),
            options: effective,
            origin: "gen1@h".to_owned(),
        };
        let message = call.into_message().unwrap();
        let raw = message.encode();
        assert_eq!(
            &raw.body[..],
            br#"[[1], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#
        );
        assert_eq!(raw.properties.expiration.as_deref(), Some("60000"));
        assert_eq!(raw.properties.priority, None);
        assert_eq!(raw.headers["timelimit"], serde_json::json!([30, 20.5]));
        assert_eq!(raw.headers["expires"], "2026-11-24T02:52:34.920842+00:00");
        assert_eq!(raw.headers["argsrepr"], "(1,)");
        assert_eq!(raw.headers["root_id"], "a");
        assert_eq!(raw.headers["x-h"], "v");
        assert_eq!(raw.headers["id"], "a");
        assert_eq!(Message::decode(raw, &Limits::DEFAULT).unwrap(), message);
    }

    #[test]
    fn other_serializers_are_read_back() {
        let limits = Limits { accept: content::Accept::ALL, ..Limits::DEFAULT };
        for (serializer, encoding) in [(Serializer::Msgpack, "binary"), (Serializer::Yaml, "utf-8")] {
            let mut args = RawArgs::new();
            args.push(&("é", 1.5, [1])).unwrap();
            let call = NewCall {
                task: TaskName::parse("t").unwrap(),
                id: TaskId::parse("a").unwrap(),
                args: args.clone(),
                kwargs: RawKwargs::new(),
                options: Effective { serializer, ..Effective::default() },
                origin: String::new(),
            };
            let message = call.into_message().unwrap();
            assert_eq!(message.properties.content_encoding.as_deref(), Some(encoding));
            assert_eq!(message.body(&limits).unwrap().args, args);
            let refused = message.body(&Limits::DEFAULT).unwrap_err();
            assert_eq!(refused.reason, crate::Reason::ContentDisallowed);
        }
    }

    #[test]
    fn compressed_bodies_are_read_back() {
        let effective = Effective { compression: Some(Compression::Zlib), ..Effective::default() };
        let call = NewCall {
            task: TaskName::parse("t").unwrap(),
            id: TaskId::parse("a").unwrap(),
            args: RawArgs::new(),
            kwargs: RawKwargs::new(),
            options: effective,
            origin: String::new(),
        };
        let message = call.into_message().unwrap();
        assert_eq!(message.headers.compression.as_deref(), Some("application/x-gzip"));
        assert_eq!(&message.body[..1], [0x78]);
        assert_eq!(message.body(&Limits::DEFAULT).unwrap(), Body::default());
        assert_eq!(message.properties.priority, Some(0));
    }
}
