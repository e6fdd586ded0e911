"""Random canvases, once on Python workers alone and once alternating between Python and Rust: the same outcome?

    CELERY_BROKER_URL=… CELERY_RESULT_BACKEND=… python mixed_trees.py --rust path/to/integration_tasks --trees 500

Each tree is made from a seed, so that a difference can be looked at again: `--seed S --first N --trees 1 -v`. Workers are
started here and ended by their pid: one of Celery's own on the queue `py`, ours on the queue `rust`. Exit 0 only if every
tree had the same value, states and errbacks both times.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import time
import types

from celery import Celery, chain, group
from celery.result import AsyncResult, GroupResult, allow_join_result

HERE = os.path.dirname(os.path.abspath(__file__))
PREFIX = 't.integration.tasks.'

app = Celery('mixed')
app.conf.update(
    broker_url=os.environ.get('CELERY_BROKER_URL', 'amqp://guest:guest@127.0.0.1:5672//'),
    result_backend=os.environ.get('CELERY_RESULT_BACKEND', 'redis://127.0.0.1:6379/0'),
    task_default_queue='py',
    broker_connection_retry_on_startup=True,
    result_extended=True,
)


def task(name, **options):
    return app.task(name=PREFIX + name, **options)


@task('add')
def add(x, y):
    return x + y


@task('mul')
def mul(x, y):
    return x * y


@task('identity')
def identity(x):
    return x


@task('xsum')
def xsum(numbers):
    return sum(sum(n) if isinstance(n, list) else n for n in numbers)


class ExpectedException(Exception):
    """What `fail` raises."""


# Celery looks the class up in the module that the message names, which is that of Celery's own suite.
ExpectedException.__module__ = 't.integration.tasks'
for name in ('t', 't.integration', 't.integration.tasks'):
    sys.modules.setdefault(name, types.ModuleType(name))
sys.modules['t.integration.tasks'].ExpectedException = ExpectedException


@task('fail')
def fail(*args):
    raise ExpectedException('Task expected to fail', *args)


@app.task(name='py.errback')
def errback(request_id):
    """An old-style errback: counts how often the task with this id was reported."""
    app.backend.client.incr('errbacks-' + request_id)
    app.backend.client.expire('errbacks-' + request_id, 3600)


class Trees:
    """Draws one tree. The shape depends on the seed alone, the queues on the mode."""

    def __init__(self, seed, mixed, fail_ratio, errbacks):
        self.random = random.Random(seed)
        self.mixed = mixed
        self.fail_ratio = fail_ratio
        self.errbacks = errbacks
        self.count = 0

    def queue(self):
        self.count += 1
        return 'rust' if self.mixed and self.count % 2 else 'py'

    def sig(self, name, *args, immutable=False):
        return app.signature(PREFIX + name, args=args, immutable=immutable, app=app).set(queue=self.queue())

    def leaf(self):
        """A task that takes the result before it."""
        roll = self.random.random()
        number = self.random.randrange(10)
        if self.random.random() < self.fail_ratio:
            return self.sig('fail', f'leaf {number}', immutable=True)
        if roll < 0.5:
            return self.sig('add', number)
        if roll < 0.7:
            return self.sig('mul', number)
        if roll < 0.85:
            return self.sig('identity')
        return self.sig('add', number, number, immutable=True)

    def step(self, depth):
        """Anything that maps a number to a number."""
        roll = self.random.random()
        if depth == 0 or roll < 0.3:
            return self.leaf()
        if roll < 0.6:
            return chain(self.step(depth - 1), self.step(depth - 1), app=app)
        width = self.random.randrange(1, 5)
        return group([self.step(depth - 1) for _ in range(width)], app=app) | self.sig('xsum')

    def start(self, depth):
        """Anything that needs no argument."""
        roll = self.random.random()
        if depth == 0 or roll < 0.2:
            if self.random.random() < self.fail_ratio:
                return self.sig('fail', 'start')
            return self.sig('add', self.random.randrange(10), self.random.randrange(10))
        if roll < 0.6:
            return chain(self.start(depth - 1), self.step(depth - 1), app=app)
        width = self.random.randrange(1, 5)
        header = group([self.start(depth - 1) for _ in range(width)], app=app)
        return header if roll > 0.9 else header | self.sig('xsum')

    def tree(self, depth):
        canvas = self.start(depth)
        if self.errbacks:
            canvas.link_error(errback.s().set(queue="py"))
        return canvas


def ids(result):
    """All task ids of a result tree, in an order that depends on the tree's shape alone."""
    found = []
    while result is not None:
        if isinstance(result, GroupResult):
            for child in result.results:
                found += ids(child)
        else:
            found.append(result.id)
        result = result.parent
    return found


