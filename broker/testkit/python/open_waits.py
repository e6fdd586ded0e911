"""Many who wait at once: opens waits and streams on a running producer-api, says what one costs, completes them all.

    python open_waits.py http://127.0.0.1:8080 PID_OF_THE_SERVER [CLIENTS]

CELERY_BROKER_URL and CELERY_RESULT_BACKEND are the server's. No worker may run: the results are stored here. The server
needs `--max-wait 10m`, `--max-waits` of CLIENTS at least, and that many open files besides its own (ulimit -n); so does this
program. Half of the clients wait for a result, half follow a task by server-sent events. The last line is JSON.
"""
import asyncio
import json
import os
import resource
import sys
import time
import urllib.request
from urllib.parse import urlsplit

from peer_app import app

URL, PID = sys.argv[1], sys.argv[2]
CLIENTS = int(sys.argv[3]) if len(sys.argv) > 3 else 10_000
HOST = urlsplit(URL)
PIECE = 500


def memory():
    """RSS and PSS of the server, in KiB."""
    fields = (line.split() for line in open(f'/proc/{PID}/smaps_rollup'))
    sizes = {field[0]: int(field[1]) for field in fields if field[0] in ('Rss:', 'Pss:')}
    return sizes['Rss:'], sizes['Pss:']


def submit(ids):
    tasks = [{'task': 'demo.add', 'args': [1, 2], 'task_id': id} for id in ids]
    body = json.dumps({'tasks': tasks}).encode()
    headers = {'Content-Type': 'application/json', 'Prefer': 'return=minimal'}
    with urllib.request.urlopen(urllib.request.Request(f'{URL}/v1/tasks/batch', body, headers)) as answer:
        assert answer.status == 202, answer.read()


async def client(id, stream, opened, told):
    path = f'/v1/tasks/{id}/events' if stream else f'/v1/tasks/{id}/result?wait=600'
    reader, writer = await asyncio.open_connection(HOST.hostname, HOST.port)
    writer.write(f'GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'.encode())
    seen = b''
    if stream:
        seen = await reader.readuntil(b'event: snapshot')
    opened.release()
    seen += await reader.read()
    writer.close()
    good = b'"terminal"' in seen and b'event: result' in seen if stream else seen.endswith(b'\r\n\r\n3')
    told.append(good)
    if not good:
        print(id, seen[-300:], file=sys.stderr)


def waiting():
    """How many waits and streams the server has open."""
    with urllib.request.urlopen(f'{URL}/metrics') as answer:
        lines = answer.read().decode().splitlines()
    return next(int(float(line.split()[1])) for line in lines if line.startswith('producer_api_in_flight{what="waits"}'))


async def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ids = [f'open-{os.getpid()}-{n}' for n in range(CLIENTS)]
    for at in range(0, CLIENTS, PIECE):
        await asyncio.to_thread(submit, ids[at:at + PIECE])
    before = memory()
    opened, told, started = asyncio.Semaphore(0), [], time.monotonic()
    clients = []
    for at in range(0, CLIENTS, PIECE):
        piece = ids[at:at + PIECE]
        clients += [asyncio.create_task(client(id, n % 2 == 0, opened, told)) for n, id in enumerate(piece)]
        for _ in piece:
            await opened.acquire()
    while (inside := await asyncio.to_thread(waiting)) < CLIENTS:
        assert time.monotonic() - started < 300, f'{inside} of {CLIENTS} are open'
        await asyncio.sleep(0.1)
    opening, after = time.monotonic() - started, memory()

    def complete():
        for id in ids:
            app.backend.store_result(id, 3, 'SUCCESS')

    started = time.monotonic()
    await asyncio.gather(asyncio.to_thread(complete), *clients)
    each = [round((late - early) / CLIENTS, 2) for early, late in zip(before, after)]
    print(json.dumps({'bench': 'open_waits', 'clients': CLIENTS, 'answered': sum(told), 'opened_in_s': round(opening, 1),
                      'completed_in_s': round(time.monotonic() - started, 1), 'rss_kib_before': before[0],
                      'rss_kib_open': after[0], 'rss_kib_each': each[0], 'pss_kib_each': each[1]}))
    return 0 if sum(told) == CLIENTS else 1


sys.exit(asyncio.run(main()))
