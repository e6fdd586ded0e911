//! The demo tasks: each shows one thing that a task can do.

use std::fmt;

use celery_worker::WorkerBuilder;
use celery_worker::prelude::*;
use serde::Deserializer;
use serde::de::{self, Visitor};
use sha2::{Digest, Sha256};

/// Adds two numbers. Any JSON numbers: integers stay integers.
#[task(name = "demo.add")]
async fn add(x: Number, y: Number) -> TaskResult<Number> {
    x.checked_add(y)
}

/// Multiplies two numbers.
#[task(name = "demo.mul")]
async fn mul(x: Number, y: Number) -> TaskResult<Number> {
    x.checked_mul(y)
}

/// Sums a list of numbers: the body of a chord.
#[task(name = "demo.xsum")]
async fn xsum(numbers: Vec<Number>) -> TaskResult<Number> {
    numbers.into_iter().try_fold(Number::Integer(0), Number::checked_add)
}

/// A random number from `start` to before `stop`, as Python's `random.randrange`.
#[task(name = "demo.randrange")]
async fn randrange(start: i64, stop: i64, #[serde(default = "one")] step: i64) -> TaskResult<i64> {
    if step == 0 {
        return Err(Failure::new("ValueError", "zero step for randrange()").into());
    }
    let width = i128::from(stop) - i128::from(start);
    let step = i128::from(step);
    let count = if step > 0 { (width + step - 1) / step } else { (width + step + 1) / step };
    if count <= 0 {
        return Err(
            Failure::new("ValueError", format!("empty range in randrange({start}, {stop}, {step})")).into()
        );
    }
    let random = i128::try_from(uuid::Uuid::new_v4().as_u128() >> 1).unwrap_or_default();
    let number = i128::from(start) + step * (random % count);
    i64::try_from(number).map_err(|err| Failure::new("OverflowError", err).into())
}

/// Waits, and gives the seconds back.
#[task(name = "demo.sleep")]
async fn sleep(seconds: f64) -> TaskResult<f64> {
    let duration = Duration::try_from_secs_f64(seconds)
        .map_err(|_| Failure::new("ValueError", "sleep length must be non-negative"))?;
    tokio::time::sleep(duration).await;
    Ok(seconds)
}

/// Fails with a `RuntimeError`.
#[task(name = "demo.fail")]
async fn fail(message: String) -> TaskResult<()> {
    Err(Failure::new("RuntimeError", message).into())
}

/// Fails the first `fail_times` times and is retried; gives the number of retries back.
#[task(name = "demo.flaky", max_retries = 10)]
async fn flaky(#[ctx] ctx: Context, fail_times: u32) -> TaskResult<u32> {
    let retries = ctx.request().retries();
    if retries < fail_times {
        let reason = Failure::new("RuntimeError", format!("attempt {retries} failed on purpose"));
        return Err(ctx.retry().countdown(Duration::from_millis(100)).because(reason).into());
    }
    Ok(retries)
}

/// Reports its progress with the state PROGRESS.
#[task(name = "demo.progress")]
async fn progress(#[ctx] ctx: Context, steps: u32) -> TaskResult<u32> {
    for step in 1..=steps {
        ctx.update_state("PROGRESS", json!({ "current": step, "total": steps })).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(steps)
}

/// Iterated SHA-256 of a text: work for the processor, so a plain `fn`, which runs on the pool for blocking tasks.
#[task(name = "demo.hash")]
#[expect(clippy::needless_pass_by_value, reason = "a task owns its arguments")]
fn hash(
    #[ctx] ctx: Context,
    text: String,
    #[serde(default = "one_round")] rounds: u32,
) -> TaskResult<String> {
    let mut digest = Sha256::digest(text);
    for round in 1..rounds {
        if round % 4096 == 0 {
            ctx.checkpoint()?;
        }
        digest = Sha256::digest(digest);
    }
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn one() -> i64 {
    1
}

fn one_round() -> u32 {
    1
}

/// A JSON number that stays what it is: whole numbers are whole.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Number {
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        struct AnyNumber;

        impl Visitor<'_> for AnyNumber {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number::Integer(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
                i64::try_from(number).map(Number::Integer).map_err(|_| E::custom("a number beyond 64 bits"))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Number, E> {
                Ok(Number::Float(number))
            }
        }

        deserializer.deserialize_f64(AnyNumber)
    }
}

impl Number {
    fn checked_add(self, other: Number) -> TaskResult<Number> {
        self.calculate(other, i64::checked_add, |x, y| x + y)
    }

    fn checked_mul(self, other: Number) -> TaskResult<Number> {
        self.calculate(other, i64::checked_mul, |x, y| x * y)
    }

    fn calculate(
        self,
        other: Number,
        whole: fn(i64, i64) -> Option<i64>,
        any: fn(f64, f64) -> f64,
    ) -> TaskResult<Number> {
        match (self, other) {
            (Number::Integer(x), Number::Integer(y)) => match whole(x, y) {
                Some(result) => Ok(Number::Integer(result)),
                None => Err(Failure::new("OverflowError", "the result does not fit into 64 bits").into()),
            },
            (x, y) => Ok(Number::Float(any(x.as_f64(), y.as_f64()))),
        }
    }

    fn as_f64(self) -> f64 {
        match self {
            Number::Integer(number) => number as f64,
            Number::Float(number) => number,
        }
    }
}

/// Registers all of them.
pub(crate) fn register<S: Send + Sync + 'static>(worker: WorkerBuilder<S>) -> WorkerBuilder<S> {
    worker
        .task::<add>()
        .task::<mul>()
        .task::<xsum>()
        .task::<randrange>()
        .task::<sleep>()
        .task::<fail>()
        .task::<flaky>()
        .task::<progress>()
        .task::<hash>()
}
