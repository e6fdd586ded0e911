"""Records what Celery really puts on the wire, as golden files for celery-protocol's tests.

    CELERY_BROKER_URL=… CELERY_RESULT_BACKEND=… python capture.py ../../protocol/tests/golden

Starts a Celery worker and a client on the servers that the environment names (an empty vhost and Redis database of their
own), runs the cases below, and writes what was published, stored and announced, byte for byte. Only the host's name and the
path of the virtual environment are replaced. Files: messages, canvas, results, events, control, signatures, python.
"""
import base64
import datetime
import decimal
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

import amqp
import celery
import kombu
import redis
from celery import Celery, chain, chord, group, signature
from celery.exceptions import Ignore, Reject
from dateutil.parser import isoparse
from celery.utils.saferepr import saferepr
from kombu import Exchange, Queue
from kombu.utils.json import dumps
from kombu.utils.url import parse_url

BROKER = os.environ['CELERY_BROKER_URL']
BACKEND = os.environ['CELERY_RESULT_BACKEND']
# Everything is published to a fanout exchange: one queue for the worker, one for the record.
RELAY = Exchange('relay', type='fanout')
CONTENT = ['json', 'msgpack', 'yaml']
REPLY_KEY = '12345678-1234-3234-8234-123456789abc'

app = Celery('golden', broker=BROKER, backend=BACKEND)
app.conf.update(
    task_queues=[Queue('work', RELAY, routing_key='work')],
    task_default_queue='work',
    task_default_exchange='relay',
    task_default_exchange_type='fanout',
    accept_content=CONTENT,
    result_accept_content=CONTENT,
    broker_connection_retry_on_startup=True,
    task_send_sent_event=True,
    result_extended=os.environ.get('GOLDEN_EXTENDED') == '1',
    worker_prefetch_multiplier=100,
    task_track_started=False,
)


@app.task(name='golden.add')
def add(x, y, z=0):
    return x + y + z


@app.task(name='golden.untyped', typing=False)
def untyped(x, y):
    return x + y


@app.task(name='golden.identity')
def identity(x):
    return x


@app.task(name='golden.total')
def total(numbers):
    return sum(total(n) if isinstance(n, list) else n for n in numbers)


@app.task(name='golden.echo')
def echo(*args, **kwargs):
    return [list(args), kwargs]


@app.task(name='golden.fail')
def fail(*args):
    raise ValueError('boom', 1)


@app.task(name='golden.started', track_started=True)
def started():
    return None


@app.task(name='golden.progress', bind=True)
def progress(self):
    self.update_state(state='PROGRESS', meta={'current': 1, 'total': 2})


@app.task(name='golden.retry', bind=True, max_retries=1)
def retry(self, number):
    raise self.retry(args=(number + 1,), countdown=0.2, exc=KeyError('k'))


@app.task(name='golden.retry_once', bind=True)
def retry_once(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0.2)
    return self.request.retries


@app.task(name='golden.sleep')
def sleep(seconds):
    time.sleep(seconds)


@app.task(name='golden.reject')
def reject():
    raise Reject('no', requeue=False)


@app.task(name='golden.ignore')
def ignore():
    raise Ignore()


@app.task(name='golden.unserialisable')
def unserialisable():
    return object()


@app.task(name='golden.parent', bind=True)
def parent(self):
    identity.delay(1)
    group(identity.s(2), identity.s(3)).apply_async()
    return chain(identity.s(4), identity.s()).apply_async().as_tuple()


@app.task(name='golden.replace', bind=True)
def replace(self, number):
    return self.replace(add.s(number, 100))


@app.task(name='golden.replace_group', bind=True)
def replace_group(self, number):
    return self.replace(group(add.s(number, 1), add.s(number, 2)))


@app.task(name='golden.replace_chain', bind=True)
def replace_chain(self, number):
    return self.replace(chain(add.s(number, 1), add.s(2)))


@app.task(name='golden.custom_event', bind=True)
def custom_event(self):
    self.send_event('golden-custom', answer=42)


def portable(text):
    """The text without what is only true of this machine."""
    return text.replace(sys.prefix, 'venv').replace(os.path.dirname(os.path.abspath(__file__)), 'python') \
        .replace(socket.gethostname(), 'host')


def body_of(raw):
    raw = raw.encode() if isinstance(raw, str) else bytes(raw)
    try:
        return portable(raw.decode())
    except UnicodeDecodeError:
        return {'base64': base64.b64encode(raw).decode()}


