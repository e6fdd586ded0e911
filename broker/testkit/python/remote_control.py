"""Asks two workers the same things with Celery's own command line and compares the answers key by key.

    remote_control.py REFERENCE QUEUE JUDGED QUEUE

names two running workers with one slot each, and the queue that each consumes from. Every command of `celery inspect` and
`celery control` is put to both, and after each change the effect is looked up; in the end both are shut down. Prints one JSON object: `asked`, the
number of commands, and `differences`, where each answer of the judged worker differs from the reference.

Ids, names of nodes and queues are replaced by the same words on both sides; numbers are compared by type, texts exactly.
"""
import contextlib
import io
import json
import re
import sys
import time

from celery.bin.celery import celery as command_line
from celery.worker.control import Panel

from peer_app import add, app, sleep

UUID = re.compile(r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}')
# Where the two may differ: what the answers are about differs.
OWN = {
    'stats.pool': 'each kind of pool tells other things',
    'conf': 'compared key by key below',
    'report': 'names the software',
    'memsample': 'psutil or the kernel',
    'memdump': 'there is no Python to dump',
    'objgraph': 'there is no Python to draw',
    'registered': 'the peer has tasks of its own',
    'rate_limit demo.add 0': 'Celery takes the text "0" for a limit, and does not limit',
    'registered after rate_limit demo.add 0': 'as above',
    'pool_shrink 1': 'Celery shrinks only when a child is idle at that moment',
}


