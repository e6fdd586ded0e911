import { expect, it } from 'vitest';
import { jsonBody, Raw, typedNumber, wrongJson } from './body';
import { neededRole } from './roles';

it('puts typed JSON into a body as it was typed', () => {
  const text = jsonBody({ id: 'a"b', args: new Raw('[12345678901234567890, 1.0]'), left: undefined, none: null });
  expect(text).toBe('{"id":"a\\"b","args":[12345678901234567890, 1.0],"none":null}');
  expect(JSON.parse(text)).toMatchObject({ id: 'a"b', none: null });
});

it('says what is wrong with typed JSON', () => {
  expect(wrongJson('[1]', 'array')).toBe('');
  expect(wrongJson('{"a": 1}', 'object')).toBe('');
  expect(wrongJson('{"a": 1}', 'array')).toContain('list');
  expect(wrongJson('[]', 'object')).toContain('object');
  expect(wrongJson('null', 'object')).toContain('object');
  expect(wrongJson('{a: 1}', 'object')).toContain('not JSON');
});

it('reads numbers of fields', () => {
  expect([' ', '3', '1.5', 'x'].map(typedNumber)).toEqual([undefined, 3, 1.5, Number.NaN]);
});

it('knows what admins alone may do', () => {
  expect(['queue.purge', 'worker.shutdown', 'task.retry'].map(neededRole)).toEqual(['admin', 'admin', 'operator']);
});
