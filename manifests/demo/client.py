"""The Python side of the demo: a team that uses Celery and need not know who runs its tasks.

    client.py send_task | shared_task | xsum | progress | flaky | fail | read ID

The addresses come from CELERY_BROKER_URL and CELERY_RESULT_BACKEND.
"""
import os
import sys

from celery import Celery, shared_task

app = Celery('demo', broker=os.environ['CELERY_BROKER_URL'], backend=os.environ['CELERY_RESULT_BACKEND'])
app.set_default()
TIMEOUT = 20


@shared_task(name='demo.add')
def add(x, y):
    """What the Python code base calls; the body is never run here."""
    raise NotImplementedError


def send_task():
    result = app.send_task('demo.mul', args=[6], kwargs={'y': 7})
    return f'{result.id} {result.get(timeout=TIMEOUT)}'


def shared():
    return add.s(40, y=2).delay().get(timeout=TIMEOUT)


def xsum():
    return app.send_task('demo.xsum', args=[list(range(100))]).get(timeout=TIMEOUT)


def progress():
    states = set()
    result = app.send_task('demo.progress', args=[3])
    value = result.get(timeout=TIMEOUT, on_message=lambda meta: states.add(meta['status']))
    return ' '.join(sorted(states - {'PENDING', 'STARTED', 'SUCCESS'}) + [str(value)])


def flaky():
    return app.send_task('demo.flaky', args=[2]).get(timeout=TIMEOUT)


def fail():
    try:
        return app.send_task('demo.fail', args=['on purpose']).get(timeout=TIMEOUT)
    except Exception as error:
        return str(error)


def read(task_id):
    return app.AsyncResult(task_id).get(timeout=TIMEOUT)


if __name__ == '__main__':
    commands = {'send_task': send_task, 'shared_task': shared, 'xsum': xsum, 'progress': progress,
                'flaky': flaky, 'fail': fail, 'read': read}
    print(commands[sys.argv[1]](*sys.argv[2:]))
