import { describe, expect, it } from 'vitest';
import { task } from './fixtures';
import { absorbTyped, EMPTY, fromSearch, glob, matches, parseSort, toApi, toggleSort, toSearch } from './query';

describe('the address', () => {
  it('is empty for the default filter', () => expect(toSearch(EMPTY)).toBe(''));

  it.each(['?state=FAILURE', '?state=FAILURE,RETRY&name=demo.*', '?worker=celery@host', '?q=%3Cscript%3E&sort=-runtime', '?sort=name'])('%s survives a round trip', (search) => {
    expect(toSearch(fromSearch(search))).toBe(search);
  });

  it('ignores what it cannot read', () => {
    expect(fromSearch('?state=<b>,ok,,OK&sort=evil&limit=x&q=%E0%A4%A')).toEqual({ ...EMPTY, states: ['OK'], text: fromSearch('?q=%E0%A4%A').text });
  });

  it('bounds long values', () => {
    expect(fromSearch(`?q=${'x'.repeat(5000)}`).text).toHaveLength(256);
    expect(fromSearch(`?q=${'é'.repeat(5000)}`).text).toHaveLength(128);
  });
});

describe('the API query', () => {
  it('always says how to sort and how many', () => {
    expect(toApi(EMPTY, 200, null, false)).toBe('sort=-received&limit=200');
    expect(toApi({ ...EMPTY, states: ['FAILURE', 'RETRY'], text: 'a&b' }, 50, 'c/1', true)).toBe('state=FAILURE%2CRETRY&q=a%26b&sort=-received&limit=50&cursor=c%2F1&facets=1');
  });
});

describe('typed qualifiers', () => {
  it('move into the filter', () => {
    const filter = absorbTyped('state:failure worker:celery@a name:demo "out of memory" order', EMPTY);
    expect(filter).toMatchObject({ states: ['FAILURE'], worker: 'celery@a', name: '*demo*', text: '"out of memory" order' });
  });
  it('accept quotes and globs', () => expect(absorbTyped('name:"a b*" state:', EMPTY)).toMatchObject({ name: 'a b*', text: 'state:' }));
});

describe('sorting', () => {
  it('reads and toggles', () => {
    expect(parseSort('-runtime')).toEqual({ key: 'runtime', descending: true });
    expect(parseSort('bogus')).toEqual({ key: 'received', descending: true });
    expect(toggleSort({ key: 'name', descending: false }, 'name')).toEqual({ key: 'name', descending: true });
    expect(toggleSort({ key: 'name', descending: false }, 'runtime')).toEqual({ key: 'runtime', descending: true });
  });
});

describe('matches', () => {
  const row = task({ id: 'a1', name: 'demo.add', state: 'SUCCESS', worker: 'w@1', args: '(2, 3)', result: '5' });
  it.each([
    [{}, true], [{ states: ['SUCCESS'] }, true], [{ states: ['FAILURE'] }, false], [{ name: 'demo.*' }, true], [{ name: 'add' }, false],
    [{ worker: 'w@1' }, true], [{ worker: 'w' }, false], [{ text: '(2, 3)' }, true], [{ text: 'ADD' }, true], [{ text: 'w@1' }, false],
  ])('%j → %s', (part, expected) => expect(matches(row, { ...EMPTY, ...part })).toBe(expected));
});

describe('glob', () => {
  it.each([['*', ''], ['a*c', 'abbbc'], ['a?c', 'abc'], ['*b*', 'abc'], ['**x', 'x'], ['a*b*c', 'a-b-b-c']])('%s matches %s', (p, t) => expect(glob(p, t)).toBe(true));
  it.each([['a', 'ab'], ['a?c', 'ac'], ['*x', 'xy'], ['', 'a'], ['a*b*c', 'a-c']])('%s rejects %s', (p, t) => expect(glob(p, t)).toBe(false));
  it('does not explode', () => expect(glob('*a'.repeat(50) + 'b', 'a'.repeat(5000))).toBe(false));
});