def wait(results, seconds):
    """Waits until each result is ready, or nothing has changed for a while; says which are not ready."""
    all_ids = [task_id for result in results for task_id in ids(result)]
    client, backend = app.backend.client, app.backend
    seen, since, begin = None, time.monotonic(), time.monotonic()
    while time.monotonic() - begin < seconds:
        waiting = {i for i, result in enumerate(results) if not result.ready()}
        now = (client.mget(['errbacks-' + i for i in all_ids]),
               [bool(value) for value in client.mget([backend.get_key_for_task(i) for i in all_ids])])
        if now != seen:
            seen, since = now, time.monotonic()
        # A failed tree is ready before the last of its errbacks has run.
        if time.monotonic() - since > (3 if waiting else 0.5):
            break
        time.sleep(0.1)
    return waiting


def outcome(result, timed_out):
    """Value or exception of the whole, and of every task its state and how often its errback ran."""
    if timed_out:
        value = 'not ready'
    else:
        try:
            with allow_join_result():
                value = result.get(timeout=5, propagate=True)
        except Exception as exc:
            value = f'raised {type(exc).__name__}'
    tasks = []
    for task_id in ids(result):
        runs = app.backend.client.get('errbacks-' + task_id)
        tasks.append((AsyncResult(task_id, app=app).state, int(runs or 0)))
    return {'value': value, 'tasks': tasks}


def run(args, mixed):
    """Runs all trees, some at a time; a list of outcomes."""
    outcomes = []
    numbers = range(args.first, args.first + args.trees)
    for at in range(0, len(numbers), args.at_once):
        some = numbers[at:at + args.at_once]
        results = []
        for number in some:
            trees = Trees(f'{args.seed}-{number}', mixed, args.fail_ratio, args.fail_ratio > 0)
            results.append(trees.tree(args.depth).apply_async())
        late = wait(results, args.timeout)
        for i, result in enumerate(results):
            outcomes.append(outcome(result, i in late))
            if args.verbose:
                print(f'  tree {some[i]} {"mixed" if mixed else "pure"}: {outcomes[-1]}', flush=True)
    return outcomes


def start_workers(args):
    """Celery's own worker and ours, each on its queue."""
    env = dict(os.environ, PYTHONPATH=HERE)
    logs = args.logs or '.'
    os.makedirs(logs, exist_ok=True)
    python = [sys.executable, '-m', 'celery', '-A', 'mixed_trees', 'worker', '-Q', 'py', '-n', 'py@mixed', '-c', '2',
              '-l', 'WARNING', '--without-mingle', '--without-gossip']
    ours = dict(env, CONF_BROKER_URL=app.conf.broker_url, CONF_BACKEND_URL=app.conf.result_backend,
                CONF_REDIS_URL=app.conf.result_backend, CONF_CONCURRENCY='4', CONF_NODENAME='rust@mixed',
                CONF_QUEUES='rust')
    workers = []
    for name, command, environment in (('python', python, env), ('rust', [args.rust], ours)):
        log = open(os.path.join(logs, f'mixed-{name}.log'), 'w')
        workers.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
    for queue in ('py', 'rust'):
        probe = app.signature(PREFIX + 'identity', args=('hello',), app=app).set(queue=queue).apply_async()
        assert probe.get(timeout=30) == 'hello', queue
    return workers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rust', required=True, help='our worker: the example integration_tasks')
    parser.add_argument('--trees', type=int, default=500)
    parser.add_argument('--first', type=int, default=0)
    parser.add_argument('--seed', default='celeriac')
    parser.add_argument('--depth', type=int, default=3)
    parser.add_argument('--fail-ratio', type=float, default=0.0, help='share of the members that fail')
    parser.add_argument('--at-once', type=int, default=25)
    parser.add_argument('--timeout', type=float, default=60)
    parser.add_argument('--logs', help='folder for the workers\' logs')
    parser.add_argument('-v', '--verbose', action='store_true')
    args = parser.parse_args()

    workers = start_workers(args)
    try:
        pure, mixed = run(args, mixed=False), run(args, mixed=True)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
    # A few failing shapes never end in Celery itself; there is nothing to compare with then.
    different = [n for n, (a, b) in enumerate(zip(pure, mixed)) if a != b and a['value'] != 'not ready']
    for n in different[:20]:
        print(f'tree {args.first + n} differs\n  pure  {json.dumps(pure[n])}\n  mixed {json.dumps(mixed[n])}')
    late = sum(o['value'] == 'not ready' for o in pure)
    tasks = sum(len(o['tasks']) for o in mixed)
    print(f'{args.trees} trees, {tasks} tasks, seed {args.seed}, {late} not ready in pure Python, '
          f'{len(different)} different')
    print(f'{args.trees - len(different)} passed, {len(different)} failed')
    return 1 if different else 0


if __name__ == '__main__':
    status = main()
    sys.stdout.flush()
    os._exit(status)  # results that are still watched would complain at exit
