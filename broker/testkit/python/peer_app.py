"""The Celery application of the Python peers: what a Python team would have beside our programs.

The environment decides: CELERY_BROKER_URL, CELERY_RESULT_BACKEND, PEER_QUEUE (default `celery`) and
PEER_SETTINGS, a JSON object of Celery settings. The `demo.*` tasks carry the names that our demo worker
serves, so that one client can be pointed at either; the `py.*` tasks are served by Python alone.
"""
import builtins
import hashlib
import json
import os
import random
import time

from celery import Celery, shared_task
from celery.exceptions import Ignore, Reject

app = Celery('peer')
app.conf.update(
    broker_url=os.environ.get('CELERY_BROKER_URL', 'amqp://guest:guest@127.0.0.1:5672//'),
    result_backend=os.environ.get('CELERY_RESULT_BACKEND', 'redis://127.0.0.1:6379/0'),
    task_default_queue=os.environ.get('PEER_QUEUE', 'celery'),
    result_extended=True,
    broker_connection_retry_on_startup=True,
)
app.conf.update(json.loads(os.environ.get('PEER_SETTINGS', '{}')))


@shared_task(name='demo.add')
def add(x, y):
    return x + y


@shared_task(name='demo.mul')
def mul(x, y):
    return x * y


@shared_task(name='demo.xsum')
def xsum(numbers):
    return sum(numbers)


@shared_task(name='demo.randrange')
def randrange(start, stop, step=1):
    return random.randrange(start, stop, step)


@shared_task(name='demo.sleep')
def sleep(seconds):
    time.sleep(seconds)
    return seconds


@shared_task(name='demo.fail')
def fail(message):
    raise RuntimeError(message)


@shared_task(name='demo.flaky', bind=True, max_retries=10)
def flaky(self, fail_times):
    if self.request.retries < fail_times:
        raise self.retry(countdown=0.1, exc=RuntimeError(f'attempt {self.request.retries} failed on purpose'))
    return self.request.retries


@shared_task(name='demo.progress', bind=True)
def progress(self, steps):
    for step in range(1, steps + 1):
        self.update_state(state='PROGRESS', meta={'current': step, 'total': steps})
        time.sleep(0.05)
    return steps


@shared_task(name='demo.hash')
def hash_(text, rounds=1):
    digest = hashlib.sha256(text.encode()).digest()
    for _ in range(1, rounds):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()


@shared_task(name='py.echo')
def echo(*args, **kwargs):
    return {'args': list(args), 'kwargs': kwargs}


@shared_task(name='py.request', bind=True)
def request(self):
    """What the message said about this task, as Celery understood it."""
    r = self.request
    return {
        'id': r.id, 'task': r.task, 'args': r.args, 'kwargs': r.kwargs, 'root_id': r.root_id,
        'parent_id': r.parent_id, 'group': r.group, 'retries': r.retries, 'eta': r.eta, 'expires': r.expires,
        'timelimit': r.timelimit, 'origin': r.origin, 'argsrepr': r.argsrepr, 'kwargsrepr': r.kwargsrepr,
        'shadow': r.shadow, 'headers': r.headers, 'delivery_info': r.delivery_info,
        'reply_to': r.reply_to, 'correlation_id': r.correlation_id, 'ignore_result': r.ignore_result,
    }


@shared_task(name='py.raise')
def raise_(kind, *args):
    """Raises the built-in exception of that name."""
    raise getattr(builtins, kind)(*args)


@shared_task(name='py.ignore')
def ignore():
    raise Ignore()


@shared_task(name='py.reject')
def reject(requeue=False):
    raise Reject('on purpose', requeue=requeue)
