// Keys that work anywhere. Single letters are off while typing, and altogether where the user switched them off.

import { link, router } from './router.svelte';
import { prefs } from './prefs.svelte';

export interface KeyHelp {
  keys: string[];
  what: string;
}

export const KEY_HELP: { title: string; keys: KeyHelp[] }[] = [
  {
    title: 'Go to',
    keys: [
      { keys: ['g', 'o'], what: 'Overview' },
      { keys: ['g', 't'], what: 'Tasks' },
      { keys: ['g', 'f'], what: 'Failures' },
      { keys: ['g', 'w'], what: 'Workers' },
      { keys: ['g', 'q'], what: 'Queues' },
      { keys: ['g', 's'], what: 'Schedules' },
      { keys: ['g', 'a'], what: 'Alerts' },
      { keys: ['/'], what: 'Search tasks' },
    ],
  },
  {
    title: 'Lists',
    keys: [
      { keys: ['j'], what: 'Next row' },
      { keys: ['k'], what: 'Previous row' },
      { keys: ['Enter'], what: 'Open the row' },
      { keys: ['x'], what: 'Select the row' },
      { keys: ['X'], what: 'Select up to the row' },
      { keys: ['.'], what: 'Show new rows' },
      { keys: ['p'], what: 'Pause or follow live' },
    ],
  },
  {
    title: 'Tasks, or a selection of them',
    keys: [
      { keys: ['e'], what: 'Retry' },
      { keys: ['r'], what: 'Revoke' },
      { keys: ['c'], what: 'Copy the task’s id' },
    ],
  },
  {
    title: 'Everywhere',
    keys: [
      { keys: ['t'], what: 'Light or dark' },
      { keys: ['?'], what: 'This help' },
      { keys: ['Esc'], what: 'Close, or leave a field' },
    ],
  },
];

type Handler = () => void;
const handlers = new Map<string, Handler[]>();

/** Binds a key while a page part is on screen; the latest binding wins. */
export function bindKey(key: string, handler: Handler): () => void {
  const list = handlers.get(key) ?? [];
  handlers.set(key, [...list, handler]);
  return () => handlers.set(key, (handlers.get(key) ?? []).filter((h) => h !== handler));
}

let chord = 0;

export function startKeys(): void {
  document.addEventListener('keydown', (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target as HTMLElement;
    const typing = target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) && (target as HTMLInputElement).type !== 'checkbox';
    if (event.key === 'Escape' && typing) {
      target.blur();
      return;
    }
    if (typing || !prefs.shortcuts || document.querySelector('dialog[open]')) return;
    if (event.key === 'g') {
      chord = Date.now();
      return;
    }
    const key = Date.now() - chord < 1500 ? `g ${event.key}` : event.key;
    chord = 0;
    const handler = handlers.get(key)?.at(-1) ?? ALWAYS[key];
    if (!handler) return;
    event.preventDefault();
    handler();
  });
}

const ALWAYS: Record<string, Handler> = {
  'g o': () => router.go(link.overview()),
  'g t': () => router.go(link.tasks()),
  'g w': () => router.go(link.workers()),
  'g f': () => router.go(link.page('failures')),
  'g q': () => router.go(link.page('queues')),
  'g s': () => router.go(link.page('schedules')),
  'g a': () => router.go(link.page('alerts')),
  '/': () => {
    router.go(link.tasks());
    setTimeout(() => document.querySelector<HTMLElement>('#query')?.focus(), 50);
  },
  t: () => prefs.nextTheme(),
};
