//! Tasks that compute something.

use std::fs::OpenOptions;
use std::io::Write as _;

use celery_protocol::ext::Bytes;
use celery_worker::prelude::*;
use serde_json::value::RawValue;

use crate::Builder;
use crate::keys::Redis;

pub(crate) fn register(worker: Builder) -> Builder {
    worker
        .task::<add>()
        .task::<add_not_typed>()
        .task::<add_ignore_result>()
        .task::<add_with_result>()
        .task::<add_pydantic>()
        .task::<add_pydantic_string_annotations>()
        .task::<mul>()
        .task::<identity>()
        .task::<tsum>()
        .task::<xsum>()
        .task::<delayed_sum>()
        .task::<delayed_sum_with_soft_guard>()
        .task::<sleeping>()
        .task::<print_unicode>()
        .task::<write_to_file_and_return_int>()
        .task::<redis_echo>()
        .task::<redis_count>()
        .task::<return_exception>()
        .task::<replaced_with_me>()
        .task::<ping>()
}

/// Python's `+`: numbers, texts and lists.
pub(crate) fn plus(x: &Value, y: &Value) -> TaskResult<Value> {
    match (x, y) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => {
                Ok(a.checked_add(b).map_or_else(|| json!(a as f64 + b as f64), Value::from))
            }
            _ => Ok(json!(a.as_f64().unwrap_or_default() + b.as_f64().unwrap_or_default())),
        },
        (Value::String(a), Value::String(b)) => Ok(Value::from(format!("{a}{b}"))),
        (Value::Array(a), Value::Array(b)) => Ok(Value::from([&a[..], &b[..]].concat())),
        _ => raise!(
            "TypeError",
            "unsupported operand type(s) for +: '{}' and '{}'",
            type_name(x),
            type_name(y)
        ),
    }
}

/// Python's `*`: numbers, and lists that are repeated.
fn times(x: &Value, y: &Value) -> TaskResult<Value> {
    match (x, y) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => {
                Ok(a.checked_mul(b).map_or_else(|| json!(a as f64 * b as f64), Value::from))
            }
            _ => Ok(json!(a.as_f64().unwrap_or_default() * b.as_f64().unwrap_or_default())),
        },
        (Value::Array(list), Value::Number(count)) | (Value::Number(count), Value::Array(list))
            if !count.is_f64() =>
        {
            let count = usize::try_from(count.as_i64().unwrap_or_default()).unwrap_or_default();
            Ok(Value::from(vec![list.as_slice(); count].concat()))
        }
        _ => raise!(
            "TypeError",
            "unsupported operand type(s) for *: '{}' and '{}'",
            type_name(x),
            type_name(y)
        ),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// Python's `sum`.
pub(crate) fn sum(values: &[Value]) -> TaskResult<Value> {
    values.iter().try_fold(json!(0), |sum, value| plus(&sum, value))
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
    }
}

/// Adds two or three numbers.
#[task(name = "t.integration.tasks.add")]
pub(crate) async fn add(x: Value, y: Value, z: Option<Value>) -> TaskResult<Value> {
    let sum = plus(&x, &y)?;
    match z.filter(is_true) {
        Some(z) => plus(&sum, &z),
        None => Ok(sum),
    }
}

#[task(name = "t.integration.tasks.add_not_typed")]
async fn add_not_typed(x: Value, y: Value) -> TaskResult<Value> {
    plus(&x, &y)
}

#[task(name = "t.integration.tasks.add_ignore_result", ignore_result)]
async fn add_ignore_result(x: Value, y: Value) -> TaskResult<Value> {
    plus(&x, &y)
}

#[task(name = "t.integration.tasks.add_with_result", ignore_result = false)]
async fn add_with_result(x: Value, y: Value) -> TaskResult<Value> {
    plus(&x, &y)
}

#[derive(Serialize, Deserialize)]
struct AddParameters {
    x: i64,
    y: i64,
}

#[derive(Serialize, Deserialize)]
struct AddResult {
    result: i64,
}

/// What pydantic is to Python, serde is here: parameters and results are structs.
#[task(name = "t.integration.tasks.add_pydantic")]
async fn add_pydantic(data: AddParameters) -> TaskResult<AddResult> {
    Ok(AddResult { result: data.x + data.y })
}

#[task(name = "t.integration.tasks.add_pydantic_string_annotations")]
async fn add_pydantic_string_annotations(data: AddParameters) -> TaskResult<AddResult> {
    add_pydantic(data).await
}

