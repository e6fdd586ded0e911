// From a task's state changes to the spans that its timing bar draws: waiting in the queue, held by the worker,
// running, waiting for the next try. `now` is handed in; an unfinished task's last span grows until it.

import type { TaskDetail, TimelineEntry } from '../api/types';
import { parseInstant } from './time';

export type SpanKind = 'queued' | 'held' | 'eta' | 'running' | 'backoff' | 'other';

export interface Span {
  kind: SpanKind;
  from: number;
  to: number;
  /** Still going on: `to` is now. */
  open: boolean;
  /** Which try of the task this belongs to, from 1. */
  attempt: number;
  /** How the span ended, by state. */
  end: string | null;
}

export const SPAN_WORDS: Record<SpanKind, string> = {
  queued: 'in queue',
  held: 'held by worker',
  eta: 'waiting for ETA',
  running: 'running',
  backoff: 'waiting to retry',
  other: 'in other state',
};

const FINAL = new Set(['SUCCESS', 'FAILURE', 'REVOKED', 'REJECTED', 'IGNORED']);

export function spans(task: TaskDetail, now: number): Span[] {
  const entries = ordered(task);
  const eta = parseInstant(task.eta);
  const out: Span[] = [];
  let attempt = 1;
  entries.forEach((entry, i) => {
    const next = entries[i + 1];
    if (entry.type === 'task-received' && out.some((span) => span.kind === 'backoff' && span.attempt === attempt)) attempt++;
    if (!next && (task.ready || FINAL.has(entry.state ?? ''))) return;
    const kind = kindAfter(entry, eta);
    if (!kind) return;
    const to = next ? next.timestamp : Math.max(now, entry.timestamp);
    // Clocks of different hosts may disagree by a little; a span never runs backwards.
    out.push({ kind, from: entry.timestamp, to: Math.max(to, entry.timestamp), open: !next, attempt, end: next?.state ?? null });
  });
  return out;
}

/** The timeline by time; made up from the task's own stamps when the monitor kept none. */
export function ordered(task: TaskDetail): TimelineEntry[] {
  if (task.timeline.length) return [...task.timeline].sort((a, b) => a.timestamp - b.timestamp || (a.clock ?? 0) - (b.clock ?? 0));
  const stamps: [string, string, number | null][] = [
    ['task-sent', 'SENT', task.sent],
    ['task-received', 'RECEIVED', task.received],
    ['task-started', 'STARTED', task.started],
    ['task-retried', 'RETRY', task.retried],
    ['task-succeeded', 'SUCCESS', task.succeeded],
    ['task-failed', 'FAILURE', task.failed],
    ['task-revoked', 'REVOKED', task.revoked],
    ['task-rejected', 'REJECTED', task.rejected],
  ];
  return stamps
    .flatMap(([type, state, at]) => (at === null ? [] : [{ type, state, timestamp: at, worker: type === 'task-sent' ? null : task.worker, clock: null, detail: null }]))
    .sort((a, b) => a.timestamp - b.timestamp);
}

export interface Totals {
  wait: number | null;
  run: number | null;
  total: number | null;
  attempts: number;
}

/** What the spans add up to: waiting of every kind, running, and from first to last sign. */
export function totals(list: readonly Span[]): Totals {
  const first = list[0];
  const last = list.at(-1);
  if (!first || !last) return { wait: null, run: null, total: null, attempts: 0 };
  const sum = (want: (span: Span) => boolean): number => list.filter(want).reduce((n, span) => n + span.to - span.from, 0);
  return { wait: sum((s) => s.kind !== 'running'), run: sum((s) => s.kind === 'running'), total: last.to - first.from, attempts: last.attempt };
}

function kindAfter(entry: TimelineEntry, eta: number | null): SpanKind | null {
  switch (entry.state) {
    case 'PENDING':
    case 'SENT':
      return 'queued';
    case 'RECEIVED':
      return eta !== null && eta > entry.timestamp + 0.5 ? 'eta' : 'held';
    case 'STARTED':
      return 'running';
    case 'RETRY':
      return 'backoff';
    default:
      return FINAL.has(entry.state ?? '') ? null : entry.state ? 'running' : 'other';
  }
}
