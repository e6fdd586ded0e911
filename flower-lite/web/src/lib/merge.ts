// Changed rows folded into a sorted list. Pure: the list controller decides when; this decides how.

import type { Task } from '../api/types';
import { matches, type Filter, type Sort } from './query';

export interface Merged {
  rows: Task[];
  /** Rows that came in. */
  added: number;
  /** Rows that no longer match and went. */
  removed: number;
}

/**
 * `rows` with `changed` folded in: known rows are replaced in place, rows that stopped matching go, new matching rows
 * are put where the sort wants them. A new row that belongs behind the last loaded one is dropped unless the list is
 * `complete`: it will come with the next page.
 */
export function mergeRows(rows: readonly Task[], changed: readonly Task[], filter: Filter, complete: boolean): Merged {
  const latest = new Map<string, Task>();
  for (const task of changed) latest.set(task.id, task);

  let removed = 0;
  let moved = false;
  const kept: Task[] = [];
  for (const row of rows) {
    const update = latest.get(row.id);
    if (!update) {
      kept.push(row);
      continue;
    }
    latest.delete(row.id);
    if (!matches(update, filter)) {
      removed++;
      continue;
    }
    moved ||= compareTasks(row, update, filter.sort) !== 0;
    kept.push(update);
  }

  const fresh = [...latest.values()].filter((task) => matches(task, filter)).sort((a, b) => compareTasks(a, b, filter.sort));
  if (moved) kept.sort((a, b) => compareTasks(a, b, filter.sort));
  const last = kept.at(-1);
  const inside = complete || !last ? fresh : fresh.filter((task) => compareTasks(task, last, filter.sort) < 0);
  return { rows: inside.length ? interleave(kept, inside, filter.sort) : kept, added: inside.length, removed };
}

/** Order of the list: the chosen key, unknown values last in either direction, then newest first, then id. */
export function compareTasks(a: Task, b: Task, sort: Sort): number {
  const byKey = compareKey(sortValue(a, sort), sortValue(b, sort), sort.descending);
  if (byKey !== 0) return byKey;
  const byAge = compareKey(a.received ?? a.timestamp, b.received ?? b.timestamp, true);
  if (byAge !== 0) return byAge;
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

function sortValue(task: Task, sort: Sort): string | number | null {
  return sort.key === 'received' ? (task.received ?? task.sent ?? task.timestamp) : task[sort.key];
}

function compareKey(a: string | number | null, b: string | number | null, descending: boolean): number {
  if (a === b) return 0;
  if (a === null) return 1;
  if (b === null) return -1;
  return a < b === descending ? 1 : -1;
}

function interleave(a: readonly Task[], b: readonly Task[], sort: Sort): Task[] {
  const out: Task[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length && j < b.length) {
    const x = a[i] as Task;
    const y = b[j] as Task;
    if (compareTasks(x, y, sort) <= 0) {
      out.push(x);
      i++;
    } else {
      out.push(y);
      j++;
    }
  }
  return out.concat(a.slice(i), b.slice(j));
}
