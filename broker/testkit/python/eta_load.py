"""Sends many tasks that are due later and watches what becomes of them.

    broker/testkit/scripts/with_servers.sh .venv/bin/python broker/testkit/python/eta_load.py far 100000
    broker/testkit/scripts/with_servers.sh .venv/bin/python broker/testkit/python/eta_load.py near 2000

starts target/release/celery-worker (CELERIAC_BIN_DIR names another folder) on the servers of the environment. `far`: tasks
with a countdown of an hour; prints once a second what the queue holds and how much memory the worker has, until all are out
of its queue and for ten seconds more. `near`: tasks with countdowns from 5 to 30 s; prints how late they started, as their
`task-started` events say. Only on an idle machine do these numbers mean anything. Ends by itself after ten minutes.
"""
import json
import os
import random
import subprocess
import sys
import threading
import time

from peer_app import add, app

LIMIT = 600


def main(kind, count):
    target = os.environ.get('CARGO_TARGET_DIR', 'target')
    folder = os.environ.get('CELERIAC_BIN_DIR', f'{target}/release')
    worker = subprocess.Popen([f'{folder}/celery-worker', '-E', '-q', '-n', 'eta@here', '-l', 'warning'])
    try:
        while not app.control.ping(timeout=1):
            assert worker.poll() is None, 'the worker has ended'
        print(json.dumps((far if kind == 'far' else near)(count, worker.pid)))
    finally:
        worker.terminate()
        worker.wait(60)


def send(countdowns):
    with app.producer_pool.acquire(block=True) as producer:
        for countdown in countdowns:
            add.apply_async((1, 2), countdown=countdown, producer=producer)


def memory(pid):
    with open(f'/proc/{pid}/status') as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith('VmRSS'))


def queue():
    columns = ['name', 'messages_ready', 'messages_unacknowledged']
    listed = subprocess.run([os.environ['RABBITMQCTL'], '-q', 'list_queues', '--formatter', 'json', *columns],
                            capture_output=True, text=True, check=True).stdout
    rows = {row['name']: (row['messages_ready'], row['messages_unacknowledged']) for row in json.loads(listed)}
    delayed = sum(sum(counts) for name, counts in rows.items() if name.startswith('celery_delayed'))
    return (*rows['celery'], delayed)


def far(count, pid):
    sending = threading.Thread(target=send, args=([3600] * count,), daemon=True)
    sending.start()
    end, quiet, unacked, resident = time.monotonic() + LIMIT, 0, 0, 0
    while quiet < 10 and time.monotonic() < end:
        ready, held, delayed = queue()
        unacked, resident = max(unacked, held), max(resident, memory(pid))
        print(f'ready {ready}, unacked {held}, delayed {delayed}, {memory(pid)} MB', file=sys.stderr)
        quiet = quiet + 1 if not sending.is_alive() and ready + held == 0 else 0
        time.sleep(1)
    return {'sent': count, 'delayed': delayed, 'most unacked': unacked, 'most MB': resident, 'MB at the end': memory(pid)}


def near(count, _pid):
    late, due = [], {}

    def started(event):
        if event['uuid'] in due:
            late.append(event['timestamp'] - due[event['uuid']])
        receiver.should_stop = len(late) >= count

    def sending():
        with app.producer_pool.acquire(block=True) as producer:
            for _ in range(count):
                countdown = random.uniform(5, 30)
                due_at = time.time() + countdown
                due[add.apply_async((1, 2), countdown=countdown, producer=producer).id] = due_at

    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={'task-started': started})
        threading.Timer(1, sending).start()
        receiver.capture(limit=None, timeout=60, wakeup=False)
    late.sort()
    return {'started': len(late), 'median s': round(late[len(late) // 2], 3),
            'p99 s': round(late[len(late) * 99 // 100], 3), 'latest s': round(late[-1], 3), 'earliest s': round(late[0], 3)}


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]))
