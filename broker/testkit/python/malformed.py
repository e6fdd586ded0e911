"""Publishes every message that no well-behaved client sends, one by one, to a worker that must not mind.

    malformed.py [CASE…]

Needs CELERY_BROKER_URL, CELERY_RESULT_BACKEND and a worker with the demo tasks on the queue MALFORMED_QUEUE
(default `malformed`), whose refused messages a policy of the broker routes to the queue `malformed.dead`.
`malformed.py --declare` declares both queues. For each case one JSON line:
what was expected, whether the message was dead-lettered, the stored state, and whether the next valid task
completed. The last line lists the cases that did not come out as expected.

The expectations:

    refused   dead-lettered and not run; FAILURE is stored where the id can be read
    runs      SUCCESS with the value
    fails     FAILURE is stored, whether or not the message is dead-lettered
    revoked   REVOKED is stored
    settled   either of the first three, but not left in the queue
"""
import bz2
import datetime
import decimal
import gzip
import hashlib
import json
import os
import sys
import time
import uuid
import zlib
from urllib.parse import unquote, urlparse

import amqp
import redis

QUEUE = os.environ.get('MALFORMED_QUEUE', 'malformed')
DEAD = QUEUE + '.dead'
EMBED = {'callbacks': None, 'errbacks': None, 'chain': None, 'chord': None}
PATIENCE = 10


class Case:
    def __init__(self, name, what, expect, body=None, value=None, stored=None, drop=(), props=None, **headers):
        self.name, self.what, self.expect, self.value = name, what, expect, value
        self.id = str(uuid.uuid4())
        self.headers = dict(
            lang='py', task='demo.add', id=self.id, shadow=None, eta=None, expires=None, group=None,
            group_index=None, retries=0, timelimit=[None, None], root_id=self.id, parent_id=None,
            argsrepr='(2, 3)', kwargsrepr='{}', origin='gen1@test', ignore_result=False,
            replaced_task_nesting=0, stamped_headers=None, stamps={})
        self.headers.update(headers)
        for name in drop:
            self.headers.pop(name, None)
        self.properties = dict(content_type='application/json', content_encoding='utf-8', delivery_mode=2,
                               correlation_id=self.id, reply_to=str(uuid.uuid4()))
        self.properties.update(props or {})
        self.properties = {key: value for key, value in self.properties.items() if value is not None}
        body = call() if body is None else body
        self.body = body.encode() if isinstance(body, str) else body
        # Whether a FAILURE must be there: not when the id is what is broken.
        readable = isinstance(self.headers.get('id'), str) and 0 < len(self.headers['id']) <= 155
        self.stored = (readable and self.headers['id'] == self.id) if stored is None else stored


def call(args=(2, 3), kwargs=None, embed=EMBED):
    return json.dumps([args, {} if kwargs is None else kwargs, embed])


def text(args):
    """A body whose arguments are written as given, not by json.dumps."""
    return '[%s, {}, %s]' % (args, json.dumps(EMBED))


def nested(depth):
    return text('[' + '[' * depth + ']' * depth + ']')


def signature(**options):
    return dict(task='demo.add', args=[], kwargs={}, options=options, subtask_type=None, immutable=False)


def deep_chain(length):
    chain = [signature()]
    for _ in range(length):
        chain = [signature(chain=chain)]
    return chain


