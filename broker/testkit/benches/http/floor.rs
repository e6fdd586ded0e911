//! The floor: the smallest actix program that publishes Celery messages with confirms. It judges nothing, remembers
//! nothing, and does not notice when no queue took the message; what an API adds to it is the API's cost.

use actix_web::{App, HttpResponse, HttpServer, web};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How this program is told to be the floor.
pub(crate) const COMMAND: &str = "http-floor";

const QUEUE: &str = "celery";

#[derive(serde::Deserialize)]
struct Call {
    args: (i64, i64),
}

/// Serves on `port` until SIGTERM; each of the two actix workers has a channel of its own on one connection.
pub(crate) fn serve(broker: &str, port: &str) -> anyhow::Result<()> {
    let port: u16 = port.parse()?;
    actix_web::rt::System::new().block_on(async {
        let connection = Connection::connect(broker, ConnectionProperties::default()).await?;
        let channels = [channel(&connection).await?, channel(&connection).await?];
        let taken = Arc::new(AtomicUsize::new(0));
        let server = HttpServer::new(move || {
            let mine = channels[taken.fetch_add(1, Ordering::Relaxed) % channels.len()].clone();
            App::new().app_data(web::Data::new(mine)).route("/add", web::post().to(add))
        });
        server.workers(2).bind(("127.0.0.1", port))?.run().await?;
        Ok(())
    })
}

async fn channel(connection: &Connection) -> anyhow::Result<Channel> {
    let channel = connection.create_channel().await?;
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(QUEUE.into(), durable, FieldTable::default()).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

async fn add(channel: web::Data<Channel>, call: web::Json<Call>) -> HttpResponse {
    let id = uuid::Uuid::new_v4().to_string();
    let (x, y) = call.args;
    let body = format!(
        r#"[[{x}, {y}], {{}}, {{"callbacks": null, "errbacks": null, "chain": null, "chord": null}}]"#
    );
    let options = BasicPublishOptions::default();
    let sent =
        channel.basic_publish("".into(), QUEUE.into(), options, body.as_bytes(), properties(&id, x, y));
    let confirmed = match sent.await {
        Ok(confirm) => confirm.await.is_ok_and(|confirmation| confirmation.is_ack()),
        Err(_) => false,
    };
    match confirmed {
        true => HttpResponse::Accepted().json(serde_json::json!({ "id": id })),
        false => HttpResponse::ServiceUnavailable().finish(),
    }
}

fn properties(id: &str, x: i64, y: i64) -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_headers(headers(id, &format!("({x}, {y})")))
        .with_delivery_mode(2)
        .with_priority(0)
        .with_correlation_id(ShortString::from(id))
        .with_reply_to("6f5a1f0c-6d5a-3a92-8a3c-f6a5a3c2f3a1".into())
}

fn headers(id: &str, shown: &str) -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(LongString::from(text));
    let nothing = || AMQPValue::Void;
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("lang", text("py")),
        ("task", text("demo.add")),
        ("id", text(id)),
        ("shadow", nothing()),
        ("eta", nothing()),
        ("expires", nothing()),
        ("group", nothing()),
        ("group_index", nothing()),
        ("retries", AMQPValue::LongInt(0)),
        ("timelimit", AMQPValue::FieldArray(FieldArray::from(vec![nothing(), nothing()]))),
        ("root_id", text(id)),
        ("parent_id", nothing()),
        ("argsrepr", text(shown)),
        ("kwargsrepr", text("{}")),
        ("origin", text("floor@bench")),
        ("ignore_result", AMQPValue::Boolean(false)),
        ("replaced_task_nesting", AMQPValue::LongInt(0)),
        ("stamped_headers", nothing()),
        ("stamps", AMQPValue::FieldTable(FieldTable::default())),
    ] {
        headers.insert(ShortString::from(name), value);
    }
    headers
}