#[task(name = "t.integration.tasks.mul")]
async fn mul(x: Value, y: Value) -> TaskResult<Value> {
    times(&x, &y)
}

/// Any value, word for word: a `RawValue` is not even looked at.
#[task(name = "t.integration.tasks.identity")]
pub(crate) async fn identity(x: Box<RawValue>) -> TaskResult<Box<RawValue>> {
    Ok(x)
}

#[task(name = "t.integration.tasks.tsum")]
pub(crate) async fn tsum(nums: Vec<Value>) -> TaskResult<Value> {
    sum(&nums)
}

/// Sum of numbers and of lists of numbers.
#[task(name = "t.integration.tasks.xsum")]
async fn xsum(nums: Vec<Value>) -> TaskResult<Value> {
    nums.iter().try_fold(json!(0), |total, num| match num {
        Value::Array(inner) => plus(&total, &sum(inner)?),
        number => plus(&total, number),
    })
}

fn one() -> f64 {
    1.0
}

#[task(name = "t.integration.tasks.delayed_sum")]
async fn delayed_sum(numbers: Vec<Value>, #[serde(default = "one")] pause_time: f64) -> TaskResult<Value> {
    tokio::time::sleep(Duration::from_secs_f64(pause_time)).await;
    sum(&numbers)
}

/// Returns 0 when its soft time limit passes.
#[task(name = "t.integration.tasks.delayed_sum_with_soft_guard")]
async fn delayed_sum_with_soft_guard(
    #[ctx] ctx: Context,
    numbers: Vec<Value>,
    #[serde(default = "one")] pause_time: f64,
) -> TaskResult<Value> {
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs_f64(pause_time)) => sum(&numbers),
        why = ctx.interrupted() => match why {
            Interrupt::SoftTimeLimit => Ok(json!(0)),
            other => Err(other.into()),
        },
    }
}

#[task(name = "t.integration.tasks.sleeping")]
async fn sleeping(i: f64, #[kwargs] _ignored: Map<String, Value>) -> TaskResult<()> {
    tokio::time::sleep(Duration::from_secs_f64(i)).await;
    Ok(())
}

fn log_message() -> String {
    "håå®ƒ valmuefrø".to_owned()
}

fn print_message() -> String {
    "hiöäüß".to_owned()
}

#[task(name = "t.integration.tasks.print_unicode")]
async fn print_unicode(
    #[serde(default = "log_message")] log_message: String,
    #[serde(default = "print_message")] print_message: String,
) -> TaskResult<()> {
    tracing::warn!("{log_message}");
    println!("{print_message}");
    Ok(())
}

#[task(name = "t.integration.tasks.write_to_file_and_return_int")]
fn write_to_file_and_return_int(file_name: String, i: i64) -> TaskResult<i64> {
    let mut file = OpenOptions::new().append(true).create(true).open(file_name)?;
    writeln!(file, "{i}")?;
    Ok(i)
}

fn redis_echo_key() -> String {
    "redis-echo".to_owned()
}

fn redis_count_key() -> String {
    "redis-count".to_owned()
}

/// Appends the message to a list.
#[task(name = "t.integration.tasks.redis_echo")]
pub(crate) async fn redis_echo(
    #[state] redis: Redis,
    message: Value,
    #[serde(default = "redis_echo_key")] redis_key: String,
) -> TaskResult<()> {
    let kind = type_name(&message);
    if let Value::Number(number) = message {
        return redis.push(&redis_key, number.to_string()).await;
    }
    // Python's bytes, or a text.
    match serde_json::from_value::<Bytes>(message) {
        Ok(bytes) => redis.push(&redis_key, bytes.0).await,
        Err(_) => raise!("TypeError", "Redis takes bytes, texts and numbers, not '{kind}'"),
    }
}

#[task(name = "t.integration.tasks.redis_count")]
async fn redis_count(
    #[state] redis: Redis,
    #[serde(default = "redis_count_key")] redis_key: String,
) -> TaskResult<()> {
    redis.increment(&redis_key).await
}

#[task(name = "t.integration.tasks.return_exception")]
async fn return_exception(e: Value) -> TaskResult<(Value, bool)> {
    Ok((e, true))
}

#[task(name = "t.integration.tasks.replaced_with_me")]
pub(crate) async fn replaced_with_me() -> TaskResult<bool> {
    Ok(true)
}

/// Whether the worker is ready.
#[task(name = "celery.ping")]
async fn ping() -> TaskResult<String> {
    Ok("pong".to_owned())
}