class Tap:
    """Queues of our own beside those of the worker and the client."""

    def __init__(self):
        url = parse_url(BROKER)
        self.connection = amqp.Connection(
            host=f"{url['hostname']}:{url['port']}", userid=url['userid'], password=url['password'],
            virtual_host=url['virtual_host'])
        self.connection.connect()
        self.channel = self.connection.channel()
        self.channel.auto_decode = False
        with app.connection_for_write() as connection:
            with connection.channel() as channel:
                Queue('work', RELAY, routing_key='work')(channel).declare()
                app.control.mailbox.exchange(channel).declare()
                app.control.mailbox.reply_exchange(channel).declare()
        self.channel.exchange_declare('celeryev', 'topic', durable=True, auto_delete=False)
        self.bind('copy-messages', 'relay', '')
        self.bind('copy-events', 'celeryev', '#')
        self.bind('copy-requests', 'celery.pidbox', '')
        self.bind('copy-replies', 'reply.celery.pidbox', REPLY_KEY)

    def bind(self, queue, exchange, key):
        self.channel.queue_declare(queue, durable=False, auto_delete=False, exclusive=True)
        self.channel.queue_bind(queue, exchange, key)

    def ask_again(self, request):
        """Sends a recorded request once more, so that the reply comes to us: a client's own queue can't be shared."""
        body = json.loads(request['body'])
        if 'reply_to' in body:
            body['reply_to']['routing_key'] = REPLY_KEY
            message = amqp.Message(json.dumps(body), application_headers=request['headers'], **request['properties'])
            self.channel.basic_publish(message, 'celery.pidbox')

    def take(self, what, settle=0.4):
        """All that came, once nothing has come for a while."""
        found, quiet = [], time.time() + settle
        while time.time() < quiet:
            message = self.channel.basic_get(f'copy-{what}', no_ack=True)
            if message is None:
                time.sleep(0.05)
                continue
            quiet = time.time() + settle
            properties = dict(message.properties)
            headers = properties.pop('application_headers', {})
            found.append({
                'routing_key': message.delivery_info['routing_key'],
                'properties': properties,
                'headers': json.loads(portable(json.dumps(headers, default=str)).replace('\\ud800', '\\ufffd')),
                'body': body_of(message.body),
            })
        return found


class Metas(threading.Thread):
    """All that is announced about results, in order."""

    def __init__(self):
        super().__init__(daemon=True)
        self.found, self.ready = [], threading.Event()
        self.redis = redis.from_url(BACKEND)
        self.start()
        self.ready.wait(10)

    def run(self):
        listener = self.redis.pubsub()
        listener.psubscribe('celery-task-meta-*')
        for message in listener.listen():
            if message['type'] == 'psubscribe':
                self.ready.set()
            elif message['type'] == 'pmessage':
                self.found.append((message['channel'].decode(), body_of(message['data'])))

    def take(self):
        found, self.found = self.found, []
        return [{'key': key, 'value': value} for key, value in found]


def start_worker(extended=False):
    command = [sys.executable, '-m', 'celery', '-A', 'capture', 'worker', '-n', 'golden@host', '-c', '2', '-E',
               '-Q', 'work', '-l', 'warning', '--heartbeat-interval', '2']
    environment = dict(os.environ, GOLDEN_EXTENDED='1' if extended else '0')
    worker = subprocess.Popen(command, cwd=os.path.dirname(os.path.abspath(__file__)), env=environment)
    deadline = time.time() + 60
    while not app.control.ping(timeout=0.5):
        if time.time() > deadline or worker.poll() is not None:
            raise SystemExit('the worker did not come up')
    return worker


def stop_worker(worker):
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)


def finished(result, seconds=10):
    try:
        result.get(timeout=seconds, propagate=False)
    except Exception as exc:  # a group that can't be waited for, a task that is ignored: the record is what counts
        print('  waited in vain:', type(exc).__name__)


