"""Records where Celery sends tasks under `task_routes`, as a golden file for the tests of the broker crate.

    python capture_routes.py ../../tests/golden/routes.json

Each case: the setting as JSON (a key that begins with `^` stands for a compiled expression), a task, what the call says, and
what Celery gives to its producer. Nothing is sent.
"""
import json
import re
import sys
from unittest.mock import MagicMock

from celery import Celery

MAIL = {'mail.*': 'mail', 'mail.bounce': {'queue': 'bounces'}, '*.slow': {'queue': 'slow', 'priority': 1},
        '^(video|image)\\.\\d+': 'media', 'media.*': {'queue': 'media', 'serializer': 'yaml', 'compression': 'zstd'}}
TOPICS = {'topic.*': {'exchange': 'x', 'routing_key': 'a.b', 'exchange_type': 'topic'},
          'direct.*': {'queue': 'd', 'exchange': 'x'}, 'keyed.*': {'queue': 'k', 'routing_key': 'other'},
          'typed.*': {'queue': 't', 'exchange': 'x', 'exchange_type': 'topic'},
          'all.*': {'queue': 'a', 'exchange': 'x', 'routing_key': 'r'}, 'lost.*': {'delivery_mode': 1, 'queue': 'l'}}
SEVERAL = [{'b.*': 'first'}, {'b.x': 'second', 'c': {}}, [['c', 'third'], ['d.*', {'queue': 'pair'}], ['d.e*', 'never']]]
CASES = [
    *[(MAIL, task, {}) for task in ('t.add', 'mail.send', 'mail.bounce', 'mail.slow', 'x.slow', 'video.7.cut', 'a.video.7',
                                    'image.12', 'media.cut', 'MAIL.send', 'mail')],
    *[(TOPICS, task, {}) for task in ('topic.a', 'direct.a', 'keyed.a', 'typed.a', 'all.a', 'lost.a')],
    *[(SEVERAL, task, {}) for task in ('b.x', 'b.y', 'c', 'd.e', 'd.f', 'e')],
    (MAIL, 'mail.send', {'queue': 'mine'}), (MAIL, 'x.slow', {'priority': 9}), (MAIL, 'x.slow', {'queue': 'mine'}),
    (TOPICS, 'topic.a', {'routing_key': 'k'}), (TOPICS, 'topic.a', {'exchange': 'y'}),
    (TOPICS, 'typed.a', {'exchange': 'y'}), (TOPICS, 'typed.a', {'routing_key': 'k'}), (TOPICS, 'keyed.a', {'queue': 'mine'}),
    (TOPICS, 'all.a', {'routing_key': 'k'}), (TOPICS, 'direct.a', {'routing_key': 'k'}), ({}, 't', {}),
    ({}, 't', {'queue': 'q', 'exchange': 'y'}), ({}, 't', {'queue': 'q', 'exchange': 'y', 'routing_key': 'k'}),
    ({'*': 'everything'}, 't', {}), ({'a?': 'never', 'b*[cd]': 'set'}, 'ax', {}), ({'a?': 'never', 'b*[cd]': 'set'}, 'bxc', {}),
]
MIMES = {'zstd': 'application/zstd', None: None}


def keys(router):
    pairs = router.items() if isinstance(router, dict) else router
    return [(re.compile(key) if key.startswith('^') else key, route) for key, route in pairs]


def sent(routes, task, call):
    app = Celery('routes', broker='memory://', set_as_current=False)
    app.conf.task_routes = [keys(router) for router in (routes if isinstance(routes, list) else [routes])]
    producer = MagicMock()
    app.send_task(task, producer=producer, **call)
    return producer.publish.call_args.kwargs


def main(path):
    cases = []
    for routes, task, call in CASES:
        seen = sent(routes, task, call)
        cases.append({'routes': routes, 'task': task, 'call': call, 'exchange': seen['exchange'],
                      'routing_key': seen['routing_key'], 'priority': seen.get('priority'),
                      'serializer': seen['serializer'], 'compression': MIMES[seen['compression']],
                      'delivery_mode': seen['delivery_mode']})
    with open(path, 'w', encoding='utf-8') as file:
        file.write('[\n' + ',\n'.join(json.dumps(case) for case in cases) + '\n]\n')


if __name__ == '__main__':
    main(sys.argv[1])
