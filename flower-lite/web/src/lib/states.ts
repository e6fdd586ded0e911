// What a page needs to know of a task state: its word, its icon, its tone. Celery lets programs invent states
// (`PROGRESS`, or any `task-<x>` event), so everything unknown has a neutral look and keeps its own name.

export type Tone = 'ok' | 'bad' | 'warn' | 'run' | 'wait' | 'off' | 'custom';

export interface StateLook {
  word: string;
  icon: string;
  tone: Tone;
}

const LOOKS: Record<string, StateLook> = {
  PENDING: { word: 'Pending', icon: 'circle-dashed', tone: 'wait' },
  SENT: { word: 'Sent', icon: 'send', tone: 'wait' },
  RECEIVED: { word: 'Received', icon: 'inbox', tone: 'wait' },
  STARTED: { word: 'Started', icon: 'play', tone: 'run' },
  SUCCESS: { word: 'Success', icon: 'check', tone: 'ok' },
  FAILURE: { word: 'Failure', icon: 'cross', tone: 'bad' },
  RETRY: { word: 'Retry', icon: 'retry', tone: 'warn' },
  REVOKED: { word: 'Revoked', icon: 'slash', tone: 'off' },
  REJECTED: { word: 'Rejected', icon: 'bounce', tone: 'off' },
  IGNORED: { word: 'Ignored', icon: 'slash', tone: 'off' },
};

/** How a task looks whose worker fell silent while it ran: whatever its state says, nobody is known to be at it. */
export const ORPHANED: StateLook = { word: 'Orphaned', icon: 'alert', tone: 'warn' };

/** Celery's own states in the order in which a task meets them; failures before the rarer ends. */
export const STATE_ORDER = ['PENDING', 'SENT', 'RECEIVED', 'STARTED', 'RETRY', 'SUCCESS', 'FAILURE', 'REVOKED', 'REJECTED', 'IGNORED'];

/** States that are always offered as a filter, whether or not a task is in them. */
export const STATES_SHOWN = ['RECEIVED', 'STARTED', 'RETRY', 'SUCCESS', 'FAILURE', 'REVOKED'];

export function look(state: string): StateLook {
  const known = Object.hasOwn(LOOKS, state) ? LOOKS[state] : undefined;
  if (known) return known;
  return { word: titleCase(state), icon: 'diamond', tone: 'custom' };
}

/** Known states in life-cycle order, then invented ones by name. */
export function compareStates(a: string, b: string): number {
  const ia = STATE_ORDER.indexOf(a);
  const ib = STATE_ORDER.indexOf(b);
  if (ia >= 0 && ib >= 0) return ia - ib;
  if (ia >= 0) return -1;
  if (ib >= 0) return 1;
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The states to list, with counts: the usual ones and whatever else occurs. */
export function stateCounts(byState: Record<string, number>, selected: readonly string[] = []): { state: string; count: number }[] {
  const names = new Set([...STATES_SHOWN, ...selected]);
  for (const [state, count] of Object.entries(byState)) if (count > 0) names.add(state);
  return [...names].sort(compareStates).map((state) => ({ state, count: Object.hasOwn(byState, state) ? (byState[state] ?? 0) : 0 }));
}

function titleCase(state: string): string {
  return state.length > 1 ? state[0] + state.slice(1).toLowerCase().replaceAll('_', ' ') : state;
}