def message_cases():
    when = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    east = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    yield 'plain', dict(args=(2, 3))
    yield 'keywords and text', dict(args=('größe "x"\n',), kwargs={'ключ': None, 'b': [True, 1.5, 1e100, 0.1]}, task=echo)
    yield 'no arguments', dict(task=echo)
    yield 'eta with offset', dict(args=(1, 2), eta=when.astimezone(east))
    yield 'eta in utc with microseconds', dict(args=(1, 2), eta=when.replace(microsecond=678))
    yield 'naive eta', dict(args=(1, 2), eta=when.replace(tzinfo=None))
    yield 'countdown, expires, limits, headers, priority', dict(
        args=(1, 2), countdown=60, expires=120, time_limit=30, soft_time_limit=20.5, priority=7,
        headers={'x-text': 'v', 'x-number': 1, 'x-nested': {'a': [1, None, True]}}, shadow='shown', ignore_result=True,
        reply_to='replies', correlation_id='other')
    yield 'expires at', dict(args=(1, 2), expires=when)
    yield 'own id', dict(args=(1, 2), task_id='order:1@eu')
    yield 'large and odd numbers', dict(
        task=echo, args=(2 ** 64, -2 ** 63 - 1, 10 ** 40, float('nan'), float('inf'), -float('inf'), 1e16, 1e-7))
    yield 'lone surrogate', dict(task=echo, args=('\ud800',))
    yield 'long arguments', dict(task=echo, args=('x ' * 600, list(range(400))), kwargs={'deep': [[[[[1]]]]]})
    yield 'extended types', dict(task=echo, args=(
        when, when.replace(tzinfo=None), when.date(), datetime.time(1, 2, 3, 4), decimal.Decimal('1.10'),
        uuid.UUID('12345678-1234-5678-1234-567812345678'), b'text', b'\xff\x00'))
    for method in ('zlib', 'bzip2', 'lzma', 'zstd', 'brotli'):
        if method in kombu.compression._aliases:
            yield f'compressed with {method}', dict(args=(1, 2), compression=method)
    for method in ('msgpack', 'yaml'):
        yield f'written in {method}', dict(task=echo, args=(1, 'ü', None, [1.5]), kwargs={'k': {'n': 1}}, serializer=method)
    yield 'linked', dict(args=(1, 2), link=identity.s(), link_error=echo.s('failed'))
    yield 'linked twice', dict(args=(1, 2), link=[identity.s(), add.s(5)], link_error=[echo.si(), echo.s(1)])
    yield 'unregistered', dict(task=app.signature('golden.unknown'), args=(1,))


def canvas_cases():
    yield 'chain', chain(add.s(4, 4), add.s(8), add.s(16))
    yield 'chain with immutable step', chain(add.s(1, 1), add.si(5, 5), identity.s())
    yield 'chain with links', chain(add.s(1, 1), add.s(2)).set(link=[identity.s()], link_error=[echo.s()])
    yield 'group', group(add.s(1, 1), add.s(2, 2))
    yield 'group of chains', group(chain(add.s(1, 1), add.s(2)), chain(add.s(3, 3), add.s(4)))
    yield 'nested groups', group(identity.s(1), group(identity.s(2), identity.s(3)), identity.s(4))
    yield 'chord', chord([add.s(1, 1), add.s(2, 2)], total.s())
    yield 'chord of one', chord([add.s(1, 1)], total.s())
    yield 'chord without header', chord([], total.s())
    yield 'chord with errback', chord([add.s(1, 1), add.s(2, 2)], total.s().on_error(echo.s()))
    yield 'chord with chain body', chord([add.s(1, 1), add.s(2, 2)], chain(total.s(), add.s(10)))
    yield 'chord with group body', chord([add.s(1, 1), add.s(2, 2)], group(total.s(), total.s()))
    yield 'chord of nested groups', chord(
        [identity.s(1), group(identity.s(2), identity.s(3)), identity.s(4)], identity.s())
    yield 'chord of chains', chord([chain(add.s(1, 1), add.s(2)), add.s(3, 3)], total.s())
    yield 'chord in chord header', chord([chord([add.s(1, 2), add.s(1, 1)], total.s()), add.s(1, 1)], total.s())
    yield 'chord body is a chord', chord([add.s(1, 1), add.s(2, 2)], chord([identity.s(), total.s()], identity.s()))
    yield 'task, group, task', chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s())
    yield 'group, group, task', chain(group(identity.si(1), identity.si(2)), group(total.s(), total.s()), total.s())
    yield 'chain ends in group', chain(add.s(1, 1), group(add.s(1), add.s(2)))
    yield 'group of one, task', group(add.s(1, 1)) | identity.s()
    yield 'task, group of one, task', chain(add.s(1, 1), group(add.s(2)), add.s(3))
    yield 'chain in chain', chain(add.s(1, 1), chain(add.s(2), add.s(3)), add.s(4))
    yield 'chord in chain', chain(add.s(1, 1), chord([add.s(1), add.s(2)], total.s()), add.s(3))
    yield 'two chords in chain', chain(
        group(identity.s(1), identity.s(2)), total.s(), group(add.s(1), add.s(2)), total.s())
    yield 'group of chains with groups', group(chain(identity.s(1), group(add.s(1), add.s(2)), total.s()), identity.s(2))
    yield 'map', identity.map([1, 2])
    yield 'starmap', add.starmap([(1, 1), (2, 2)])
    yield 'chunks', add.chunks([(1, 1), (2, 2), (3, 3)], 2)
    stamped = chain(add.s(1, 2), add.s(3))
    stamped.stamp(job='j1', tags=['a', 'b'])
    yield 'stamped chain', stamped
    linked = add.s(1, 2)
    linked.link(identity.s())
    linked.stamp(job=1)
    yield 'stamped with link', linked
    yield 'options on members', chord([add.s(1, 1).set(priority=3), add.s(2, 2).set(countdown=0.3)],
                                      total.s().set(priority=5, headers={'x-body': 'b'}))
    yield 'replaced by a task, in a chain', chain(replace.s(1), identity.s())
    yield 'replaced by a group, in a chord', chord([replace_group.s(1), identity.s(2)], total.s())
    yield 'replaced by a chain, in a chain', chain(replace_chain.s(1), identity.s())


