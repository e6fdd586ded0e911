"""Records the events of a real Celery cluster, and what Celery's own State makes of them.

    CELERY_BROKER_URL=amqp://… CELERY_RESULT_BACKEND=redis://… python record.py FOLDER

Starts two prefork workers with `-E`, sends them one of everything, and writes into FOLDER
  events.jsonl    one message per line: its body as it came off the wire, and when
  expected.json   tasks and workers as celery.events.State knows them after the last line
The test `replay` of flower-lite feeds the first to the monitor and compares with the second. To record anew:
`cargo test -p flower-lite --test api -- --ignored record`.
"""
import json
import os
import subprocess
import sys
import threading
import time

from celery import Celery, chain, chord, group
from celery.events.state import State
from kombu import Consumer, Exchange, Queue

HERE = os.path.dirname(os.path.abspath(__file__))

app = Celery('record')
app.conf.update(
    broker_url=os.environ['CELERY_BROKER_URL'],
    result_backend=os.environ['CELERY_RESULT_BACKEND'],
    task_send_sent_event=True,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
)


@app.task(name='rec.add')
def add(x, y):
    return x + y


@app.task(name='rec.fail')
def fail(message):
    raise ValueError(message)


@app.task(name='rec.flaky', bind=True)
def flaky(self, times):
    if self.request.retries < times:
        raise self.retry(countdown=0.2, exc=OSError('not yet'))
    return self.request.retries


@app.task(name='rec.total')
def total(numbers):
    return sum(numbers)


@app.task(name='rec.nap')
def nap(seconds):
    time.sleep(seconds)


@app.task(name='rec.steps', bind=True)
def steps(self, count):
    for step in range(count):
        self.send_event('task-progress', done=step + 1, of=count)
        time.sleep(0.05)


@app.task(name='rec.parent', bind=True)
def parent(self):
    return [add.delay(1, n).id for n in range(3)]


class Recorder(threading.Thread):
    """Writes down what comes out of the exchange, and feeds it to Celery's State."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.file = open(path, 'w')
        self.state = State()
        self.ready = threading.Event()
        self.stopping = threading.Event()

    def run(self):
        with app.connection() as connection:
            queue = Queue('', Exchange('celeryev', 'topic'), routing_key='#', exclusive=True, auto_delete=True)
            with Consumer(connection, [queue], callbacks=[self.take], accept=['json'], no_ack=True):
                self.ready.set()
                while not self.stopping.is_set():
                    try:
                        connection.drain_events(timeout=0.2)
                    except TimeoutError:
                        pass
        self.file.close()

    def take(self, body, message):
        received = time.time()
        # Tracebacks name files: where they are here is nobody's business.
        text = json.dumps(body, ensure_ascii=False, separators=(',', ':'))
        body = json.loads(text.replace(HERE, '/app').replace(sys.prefix, '/venv'))
        json.dump({'received': received, 'body': body}, self.file, ensure_ascii=False, separators=(',', ':'))
        self.file.write('\n')
        for event in body if isinstance(body, list) else [body]:
            self.state.event(dict(event, local_received=received))


def worker(name):
    return subprocess.Popen([
        sys.executable, '-m', 'celery', '-A', 'record', 'worker', '-E', '-c', '2', '-n', f'{name}@record',
        '--loglevel', 'WARNING',
    ], cwd=HERE)


def wait(what, ready, seconds=60):
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise SystemExit(f'{what} did not happen in {seconds} s')
        time.sleep(0.05)


def send_one_of_everything():
    results = [
        add.delay(2, y=3),
        add.apply_async((1, 1), countdown=0.5),
        fail.delay('ünïcode <b>&"quotes"\''),
        flaky.delay(2),
        steps.delay(4),
        parent.delay(),
        add.delay('x' * 3000, 'y'),
        chain(add.s(1, 2), add.s(3), add.s(4)).delay(),
        chord(group(add.s(n, n) for n in range(4)), total.s()).delay(),
    ]
    revoked = nap.apply_async((0.1,), countdown=3)
    revoked.revoke()
    late = add.apply_async((0, 0), countdown=2, expires=1)
    killed = nap.delay(30)
    wait('the long task starts', lambda: app.control.inspect(timeout=2).active() and any(
        task['id'] == killed.id for tasks in app.control.inspect(timeout=2).active().values() for task in tasks))
    killed.revoke(terminate=True)
    ended = results + [killed]
    wait('the end of all tasks', lambda: all(result.ready() for result in ended))
    return [result.id for result in ended] + [revoked.id, late.id]


def expected(state):
    fields = ['name', 'state', 'args', 'kwargs', 'result', 'exception', 'traceback', 'runtime', 'retries', 'root_id',
              'parent_id', 'sent', 'received', 'started', 'succeeded', 'failed', 'retried', 'revoked', 'rejected',
              'routing_key', 'exchange', 'client']
    tasks = {}
    for uuid, task in state.tasks.items():
        tasks[uuid] = {field: getattr(task, field) for field in fields}
        tasks[uuid]['worker'] = task.worker.hostname if task.worker else None
        tasks[uuid]['children'] = sorted(child.uuid for child in task.children)
    workers = {
        name: {field: getattr(worker, field)
               for field in ['pid', 'freq', 'active', 'processed', 'loadavg', 'sw_ident', 'sw_ver', 'sw_sys']}
        for name, worker in state.workers.items()
    }
    return {'tasks': tasks, 'workers': workers, 'event_count': state.event_count}


def main(folder):
    recorder = Recorder(os.path.join(folder, 'events.jsonl'))
    recorder.start()
    recorder.ready.wait(30)
    workers = [worker('alpha'), worker('beta')]
    try:
        wait('both workers', lambda: len(app.control.ping(timeout=1)) == 2)
        ids = send_one_of_everything()
        final = {'SUCCESS', 'FAILURE', 'REVOKED'}
        wait('the events of all tasks', lambda: all(
            uuid in recorder.state.tasks and recorder.state.tasks[uuid].state in final for uuid in ids))
        time.sleep(2.5)  # one more heartbeat with the final numbers
    finally:
        workers[1].terminate()
        workers[1].wait(30)
        time.sleep(1)
        recorder.stopping.set()
        recorder.join(10)
        workers[0].terminate()
        workers[0].wait(30)
    with open(os.path.join(folder, 'expected.json'), 'w') as file:
        json.dump(expected(recorder.state), file, indent=1, sort_keys=True, ensure_ascii=False)
        file.write('\n')


if __name__ == '__main__':
    main(sys.argv[1])