class Side:
    """One of the two workers, and what is under way there."""

    def __init__(self, node, queue):
        self.node, self.queue = node, queue
        self.running = sleep.apply_async((120,), queue=queue)
        self.until(lambda: self.active() == [self.running.id], 'the task does not start')
        self.waiting = add.apply_async((1, 2), queue=queue)
        self.held = add.apply_async((3,), {'y': 4}, countdown=55, queue=queue)
        self.until(lambda: self.known() == ['active', 'reserved', 'scheduled'], 'the tasks do not arrive')

    def inspect(self):
        return app.control.inspect([self.node], timeout=5)

    def active(self):
        return [task['id'] for task in (self.inspect().active() or {}).get(self.node, [])]

    def known(self):
        ids = (self.running.id, self.waiting.id, self.held.id)
        found = (self.inspect().query_task(*ids) or {}).get(self.node, {})
        return sorted(state for state, _ in found.values())

    def until(self, check, problem):
        end = time.monotonic() + 40
        while not check():
            assert time.monotonic() < end, f'{self.node}: {problem}'
            time.sleep(0.1)

    def command(self, kind, words):
        """What Celery's command line prints; for `inspect` as JSON."""
        words = [word.format(side=self) for word in words]
        extra = ['-j'] if kind != 'status' else []
        args = ['-A', 'peer_app', kind, '-t', '5', '-d', self.node, *extra, *words]
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            try:
                command_line.main(args, prog_name='celery', standalone_mode=False)
            except BaseException as problem:
                return {'raised': type(problem).__name__, 'text': self.plain(problem), 'out': self.plain(out.getvalue())}
        try:
            answer = json.loads(out.getvalue())
        except ValueError:
            return self.plain(out.getvalue())
        if isinstance(answer, list):  # control: [{node: value}]
            answer = {node: value for reply in answer for node, value in reply.items()}
        return answer.get(self.node, 'no answer')

    def broadcast(self, method, arguments):
        """What a client gets that is not Celery's command line."""
        replies = app.control.broadcast(method, arguments, destination=[self.node], reply=True, timeout=5)
        return replies[0][self.node] if replies else 'no answer'

    def plain(self, value):
        text = str(value)
        for word, name in ((self.node, 'NODE'), (self.queue, 'QUEUE'), (self.running.id, 'RUNNING'),
                           (self.waiting.id, 'WAITING'), (self.held.id, 'HELD')):
            text = text.replace(word, name)
        return UUID.sub('ID', text)

    def shape(self, value):
        """A value with everything replaced that cannot be the same on two workers."""
        if isinstance(value, dict):
            return {self.plain(key): self.shape(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.shape(item) for item in value]
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, (int, float)):
            return type(value).__name__
        text = re.sub(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?', r'TIME\2', self.plain(value))
        return 'DIGITS' if re.fullmatch(r'\d+', text) else text


def differences(path, reference, judged):
    """Where two shapes differ, one text each."""
    if path in OWN:
        return
    if isinstance(reference, dict) and isinstance(judged, dict):
        for key in [*reference, *(key for key in judged if key not in reference)]:
            here = f'{path}.{key}'
            if here in OWN:
                continue
            if key not in judged:
                yield f'{here} is missing; the reference has {reference[key]!r}'
            elif key not in reference:
                yield f'{here} is not in the reference: {judged[key]!r}'
            else:
                yield from differences(here, reference[key], judged[key])
    elif isinstance(reference, list) and isinstance(judged, list) and len(reference) == len(judged):
        for index, (one, other) in enumerate(zip(reference, judged)):
            yield from differences(f'{path}[{index}]', one, other)
    elif reference != judged:
        yield f'{path}: {judged!r} instead of {reference!r}'


LOOK = [
    ['ping'], ['active'], ['reserved'], ['scheduled'], ['revoked'], ['stats'], ['active_queues'], ['clock'],
    ['query_task', '{side.running.id}', '{side.waiting.id}', '{side.held.id}', 'none'], ['query_task', 'none'],
    ['registered'], ['report'], ['conf'], ['memsample'], ['memdump'], ['objgraph'],
]
# Each change, and what is looked at after it.
CHANGE = [
    (['enable_events'], None), (['enable_events'], None), (['disable_events'], None), (['disable_events'], None),
    (['heartbeat'], None),
    (['rate_limit', 'demo.add', '5/m'], ['registered', 'rate_limit']),
    (['rate_limit', 'demo.add', '0'], ['registered', 'rate_limit']),
    (['rate_limit', 'demo.add', 'abc'], None), (['rate_limit', 'demo.add', '1/y'], None),
    (['rate_limit', 'demo.none', '1/s'], None),
    (['time_limit', 'demo.mul', '5', '7.5'], ['registered', 'time_limit', 'soft_time_limit']),
    (['time_limit', 'demo.none', '5', '7'], None),
    (['pool_grow', '2'], None), (['pool_shrink', '1'], None), (['pool_restart'], None),
    (['autoscale', '3', '1'], None),
    (['add_consumer', 'extra-{side.queue}'], ['active_queues']),
    (['add_consumer', 'topic-{side.queue}', 'topics-{side.queue}', 'topic', 'a.#'], ['active_queues']),
    (['cancel_consumer', 'extra-{side.queue}'], ['active_queues']),
    (['cancel_consumer', 'none'], None),
    (['cancel_consumer', 'topic-{side.queue}'], ['active_queues']),
    (['election', 'one', 'nothing'], None),
    (['revoke', 'unknown-task'], ['revoked']),
    (['revoke', '{side.waiting.id}'], ['revoked']),
    (['revoke_by_stamped_headers', 'job=j1'], None),
    (['terminate', 'SIGTERM', 'unknown-task'], None),
    (['terminate', 'SIGTERM', '{side.running.id}'], None),
]
# What clients send that are not Celery's command line.
RAW = [
    ('bogus', {}), ('ping', {'zz': 1}), ('enable_events', {'zz': 1}), ('report', {'zz': 1}), ('revoke', {}),
    ('revoke', {'task_id': 'x1', 'terminate': True}), ('terminate', {'task_id': 'x1', 'signal': 'BOGUS'}),
    ('revoke', {'task_id': 'x1', 'terminate': True, 'signal': 'SIGKILL'}),
    ('revoke', {'task_id': 'x1', 'terminate': True, 'signal': 'sigterm'}),
    ('revoke', {'task_id': []}), ('query_task', {'ids': 'none'}),
    ('registered', {'taskinfoitems': ['name', '_x', 'nothing'], 'builtins': False}), ('active', {'safe': True}),
    ('dump_active', {}), ('dump_reserved', {}), ('dump_schedule', {}), ('dump_revoked', {}),
    ('hello', {'from_node': 'other@here', 'revoked': ['from-other']}), ('hello', {'from_node': '{side.node}'}),
    ('revoke_by_stamped_headers', {'headers': {'job': ['j1', 'j2']}, 'terminate': True}),
    ('rate_limit', {'task_name': 'demo.add', 'rate_limit': None}), ('rate_limit', {'task_name': 'demo.add', 'rate_limit': 3}),
    ('time_limit', {'task_name': 'demo.mul'}), ('autoscale', {'zz': 1}), ('cancel_consumer', {}), ('add_consumer', {}),
    ('election', {}), ('conf', {'with_defaults': True}), ('active_queues', {'zz': 1}), ('heartbeat', {'zz': 1}),
]


def main():
    node_a, queue_a, node_b, queue_b = sys.argv[1:]
    sides = (Side(node_a, queue_a), Side(node_b, queue_b))
    asked, found = 0, []

    def compare(what, answers):
        nonlocal asked
        asked += 1
        shapes = [side.shape(answer) for side, answer in zip(sides, answers)]
        found.extend(differences(what, *shapes))

    confs = [side.command('inspect', ['conf']) for side in sides]
    found.extend(f'conf.{key}: {confs[1][key]!r} beside {confs[0][key]!r}' for key in confs[1]
                 if key in confs[0] and type(confs[0][key]) is not type(confs[1][key])
                 and None not in (confs[0][key], confs[1][key]))
    registered = [side.command('inspect', ['registered']) for side in sides]
    found.extend(f'registered: {name} is not there' for name in registered[0]
                 if name.startswith('demo.') and name not in registered[1])
    for words in LOOK:
        compare(words[0] if len(words) == 1 else f'{words[0]} {words[1]}',
                [side.command('inspect', words) for side in sides])
    compare('status', [side.command('status', []) for side in sides])
    for method, arguments in RAW:
        sent = [{key: value.format(side=side) if isinstance(value, str) else value
                 for key, value in arguments.items()} for side in sides]
        answers = [side.broadcast(method, own) for side, own in zip(sides, sent)]
        if method == 'registered':
            answers = [[line for line in lines if line.startswith('demo.')] for lines in answers]
        compare('conf' if method == 'conf' else f'{method} {json.dumps(arguments)}', answers)
    for words, look in CHANGE:
        compare(' '.join(words), [side.command('control', words) for side in sides])
        if look:
            for side in sides:
                time.sleep(0.5)  # Celery carries some changes out after its answer
            shown = [side.command('inspect', look) for side in sides]
            if look[0] == 'registered':
                shown = [[line for line in lines if line.startswith(('demo.add', 'demo.mul'))] for lines in shown]
            compare(f'{look[0]} after {" ".join(words)}', shown)
    for side in sides:
        side.until(lambda side=side: side.running.state == 'REVOKED', 'the terminated task is not REVOKED')
    compare('shutdown', [side.command('control', ['shutdown']) for side in sides])
    tried = {words[0] for words in LOOK} | {words[0] for words, _ in CHANGE} | {method for method, _ in RAW} | {'shutdown'}
    found.extend(f'{name} was not asked' for name in sorted(Panel.meta) if name not in tried)
    print(json.dumps({'asked': asked, 'differences': found}))


if __name__ == '__main__':
    main()
