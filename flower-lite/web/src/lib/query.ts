// The filter of the tasks page as a value, and its two spellings: the page's address (what people share) and the
// API's query string. Also the small query language that Flower's users type: `state:FAILURE name:demo.* words`.

import type { Task } from '../api/types';

export const SORT_KEYS = ['received', 'started', 'runtime', 'name', 'state', 'worker'] as const;
export type SortKey = (typeof SORT_KEYS)[number];

export interface Sort {
  key: SortKey;
  descending: boolean;
}

export interface Filter {
  states: string[];
  /** Glob over the task name. */
  name: string;
  worker: string;
  /** Substring over id, name, args, kwargs, result and exception. */
  text: string;
  sort: Sort;
}

export const DEFAULT_SORT: Sort = { key: 'received', descending: true };

export const EMPTY: Filter = { states: [], name: '', worker: '', text: '', sort: DEFAULT_SORT };

const MAX_BYTES = 256;
const UTF8 = new TextEncoder();
const STATE = /^[A-Za-z][\w-]{0,49}$/;

/** Reads the page's address; what it does not understand is left out, never an error. */
export function fromSearch(search: string): Filter {
  const params = new URLSearchParams(search);
  return {
    states: parseStates(params.get('state') ?? ''),
    name: clean(params.get('name')),
    worker: clean(params.get('worker')),
    text: clean(params.get('q')),
    sort: parseSort(params.get('sort')),
  };
}

/** The shortest address for a filter: defaults are left out. Starts with `?`, or is empty. */
export function toSearch(filter: Filter): string {
  const params = new URLSearchParams();
  if (filter.states.length) params.set('state', filter.states.join(','));
  if (filter.name) params.set('name', filter.name);
  if (filter.worker) params.set('worker', filter.worker);
  if (filter.text) params.set('q', filter.text);
  if (!sameSort(filter.sort, DEFAULT_SORT)) params.set('sort', sortParam(filter.sort));
  const text = params.toString().replaceAll('%2C', ',').replaceAll('%40', '@');
  return text ? `?${text}` : '';
}

/** The API's parameters for one page of the list. */
export function toApi(filter: Filter, limit: number, cursor: string | null, facets: boolean): string {
  const params = new URLSearchParams();
  if (filter.states.length) params.set('state', filter.states.join(','));
  if (filter.name) params.set('name', filter.name);
  if (filter.worker) params.set('worker', filter.worker);
  if (filter.text) params.set('q', filter.text);
  params.set('sort', sortParam(filter.sort));
  params.set('limit', String(limit));
  if (cursor) params.set('cursor', cursor);
  if (facets) params.set('facets', '1');
  return params.toString();
}

export function isFiltered(filter: Filter): boolean {
  return filter.states.length > 0 || filter.name !== '' || filter.worker !== '' || filter.text !== '';
}

export function sameFilter(a: Filter, b: Filter): boolean {
  return toSearch(a) === toSearch(b);
}

export function sortParam(sort: Sort): string {
  return (sort.descending ? '-' : '') + sort.key;
}

export function parseSort(text: string | null): Sort {
  const descending = text?.startsWith('-') ?? false;
  const key = SORT_KEYS.find((k) => k === text?.replace(/^-/, ''));
  return key ? { key, descending } : DEFAULT_SORT;
}

/** The next sort when a column head is pressed: its natural direction first, then the other one. */
export function toggleSort(current: Sort, key: SortKey): Sort {
  if (current.key === key) return { key, descending: !current.descending };
  return { key, descending: key === 'received' || key === 'started' || key === 'runtime' };
}

/** Takes `state:`, `name:` and `worker:` out of typed text; the rest stays free text. Quotes keep spaces together. */
export function absorbTyped(typed: string, filter: Filter): Filter {
  let { states, name, worker } = filter;
  const rest: string[] = [];
  for (const token of typed.match(/(?:\w+:)?"[^"]*"|\S+/g) ?? []) {
    const [, key, raw] = /^(state|name|worker):(.+)$/s.exec(token) ?? [];
    const value = raw?.replace(/^"(.*)"$/s, '$1') ?? '';
    if (key === 'state' && parseStates(value).length) states = [...new Set([...states, ...parseStates(value)])];
    else if (key === 'name' && value) name = /[*?[]/.test(value) ? value : `*${value}*`;
    else if (key === 'worker' && value) worker = value;
    else rest.push(token);
  }
  return { ...filter, states, name, worker, text: rest.join(' ') };
}

/** Whether the live stream's row belongs in the list. The server's rules, applied to one row. */
export function matches(task: Task, filter: Filter): boolean {
  if (filter.states.length && !filter.states.includes(task.state)) return false;
  if (filter.worker && task.worker !== filter.worker) return false;
  if (filter.name && !glob(filter.name, task.name ?? '')) return false;
  if (!filter.text) return true;
  const needle = filter.text.toLowerCase();
  return [task.id, task.name, task.args, task.kwargs, task.result, task.exception].some((field) => field?.toLowerCase().includes(needle));
}

/** Shell-style match of the whole text: `*`, `?` and nothing else. Linear in both lengths but for the last star. */
export function glob(pattern: string, text: string): boolean {
  let p = 0;
  let t = 0;
  let star = -1;
  let mark = 0;
  while (t < text.length) {
    if (pattern[p] === '*') {
      star = p++;
      mark = t;
    } else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === text[t])) {
      p++;
      t++;
    } else if (star >= 0) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (pattern[p] === '*') p++;
  return p === pattern.length;
}

function parseStates(text: string): string[] {
  const names = text.split(',').map((s) => s.trim().toUpperCase());
  return [...new Set(names.filter((s) => STATE.test(s)))].slice(0, 20);
}

function sameSort(a: Sort, b: Sort): boolean {
  return a.key === b.key && a.descending === b.descending;
}

/** Trimmed, and no longer than the server takes. */
function clean(value: string | null): string {
  let text = (value ?? '').trim().slice(0, MAX_BYTES);
  while (UTF8.encode(text).length > MAX_BYTES) text = text.slice(0, -1);
  return text;
}