def result_cases():
    yield 'success', add.s(1, 2), {}
    yield 'none', identity.s(None), {}
    yield 'text', identity.s('größe\n"\x7f😀'), {}
    yield 'floats', identity.s([1.0, 1e16, 1e-05, 0.1, float('nan')]), {}
    yield 'failure', fail.s('x'), {}
    yield 'started', started.s(), {}
    yield 'progress', progress.s(), {}
    yield 'retry, then failure', retry.s(1), {}
    yield 'retry without exception', retry_once.s(), {}
    yield 'reject', reject.s(), {}
    yield 'children', parent.s(), {}
    yield 'unserialisable', unserialisable.s(), {}
    yield 'missing argument', untyped.s(1), {}
    yield 'unknown task', app.signature('golden.unknown'), {}
    yield 'hard time limit', sleep.s(20), dict(time_limit=1)
    yield 'soft time limit', sleep.s(20), dict(soft_time_limit=1)
    yield 'expired', add.s(1, 1), dict(expires=-1)
    yield 'member of a group', group(add.s(1, 2)), {}
    yield 'chain', chain(identity.s(1), identity.s()), {}
    yield 'chain that fails', chain(fail.s(), identity.s(), identity.s()), {}
    yield 'chord that fails', chord([add.s(1, 1), fail.s()], total.s()), {}
    yield 'stamped', add.s(1, 2).set(stamped_headers=['job'], job='j1'), {}


def capture_messages(tap):
    out = []
    for name, call in message_cases():
        print('message:', name)
        task = call.pop('task', add)
        task.apply_async(**call)
        out.append({'case': name, 'messages': tap.take('messages', 0.2)})
    app.conf.task_protocol = 1
    app.amqp.__dict__.pop('create_task_message', None)  # it keeps the choice
    for name, sig in [
        ('protocol 1', add.s(1, 2)),
        ('protocol 1, keywords and eta', echo.s(1, a=2).set(eta=datetime.datetime(2030, 1, 1), expires=60, countdown=None)),
        ('protocol 1, chain', chain(add.s(1, 2), add.s(3))),
        ('protocol 1, chord', chord([add.s(1, 1), add.s(2, 2)], total.s())),
        ('protocol 1, limits', add.s(1, 2).set(time_limit=30, soft_time_limit=20)),
    ]:
        print('message:', name)
        sig.apply_async()
        out.append({'case': name, 'messages': tap.take('messages', 0.2)})
    app.conf.task_protocol = 2
    app.amqp.__dict__.pop('create_task_message', None)
    return out


def capture_canvas(tap):
    out = []
    for name, sig in canvas_cases():
        print('canvas:', name)
        before = dumps(sig)
        result = sig.apply_async()
        finished(result, 5)
        out.append({'case': name, 'signature': before, 'result': dumps(result.as_tuple()),
                    'messages': tap.take('messages', 1.0)})
    return out