def cases():
    big = 10 ** 40
    yield Case('M1', 'body is an object', 'refused', '{"a": 1}')
    yield Case('M2a', 'body of two items', 'refused', '[[2, 3], {}]')
    yield Case('M2b', 'body of four items', 'refused', '[[2, 3], {}, {}, {}]')
    yield Case('M3', 'empty body', 'refused', '')
    yield Case('M4', 'body is not JSON', 'refused', 'hello')
    yield Case('M5', 'args a string', 'refused', '["abc", {}, {}]')
    yield Case('M6', 'args an object', 'refused', '[{"x": 2}, {}, {}]')
    yield Case('M7', 'kwargs a list', 'refused', '[[2, 3], [], {}]')
    yield Case('M8a', 'embed null', 'runs', '[[2, 3], {}, null]', value=5)
    yield Case('M8b', 'embed without keys', 'runs', '[[2, 3], {}, {}]', value=5)
    yield Case('M9a', 'NaN', 'settled', text('[NaN, 3]'))
    yield Case('M9b', 'Infinity', 'settled', text('[-Infinity, 3]'))
    yield Case('M10', '1e400', 'settled', text('[1e400, 3]'))
    yield Case('M11', 'an integer of 40 digits', 'settled', call((big, 1)))
    yield Case('M12', 'an integer of 5,000 digits', 'settled', text('[%s, 3]' % ('9' * 5000)))
    yield Case('M13a', 'one above u64', 'settled', call((2 ** 64, 1)))
    yield Case('M13b', 'one below i64', 'settled', call((-2 ** 63 - 1, 1)))
    yield Case('M14', 'invalid UTF-8', 'refused', b'[["\xff\xfe", 3], {}, {}]')
    yield Case('M15', 'a lone surrogate', 'settled', text('["\\ud800", 1]'), task='demo.hash')
    yield Case('M16', 'NUL in a string', 'runs', text('["a\\u0000b", 1]'), task='demo.hash',
               value=hashlib.sha256(b'a\0b').hexdigest())
    yield Case('M17', 'a byte order mark', 'refused', b'\xef\xbb\xbf' + call().encode())
    yield Case('M18', '400 levels of nesting', 'settled', nested(400))
    yield Case('M19', '100,000 levels of nesting', 'refused', nested(100_000))
    yield Case('M20', 'duplicate keys', 'settled', '[[], {"x": 1, "x": 2, "y": 3}, {}]')
    yield Case('M21', 'trailing bytes', 'refused', call() + 'x')
    yield Case('M22', 'an unknown __type__', 'settled', text('[{"__type__": "evil", "__value__": 1}, 3]'))
    yield Case('M23', 'a decimal that is none', 'settled', text('[{"__type__": "decimal", "__value__": "zz"}, 3]'))
    yield Case('M24', 'pickle', 'refused', b'cposix\nsystem\n(S"true"\ntR.',
               props=dict(content_type='application/x-python-serialize', content_encoding='binary'))
    yield Case('M25', 'YAML with a Python object', 'refused', '!!python/object/apply:os.system ["true"]',
               props=dict(content_type='application/x-yaml'))
    yield Case('M26', 'unknown content type', 'refused', props=dict(content_type='application/x-nonsense'))
    yield Case('M27', 'no content type', 'settled', props=dict(content_type=None))
    yield Case('M28', 'content encoding binary', 'runs', props=dict(content_encoding='binary'), value=5)
    yield Case('M29', 'unknown compression', 'refused', compression='application/x-nonsense')
    yield Case('M30', 'compression announced, body plain', 'refused', compression='application/x-gzip')
    yield Case('M31a', 'zlib bomb', 'refused', zlib.compress(b'[' + b' ' * 200_000_000, 9),
               compression='application/x-gzip')
    yield Case('M31b', 'gzip bomb', 'refused', gzip.compress(b'[' + b' ' * 200_000_000, 9),
               compression='application/x-gzip')
    yield Case('M32', 'bzip2 bomb', 'refused', bz2.compress(b'[' + b' ' * 100_000_000),
               compression='application/x-bz2')
    yield Case('M33', 'an argument of 8 MB', 'runs', call(('x' * 8_000_000, 1)), task='demo.hash')
    yield Case('M34', 'a body of 20 MB', 'refused', call(('x' * 20_000_000, 1)), task='demo.hash')
    yield Case('M35a', 'no headers at all', 'refused', drop=list(Case('', '', '').headers), stored=False)
    yield Case('M35b', 'no task header', 'refused', drop=['task'])
    yield Case('M36a', 'task an integer', 'refused', task=7)
    yield Case('M36b', 'task empty', 'refused', task='')
    yield Case('M36c', 'task of 10 KB', 'refused', task='t' * 10_000)
    yield Case('M36d', 'task with a newline', 'refused', task='demo.add\nx')
    yield Case('M36e', 'task a path', 'refused', task='../../etc/passwd')
    yield Case('M36f', 'task with markup', 'refused', task='<script>alert(1)</script>')
    yield Case('M37', 'unknown task', 'refused', task='demo.nothing')
    yield Case('M38', 'no id', 'refused', drop=['id'], stored=False)
    yield Case('M39a', 'id null', 'refused', id=None)
    yield Case('M39b', 'id an integer', 'refused', id=7)
    yield Case('M40a', 'id a list', 'refused', id=['a'])
    yield Case('M40b', 'id a table', 'refused', id={'a': 1})
    yield Case('M41a', 'id a path', 'refused', id='../../etc/passwd', stored=False)
    yield Case('M41b', 'id with CRLF and a glob', 'refused', id='a*\r\nDEL b', stored=False)
    yield Case('M42', 'id of 100 KB', 'refused', id='i' * 100_000)
    yield Case('M44a', 'eta garbage', 'refused', eta='tomorrow')
    yield Case('M44b', 'eta an integer', 'refused', eta=17)
    yield Case('M44c', 'eta in the year 0', 'refused', eta='0000-01-01T00:00:00')
    yield Case('M46', 'eta in the past', 'runs', eta='2001-01-01T00:00:00+00:00', value=5)
    yield Case('M47', 'eta without a zone, past', 'runs', eta='2001-01-01T00:00:00', value=5)
    yield Case('M48a', 'eta with Z', 'runs', eta='2001-01-01T00:00:00Z', value=5)
    yield Case('M48b', 'eta at +05:30 with microseconds', 'runs', eta='2001-01-01T00:00:00.123456+05:30', value=5)
    yield Case('M49', 'expired', 'revoked', expires='2001-01-01T00:00:00+00:00')
    yield Case('M50a', 'expires garbage', 'refused', expires='soon')
    yield Case('M50b', 'expires an integer', 'refused', expires=17)
    yield Case('M51a', 'retries a string', 'settled', retries='many')
    yield Case('M51b', 'retries negative', 'settled', retries=-5)
    yield Case('M51c', 'retries 10^9', 'settled', retries=10 ** 9)
    yield Case('M52a', 'time limit a string', 'refused', timelimit='soon')
    yield Case('M52b', 'time limit of one', 'refused', timelimit=[1])
    yield Case('M52c', 'time limits negative', 'settled', timelimit=[-1, -1])
    yield Case('M52d', 'time limits huge', 'runs', timelimit=[2 ** 62, 2 ** 62], value=5)
    yield Case('M53a', 'argsrepr an integer', 'runs', argsrepr=7, value=5)
    yield Case('M53b', 'argsrepr of 60 KB', 'runs', argsrepr='x' * 60_000, value=5)
    yield Case('M53c', 'argsrepr with escape sequences', 'runs', argsrepr='\x1b[31m\x07\n', value=5)
    yield Case('M54', 'ignore_result a string', 'refused', ignore_result='no')
    for key, shape in (('callbacks', 'x'), ('errbacks', [7]), ('chain', {'a': 1}), ('chain', ['x']), ('chord', 7)):
        yield Case('M55', f'{key} is {shape!r}', 'settled', call(embed={**EMBED, key: shape}))
    yield Case('M56a', '10,000 callbacks', 'settled', call(embed={**EMBED, 'callbacks': [signature()] * 10_000}))
    yield Case('M56b', 'a chain nested 300 deep', 'settled', call(embed={**EMBED, 'chain': deep_chain(300)}))
    yield Case('M57', 'reply_to of a stranger', 'runs', props=dict(reply_to='amq.rabbitmq.log'), value=5)
    # A float NaN is no case: RabbitMQ itself closes the connection (541).
    odd = {'at': datetime.datetime(2026, 1, 1), 'amount': decimal.Decimal('1.25'), 'bytes': b'\x00\xff',
           'void': None, 'float': 1e300, 'table': {'list': [1, {'deep': [True]}]}}
    yield Case('M58', 'headers of every AMQP type', 'runs', odd=odd, value=5, **{f'x-{k}': v for k, v in odd.items()})
    yield Case('M59', 'spoofed x-death and delivery count', 'runs', value=5,
               **{'x-death': [{'count': 99, 'reason': 'rejected', 'queue': QUEUE}], 'x-delivery-count': 99})
    yield Case('M60', 'priority 255', 'runs', props=dict(priority=255), value=5)
    yield Case('M61a', 'stamps a list', 'settled', stamps=[1])
    yield Case('M61b', 'stamped_headers a string', 'settled', stamped_headers='x')
    yield Case('M62', 'trace headers malformed', 'runs', traceparent='00-zz', tracestate='x' * 10_000, value=5)
    yield Case('M63', 'spoofed origin, language, shadow', 'runs', origin='<b>', lang='cobol', shadow='<i>x</i>',
               value=5)


