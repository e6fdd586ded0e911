//! A Python Celery 5.7 client, and our worker in the place of Python's.

use crate::stage::Stage;
use serde_json::{Value, json};

/// Runs a Python program whose last printed line is JSON.
async fn ask(stage: &Stage, program: &str) -> Value {
    let prelude = "import json\nfrom peer_app import *\nTIMEOUT = dict(timeout=30)\n";
    let program = format!("{prelude}{program}\nprint(json.dumps(answer, default=str))");
    stage.python().run(&program).await.json()
}

#[tokio::test]
async fn gets_results_of_mixed_calls() {
    let stage = Stage::new("results").await;
    let _worker = stage.worker(&["-c", "4"]).await;
    let answer = ask(
        &stage,
        r#"
calls = {
    'positional': add.delay(2, 3),
    'keyword': add.delay(x=2, y=3),
    'mixed': add.s(2, y=3).delay(),
    'by name': app.send_task('demo.mul', args=[6], kwargs={'y': 7}),
    'list': xsum.delay(list(range(1000))),
    'default': randrange.delay(0, 1),
    'step': randrange.delay(10, 20, step=20),
    'hash': hash_.delay('celeriac', 1000),
    'negative': mul.delay(-3, 5),
}
answer = {name: result.get(**TIMEOUT) for name, result in calls.items()}
answer['hash'] = answer['hash'] == hash_('celeriac', 1000)
"#,
    )
    .await;
    assert_eq!(
        answer,
        json!({"positional": 5, "keyword": 5, "mixed": 5, "by name": 42, "list": 499_500, "default": 0,
               "step": 10, "hash": true, "negative": -15})
    );
}

#[tokio::test]
async fn gets_exceptions_with_type_message_and_traceback() {
    let stage = Stage::new("exceptions").await;
    let _worker = stage.worker(&["-c", "2"]).await;
    let answer = ask(
        &stage,
        r#"
def call(*args, **kwargs):
    return app.send_task('demo.add', args, kwargs)

def outcome(result):
    try:
        return result.get(**TIMEOUT)
    except Exception as error:
        meta = json.loads(app.backend.get(app.backend.get_key_for_task(result.id)))
        return {'state': result.state, 'class': type(error).__name__, 'text': str(error), 'raw': meta['result'],
                'traceback': bool(result.traceback), 'failed': result.failed()}
answer = {
    'raised': outcome(fail.delay('on purpose')),
    'missing': outcome(call(1)),
    'superfluous': outcome(call(1, 2, 3)),
    'unknown keyword': outcome(call(1, 2, z=3)),
    'twice': outcome(call(1, x=2)),
    'not registered': outcome(app.send_task('demo.nothing')),
    'empty range': outcome(randrange.delay(53, 45)),
}
"#,
    )
    .await;
    let raised = &answer["raised"];
    assert_eq!(raised["state"], "FAILURE", "{raised:#}");
    assert_eq!(raised["text"], "on purpose", "{raised:#}");
    assert_eq!(raised["raw"]["exc_message"], json!(["on purpose"]), "{raised:#}");
    assert_eq!(raised["raw"]["exc_type"], raised["class"], "{raised:#}");
    assert_eq!(raised["traceback"], true, "{raised:#}");
    for (call, text) in [
        ("missing", "() missing 1 required positional argument: 'y'"),
        ("superfluous", " positional arguments but 3 were given"),
        ("unknown keyword", "() got an unexpected keyword argument 'z'"),
        ("twice", "() got multiple values for argument 'x'"),
    ] {
        assert_eq!(answer[call]["class"], "TypeError", "{call}: {answer:#}");
        let said = answer[call]["text"].as_str().unwrap();
        assert!(said.ends_with(text), "{call}: {said}");
    }
    assert_eq!(answer["not registered"]["class"], "NotRegistered", "{answer:#}");
    assert_eq!(answer["empty range"]["state"], "FAILURE", "{answer:#}");
}