def capture_results(metas, tap, extended):
    out = []
    metas.take()
    for name, sig, options in result_cases():
        print('result:', name)
        finished(sig.apply_async(**options), 3)
        time.sleep(0.5)
        out.append({'case': name, 'extended': extended, 'metas': metas.take()})
    long = sleep.delay(30)
    time.sleep(1)
    long.revoke(terminate=True)
    time.sleep(1.5)
    out.append({'case': 'terminated', 'extended': extended, 'metas': metas.take()})
    waiting = [sleep.delay(2) for _ in range(2)]
    victim = add.delay(1, 1)
    victim.revoke()
    for one in waiting:
        finished(one)
    time.sleep(0.5)
    out.append({'case': 'revoked', 'extended': extended, 'metas': metas.take()})
    if not extended:
        packing = Celery('packing', broker=BROKER, backend=BACKEND)
        packing.conf.result_compression = 'gzip'
        plain = app.backend.encode({'status': 'SUCCESS', 'result': [1] * 50, 'task_id': 'packed'})
        packed = packing.backend.encode({'status': 'SUCCESS', 'result': [1] * 50, 'task_id': 'packed'})
        out.append({'case': 'compressed', 'extended': False,
                    'metas': [{'key': 'plain', 'value': body_of(plain)}, {'key': 'packed', 'value': body_of(packed)}]})
    tap.take('messages', 0.1)
    return out


def capture_events(tap):
    tap.take('events', 0.1)
    for sig in (add.s(1, 2), fail.s(), retry_once.s(), custom_event.s(), reject.s(), app.signature('golden.unknown'),
                add.s(1, 1).set(expires=-1, countdown=None), add.s(1, 1).set(countdown=0.5)):
        finished(sig.apply_async(), 3)
    time.sleep(2.5)
    return tap.take('events', 0.3)


def capture_control(tap):
    tap.take('requests', 0.1)
    tap.take('replies', 0.1)
    busy, later = sleep.delay(15), add.apply_async((1, 1), countdown=600, kwargs={'z': 3})
    time.sleep(1)
    inspect, control = app.control.inspect(timeout=1), app.control
    node = ['golden@host']
    calls = [
        ('ping', lambda: inspect.ping()),
        ('ping one', lambda: control.ping(destination=node)),
        ('clock', lambda: inspect.clock()),
        ('active', lambda: inspect.active()),
        ('active, safe', lambda: inspect.active(safe=True)),
        ('reserved', lambda: inspect.reserved()),
        ('scheduled', lambda: inspect.scheduled()),
        ('revoked', lambda: inspect.revoked()),
        ('registered', lambda: inspect.registered('rate_limit', 'max_retries')),
        ('query_task', lambda: inspect.query_task(busy.id, later.id, 'none')),
        ('active_queues', lambda: inspect.active_queues()),
        ('stats', lambda: inspect.stats()),
        ('rate_limit', lambda: control.rate_limit('golden.add', '100/m', reply=True)),
        ('rate_limit, bad', lambda: control.broadcast(
            'rate_limit', {'task_name': 'golden.add', 'rate_limit': 'x'}, reply=True)),
        ('rate_limit off', lambda: control.rate_limit('golden.add', None, reply=True)),
        ('time_limit', lambda: control.time_limit('golden.add', soft=1, hard=2, reply=True)),
        ('time_limit, unknown', lambda: control.time_limit('golden.none', hard=2, reply=True)),
        ('revoke', lambda: control.revoke(['a', 'b'], reply=True)),
        ('revoke by stamp', lambda: control.revoke_by_stamped_headers({'job': ['j1']}, reply=True)),
        ('terminate', lambda: control.terminate(busy.id, signal='SIGKILL', reply=True)),
        ('enable_events', lambda: control.enable_events(reply=True)),
        ('heartbeat', lambda: control.heartbeat(reply=True)),
        ('pool_grow', lambda: control.pool_grow(1, reply=True)),
        ('pool_shrink', lambda: control.pool_shrink(1, reply=True)),
        ('autoscale', lambda: control.autoscale(3, 1, reply=True)),
        ('add_consumer', lambda: control.add_consumer('second', reply=True)),
        ('cancel_consumer', lambda: control.cancel_consumer('second', reply=True)),
        ('pattern, glob', lambda: control.broadcast('ping', pattern='golden@*', matcher='glob', reply=True)),
        ('pattern, pcre', lambda: control.broadcast('ping', pattern='golden@.+', matcher='pcre', reply=True)),
        ('other node', lambda: control.ping(destination=['other@host'], timeout=0.5)),
        ('unknown', lambda: control.broadcast('bogus', reply=True, timeout=0.5)),
        ('unexpected argument', lambda: control.broadcast('enable_events', {'zz': 1}, reply=True, timeout=0.5)),
        ('without reply', lambda: control.broadcast('ping')),
        # last: a lone worker of Celery 5.7.0 fails over its own election
        ('election', lambda: control.broadcast('election', {'id': 'i', 'topic': 't', 'action': {'a': 1}}, reply=True)),
    ]
    out = []
    for name, call in calls:
        print('control:', name)
        call()
        requests = tap.take('requests', 0.1)
        for request in requests:
            tap.ask_again(request)
        out.append({'case': name, 'requests': requests, 'replies': tap.take('replies', 0.4)})
        tap.take('requests', 0.1)
    later.revoke()
    return out


