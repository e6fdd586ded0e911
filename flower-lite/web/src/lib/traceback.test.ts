import { describe, expect, it } from 'vitest';
import { parseTraceback } from './traceback';

const PLAIN = `Traceback (most recent call last):
  File "/venv/lib/python3.11/site-packages/celery/app/trace.py", line 564, in trace_task
    R = retval = fun(*args, **kwargs)
                 ^^^^^^^^^^^^^^^^^^^^
  File "/venv/lib/python3.11/site-packages/celery/app/trace.py", line 883, in __protected_call__
    return self.run(*args, **kwargs)
  File "/srv/shop/orders.py", line 31, in fail
    raise ValueError(
        f'order {order_id}')
ValueError: order 1002
second line of the message
`;

describe('a Python traceback', () => {
  const blocks = parseTraceback(PLAIN);
  it('folds the library and keeps the program', () => {
    expect(blocks.map((b) => (b.kind === 'line' ? b.role : b.kind))).toEqual(['head', 'folded', 'frame', 'error', 'error']);
    expect(blocks[1]).toMatchObject({ frames: [{ line: 564 }, { line: 883 }] });
    expect(blocks[2]).toMatchObject({ file: '/srv/shop/orders.py', line: 31, where: 'fail', code: ['raise ValueError(', "    f'order {order_id}')"] });
  });

  it('does not fold when nothing else would be left', () => {
    const all = parseTraceback(PLAIN.replace('/srv/shop/', '/venv/lib/python3.11/site-packages/'));
    expect(all.filter((b) => b.kind === 'folded')).toHaveLength(0);
    expect(all.filter((b) => b.kind === 'frame')).toHaveLength(3);
  });
});

it('keeps chained exceptions apart', () => {
  const text = `${PLAIN}\nDuring handling of the above exception, another exception occurred:\n\n${PLAIN}`;
  const roles = parseTraceback(text).flatMap((b) => (b.kind === 'line' ? [b.role] : []));
  expect(roles.filter((r) => r === 'head')).toHaveLength(2);
  expect(roles.filter((r) => r === 'link')).toHaveLength(1);
});

it('takes anything else as plain lines', () => {
  expect(parseTraceback('HttpError: 404\n\nCaused by:\n    0: no route')).toEqual(
    ['HttpError: 404', '', 'Caused by:', '    0: no route'].map((text) => ({ kind: 'line', role: 'text', text })),
  );
  expect(parseTraceback('')).toEqual([]);
});

it('reads exception groups', () => {
  const text = '  + Exception Group Traceback (most recent call last):\n  |   File "a.py", line 1, in f\n  |     x()\n  | ExceptionGroup: two (2 sub-exceptions)';
  expect(parseTraceback(text).map((b) => (b.kind === 'line' ? b.role : b.kind))).toEqual(['head', 'frame', 'error']);
});