#[tokio::test]
async fn sees_progress_and_retries() {
    let stage = Stage::new("progress").await;
    let _worker = stage.worker(&["-c", "2"]).await;
    let answer = ask(
        &stage,
        r#"
seen = []
value = progress.delay(4).get(on_message=lambda meta: seen.append((meta['status'], meta['result'])), **TIMEOUT)
flaky_states = set()
retried = flaky.delay(2).get(on_message=lambda meta: flaky_states.add(meta['status']), **TIMEOUT)
answer = {
    'value': value,
    'progress': [result for state, result in seen if state == 'PROGRESS'],
    'retried': retried,
    'retry seen': 'RETRY' in flaky_states,
}
"#,
    )
    .await;
    assert_eq!(answer["value"], 4, "{answer:#}");
    let progress = answer["progress"].as_array().unwrap();
    assert!(progress.len() >= 2 && progress.iter().all(Value::is_object), "{answer:#}");
    assert_eq!(answer["retried"], 2, "{answer:#}");
    assert_eq!(answer["retry seen"], true, "{answer:#}");
}

#[tokio::test]
async fn schedules_expires_and_ignores() {
    let stage = Stage::new("options").await;
    let _worker = stage.worker(&["-c", "2"]).await;
    let answer = ask(
        &stage,
        r#"
import datetime
from celery.exceptions import TaskRevokedError
now = lambda: datetime.datetime.now(datetime.timezone.utc)
begin = now()
later = add.apply_async((1, 1), countdown=1.5)
eta = add.apply_async((2, 2), eta=now() + datetime.timedelta(seconds=1.5))
expired = add.apply_async((3, 3), expires=now() - datetime.timedelta(seconds=5))
ignored = add.apply_async((4, 4), ignore_result=True)
unmet = add.apply_async((5, 5), expires=3600)
answer = {'values': [later.get(**TIMEOUT), eta.get(**TIMEOUT), unmet.get(**TIMEOUT)]}
answer['waited'] = (now() - begin).total_seconds() >= 1.5
try:
    expired.get(**TIMEOUT)
except TaskRevokedError as error:
    answer['expired'] = [expired.state, str(error)]
answer['ignored'] = app.backend.get(app.backend.get_key_for_task(ignored.id))
"#,
    )
    .await;
    assert_eq!(
        answer,
        json!({"values": [2, 4, 10], "waited": true, "expired": ["REVOKED", "expired"], "ignored": null})
    );
}

#[tokio::test]
async fn collects_a_group() {
    let stage = Stage::new("group").await;
    let _worker = stage.worker(&["-c", "4"]).await;
    let answer = ask(
        &stage,
        "from celery import group\nanswer = group(add.s(i, y=i) for i in range(50))().get(**TIMEOUT)",
    )
    .await;
    assert_eq!(answer, json!((0..50).map(|i| 2 * i).collect::<Vec<_>>()));
}

#[tokio::test]
async fn stores_what_celery_stores() {
    let stage = Stage::new("meta").await;
    let _worker = stage.worker(&["-c", "1"]).await;
    let answer = ask(
        &stage,
        r#"
import datetime
result = add.delay(2, y=3)
result.get(**TIMEOUT)
key = app.backend.get_key_for_task(result.id)
meta = json.loads(app.backend.get(key))
answer = {
    'meta': {name: meta[name] for name in ('status', 'result', 'traceback', 'children', 'task_id')},
    'id': result.id,
    'date': type(result.date_done).__name__,
    'recent': abs((datetime.datetime.now(datetime.timezone.utc) - result.date_done.replace(
        tzinfo=datetime.timezone.utc)).total_seconds()) < 60,
    'expires': 86000 < app.backend.client.ttl(key) <= 86400,
}
"#,
    )
    .await;
    let expected =
        json!({"status": "SUCCESS", "result": 5, "traceback": null, "children": [], "task_id": answer["id"]});
    assert_eq!(answer["meta"], expected, "{answer:#}");
    assert_eq!(
        [&answer["date"], &answer["recent"], &answer["expires"]],
        [&json!("datetime"), &json!(true), &json!(true)]
    );
}