def capture_signatures():
    return [{'case': name, 'signature': dumps(sig)} for name, sig in canvas_cases()]


TIMES = [
    '2026-01-02T03:04:05', '2026-01-02T03:04:05Z', '2026-01-02T03:04:05z', '2026-01-02 03:04:05', '2026-01-02x03:04:05',
    '2026-01-02T03:04:05+05:30', '2026-01-02T03:04:05-0530', '2026-01-02T03:04:05+05', '2026-01-02T03:04:05-00:00',
    '2026-01-02T03:04:05.1', '2026-01-02T03:04:05.123456', '2026-01-02T03:04:05.1234567', '2026-01-02T03:04:05,5',
    '2026-01-02T03:04:05.', '2026-01-02T03:04.5', '2026-01-02T03:04', '2026-01-02T0304', '2026-01-02T030405',
    '2026-01-02T030405.5Z', '2026-01-02T03', '2026-01-02T', '2026-01-02', '20260102', '20260102T030405Z', '2026-01', '2026',
    '202601', '2026-1-2', '2026-W01', '2026-W01-5', '2026W015', '2026W01', '2026-W53-1', '2020-W53-1', '2026-W54-1', '2026-W00-1',
    '2026-W01-8', '2026-W01-0', '2026W01-5', '2026-002', '2026002', '2024-366', '2026-366', '2026-000', '2026-01-02T24:00',
    '2026-01-02T24:00:00Z', '2026-01-02T24:01', '2026-12-31T24:00', '2026-01-02T25:00', '2026-01-02T23:60', '2026-01-02T23:59:60',
    '2026-02-29', '2024-02-29', '2026-13-01', '2026-00-01', '2026-01-32', '2026-01-00', '0000-01-01', '0001-01-01T00:00:00',
    '9999-12-31T23:59:59.999999', '10000-01-01', '2026-01-02T03:04:05+24:00', '2026-01-02T03:04:05+23:59',
    '2026-01-02T03:04:05+05:60', '2026-01-02T03:04:05+5', '2026-01-02T03:04:05 +05:00', '2026-01-02T03:04:05Zx', ' 2026-01-02',
    '2026-01-02 ', '', 'x', 'now', '1', '-2026-01-02', '+2026-01-02', '2026-01-02T03:04:05+05:30:15', '2026-01-02T03:0405',
    '2026-01-02T03:04:0', '2026-01-02T-3:04', '2026-03-29T02:30:00', '2026-0102', '202601-02', '2026-01-02T03:04:05.5+01:00',
    '2026-01-02T03:04:05.+01:00', '2026-W0', '2026-W', '2026-01-02T03:04:05٣',
]

