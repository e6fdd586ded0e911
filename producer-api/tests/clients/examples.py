"""The examples of the documents, by the Python client that openapi-python-client makes of openapi.json.

    PYTHONPATH=folder-of-the-client python examples.py http://127.0.0.1:8080

A worker must serve the `demo.*` tasks. The last line says what was seen.
"""
import json
import sys
import uuid

from producer_client import Client
from producer_client.api.groups import read_group, read_group_results
from producer_client.api.system import livez
from producer_client.api.tasks import (
    call_task, forget_task, list_tasks, lookup_tasks, read_result, read_task, submit_batch, submit_canvas, submit_task,
    submit_task_as,
)
from producer_client.models import (
    BatchTask, CanvasNode, LookupRequest, Outcome, Problem, SubmitBatch, SubmitCanvas, SubmitTask,
    SubmitTaskKwargsType0, Task, TaskHandle,
)


def expect(answer, status, kind):
    assert answer.status_code == status, (answer.status_code, answer.content)
    assert isinstance(answer.parsed, kind), (kind, answer.parsed)
    return answer.parsed


def last(answer):
    return answer.headers["location"]


with Client(base_url=sys.argv[1], timeout=60) as client:
    assert livez.sync_detailed(client=client).status_code == 200

    # Submit, wait, result.
    kwargs = SubmitTaskKwargsType0()
    kwargs["y"] = 3
    mine = f"sum-{uuid.uuid4()}"
    task = SubmitTask(task="demo.add", args=[2], kwargs=kwargs, task_id=mine)
    handle = expect(submit_task.sync_detailed(client=client, body=task), 202, TaskHandle)
    assert handle.id == mine and handle.state == "PENDING", handle
    result = read_result.sync_detailed(mine, client=client, wait=20.0)
    assert (result.status_code, result.parsed) == (200, 5), result
    known = expect(submit_task_as.sync_detailed(mine, client=client, body=task), 200, Task)
    shown = expect(read_task.sync_detailed(mine, client=client), 200, Task)
    assert known.deduplicated and shown.state == "SUCCESS" and shown.result == 5, shown
    waited = submit_task.sync_detailed(client=client, body=SubmitTask(task="demo.mul", args=[6, 7]), wait=20.0)
    assert expect(waited, 200, Task).result == 42
    called = call_task.sync_detailed("demo.add", client=client, body=[2, 3])
    assert called.status_code == 200 and json.loads(called.content)["result"] == 5, called

    # What goes wrong is a problem with an outcome.
    lost = SubmitTask(task="demo.add", queue="no-such-queue")
    problem = expect(submit_task.sync_detailed(client=client, body=lost), 422, Problem)
    assert problem.type_ == "/problems/unroutable" and problem.outcome == Outcome.NOT_PUBLISHED, problem
    nobody = expect(read_task.sync_detailed("nobody", client=client), 404, Problem)
    assert nobody.type_ == "/problems/task-unknown", nobody

    # Many, as a group.
    tasks = [BatchTask(task="demo.add", args=[1, 2], ref="row-1"), BatchTask(task="demo.add", args=[3, 4])]
    batch = submit_batch.sync_detailed(client=client, body=SubmitBatch(tasks=tasks, group=True))
    assert batch.status_code == 202 and batch.parsed.items[0].ref == "row-1", batch
    group = batch.parsed.group_id
    results = read_group_results.sync_detailed(group, client=client, wait=20.0)
    assert (results.status_code, json.loads(results.content)) == (200, [3, 7]), results
    assert read_group.sync_detailed(group, client=client).parsed.successful
    ids = [item.task.id for item in batch.parsed.items]
    looked = lookup_tasks.sync_detailed(client=client, body=LookupRequest(ids=ids + ["nobody"]))
    assert (looked.parsed.ready, looked.parsed.unknown) == (2, 1), looked
    listed = list_tasks.sync_detailed(client=client, task="demo.*", limit=500)
    assert mine in [item.id for item in listed.parsed.items], listed

    # A workflow.
    add = lambda x, y: {"task": "demo.add", "args": [x, y]}
    chord = CanvasNode.from_dict({"chord": {"header": [add(1, 1), add(2, 2)], "body": {"task": "demo.xsum"}}})
    started = submit_canvas.sync_detailed(client=client, body=SubmitCanvas(canvas=chord))
    assert started.status_code == 202 and started.parsed.published == 2, started
    total = read_result.sync_detailed(started.parsed.id, client=client, wait=20.0)
    assert (total.status_code, total.parsed) == (200, 6), total

    assert forget_task.sync_detailed(mine, client=client).status_code == 204
print("submitted, waited, read, grouped, chained")