class Bench:
    def __init__(self):
        url = urlparse(os.environ['CELERY_BROKER_URL'])
        self.connection = amqp.Connection(f'{url.hostname}:{url.port}', url.username, url.password,
                                          virtual_host=unquote(url.path[1:]) or '/')
        self.connection.connect()
        self.channel = self.connection.channel()
        self.results = redis.Redis.from_url(os.environ['CELERY_RESULT_BACKEND'])

    def declare(self):
        for queue in QUEUE, DEAD:
            self.channel.queue_declare(queue, durable=True, auto_delete=False)

    def publish(self, case):
        message = amqp.Message(case.body, application_headers=case.headers or None, **case.properties)
        self.channel.basic_publish(message, exchange='', routing_key=QUEUE)

    def state(self, task_id):
        meta = self.results.get(f'celery-task-meta-{task_id}')
        return json.loads(meta) if meta else {'status': None}

    def dead_lettered(self, case):
        message = self.channel.basic_get(DEAD, no_ack=True)
        return message is not None and message.properties.get('correlation_id') == case.id

    def run(self, case):
        self.publish(case)
        end = time.monotonic() + PATIENCE
        dead, meta = False, {'status': None}
        while time.monotonic() < end:
            dead = dead or self.dead_lettered(case)
            meta = self.state(case.id)
            if self.came_out(case, dead, meta):
                break
            time.sleep(0.01)
        probe = Case('probe', 'the next valid task', 'runs', value=5)
        self.publish(probe)
        while time.monotonic() < end + PATIENCE and self.state(probe.id)['status'] != 'SUCCESS':
            time.sleep(0.01)
        return {
            'case': case.name, 'what': case.what, 'expected': case.expect, 'dead_lettered': dead,
            'state': meta['status'], 'result': repr(meta.get('result'))[:200],
            'ok': self.came_out(case, dead, meta), 'next': self.state(probe.id)['status'] == 'SUCCESS',
        }

    @staticmethod
    def came_out(case, dead, meta):
        state = meta['status']
        if case.expect == 'refused':
            return dead and state == ('FAILURE' if case.stored else None)
        if case.expect == 'runs':
            return not dead and state == 'SUCCESS' and (case.value is None or meta['result'] == case.value)
        if case.expect == 'revoked':
            return state == 'REVOKED'
        if case.expect == 'fails':
            return state == 'FAILURE'
        return (dead and not case.stored) or state in ('SUCCESS', 'FAILURE')


def main():
    bench = Bench()
    if sys.argv[1:] == ['--declare']:
        return bench.declare()
    wanted = set(sys.argv[1:])
    bad = []
    for case in cases():
        if wanted and case.name not in wanted:
            continue
        line = bench.run(case)
        print(json.dumps(line), flush=True)
        if not (line['ok'] and line['next']):
            bad.append(f"{line['case']} {line['what']}")
            if not line['next']:
                break  # the worker is gone; the rest would say nothing
    print(json.dumps(bad))


if __name__ == '__main__':
    main()