REPRS = [
    '[]', '[1]', '[1, 2]', '[null, true, false]', '[1.0, 1e16, 1e-05, 1.5e300, 0.1, 123456789.123]', '[NaN, Infinity, -Infinity]',
    '["a", "it\'s", "a\\"b", "a\\nb\\\\c", "\\u00e9", "\\ud83d\\ude00", ""]', '[[]]', '[[[]]]', '[[[[]]]]', '[[[[1]]], 2]',
    '[{}]', '[{"a": {"b": {"c": {"d": 1}}}}]', '[{"a": [1, {"b": [2]}]}]', '[12345678901234567890123456789012345678901234567890]',
    json.dumps(['x' * 1100]), json.dumps(['x ' * 600]), json.dumps(['x' * 1010, 'y' * 50]), json.dumps(['x' * 1021, 1]),
    json.dumps(['x' * 1022, [1], 2]), json.dumps(list(range(400))), json.dumps([list(range(400))]),
    json.dumps([[list(range(400))], 5]), json.dumps([{str(n): n for n in range(200)}]), json.dumps([{'k' * 1100: 1}]),
    json.dumps(['a' * 500, 'b' * 500, 'c' * 500]), json.dumps([['a' * 1017], 1]), json.dumps([['a' * 1016], 1]),
    json.dumps([['a' * 1015], 1]), json.dumps([['a' * 1014], [[[1]]]]), json.dumps([{'a': 'b' * 1012, 'c': 'd'}]),
    json.dumps([['é' * 600, 'é' * 600]], ensure_ascii=False), json.dumps([[['x' * 1020]], {'a': 1}]), json.dumps([1e22, 1e-7, -0.0]),
]

FLOATS = [0.0, -0.0, 1.0, 0.1, 1e15, 1e16, 123456789012345680.0, 1e22, 1.5e300, 1e-4, 1e-5, 1.25e-7, 5e-324, 1.7976931348623157e308]


def two(x, y): pass
def defaults(x, y=1, z=2): pass
def none(): pass
def star(x, *rest): pass
def keywords(x, **rest): pass
def only(x, *, key): pass
def three(x, y, z): pass


CALLS = [
    (two, [1], {}), (two, [], {}), (two, [1, 2, 3], {}), (two, [1], {'x': 2}), (two, [1, 2], {'z': 3}), (two, [1, 2, 3], {'y': 3}),
    (two, [1, 2, 3, 4], {'q': 1}), (defaults, [], {}), (defaults, [1, 2, 3, 4], {}), (defaults, [1], {'w': 1}), (none, [1], {}),
    (none, [1, 2], {}), (none, [], {'a': 1}), (star, [], {}), (keywords, [1, 2], {}), (keywords, [], {'a': 1}), (three, [], {}),
    (three, [], {'y': 1}), (three, [1], {'q': 1}), (only, [1], {}), (only, [1, 2], {'key': 1}), (only, [1, 2], {}),
]


def capture_python():
    def moment(text):
        try:
            found = isoparse(text)
        except Exception:
            return None
        if found.tzinfo is None:
            found = found.replace(tzinfo=datetime.timezone.utc)
        return found.astimezone(datetime.timezone.utc).isoformat()

    def error(function, args, kwargs):
        try:
            function(*args, **kwargs)
        except TypeError as exc:
            return str(exc)

    return {
        'isoparse': [[text, moment(text)] for text in TIMES],
        'argsrepr': [[text, saferepr(tuple(json.loads(text)), 1024)] for text in REPRS],
        'resultrepr': [[text, saferepr(json.loads(text), 1024)] for text in REPRS],
        'floats': [[value.hex(), json.dumps(value)] for value in FLOATS],
        'type_errors': [[function.__name__, args, kwargs, error(function, args, kwargs)] for function, args, kwargs in CALLS],
    }


def main(folder):
    versions = {'celery': celery.__version__, 'kombu': kombu.__version__, 'amqp': amqp.__version__,
                'redis': redis.__version__, 'python': platform.python_version()}

    def write(name, content):
        with open(os.path.join(folder, f'{name}.json'), 'w') as file:
            json.dump({'versions': versions, name: content}, file, indent=1)
            file.write('\n')

    write('python', capture_python())
    write('signatures', capture_signatures())
    redis.from_url(BACKEND).flushdb()
    tap = Tap()
    # without a worker: what the client sends
    write('messages', capture_messages(tap))
    tap.channel.queue_purge('work')
    metas = Metas()
    worker = start_worker()
    try:
        write('canvas', capture_canvas(tap))
        results = capture_results(metas, tap, extended=False)
        write('events', capture_events(tap))
        write('control', capture_control(tap))
    finally:
        stop_worker(worker)
    worker = start_worker(extended=True)
    try:
        write('results', results + capture_results(metas, tap, extended=True))
    finally:
        stop_worker(worker)


if __name__ == '__main__':
    # the tasks must belong to the module that the worker imports
    import capture
    capture.main(sys.argv[1])
