import { describe, expect, it } from 'vitest';
import { task } from './fixtures';
import { compareTasks, mergeRows } from './merge';
import { EMPTY, type Filter } from './query';

const at = (id: string, received: number, part = {}) => task({ id, received, ...part });
const ids = (rows: { id: string }[]) => rows.map((r) => r.id).join('');
const rows = [at('c', 3), at('b', 2), at('a', 1)];

describe('mergeRows', () => {
  it('puts new rows where the sort wants them', () => {
    const merged = mergeRows(rows, [at('d', 4), at('x', 2.5)], EMPTY, false);
    expect(ids(merged.rows)).toBe('dcxba');
    expect(merged.added).toBe(2);
  });

  it('leaves rows behind the last loaded one to the next page, unless the list is complete', () => {
    expect(ids(mergeRows(rows, [at('z', 0)], EMPTY, false).rows)).toBe('cba');
    expect(ids(mergeRows(rows, [at('z', 0)], EMPTY, true).rows)).toBe('cbaz');
    expect(ids(mergeRows([], [at('z', 0)], EMPTY, false).rows)).toBe('z');
  });

  it('replaces known rows in place and keeps the last version of a row sent twice', () => {
    const merged = mergeRows(rows, [at('b', 2, { state: 'STARTED' }), at('b', 2, { state: 'FAILURE' })], EMPTY, false);
    expect(ids(merged.rows)).toBe('cba');
    expect(merged.rows[1]?.state).toBe('FAILURE');
    expect(merged.added).toBe(0);
  });

  it('drops rows that stopped matching and ignores ones that never did', () => {
    const started: Filter = { ...EMPTY, states: ['STARTED'] };
    const list = rows.map((r) => ({ ...r, state: 'STARTED' }));
    const merged = mergeRows(list, [at('b', 2, { state: 'SUCCESS' }), at('q', 9, { state: 'SUCCESS' })], started, true);
    expect(ids(merged.rows)).toBe('ca');
    expect(merged).toMatchObject({ added: 0, removed: 1 });
  });

  it('moves a row whose sort value changed', () => {
    const byRuntime: Filter = { ...EMPTY, sort: { key: 'runtime', descending: true } };
    const list = [at('a', 1, { runtime: 9 }), at('b', 1, { runtime: 5 }), at('c', 1)];
    expect(ids(mergeRows(list, [at('c', 1, { runtime: 7 })], byRuntime, true).rows)).toBe('acb');
  });

  it('does not touch its input', () => {
    mergeRows(rows, [at('b', 9)], EMPTY, true);
    expect(ids(rows)).toBe('cba');
  });
});

describe('compareTasks', () => {
  it('keeps unknown values last in both directions', () => {
    const known = at('a', 1, { runtime: 1 });
    const unknown = at('b', 9);
    for (const descending of [true, false]) expect(compareTasks(known, unknown, { key: 'runtime', descending })).toBeLessThan(0);
  });
  it('breaks ties by age, then id', () => {
    expect(compareTasks(at('a', 1), at('b', 2), { key: 'name', descending: false })).toBeGreaterThan(0);
    expect(compareTasks(at('a', 1), at('b', 1), { key: 'name', descending: false })).toBeLessThan(0);
  });
});
