import { describe, expect, it } from 'vitest';
import { detail, entry } from './fixtures';
import { ordered, spans, totals } from './timeline';

const words = (list: { kind: string; from: number; to: number; open: boolean; attempt: number }[]) =>
  list.map((s) => `${s.attempt}:${s.kind} ${s.from}-${s.to}${s.open ? '+' : ''}`);

describe('spans', () => {
  it('of a finished task', () => {
    const t = detail({ ready: true, timeline: [entry('task-sent', 'SENT', 1), entry('task-received', 'RECEIVED', 3), entry('task-started', 'STARTED', 4), entry('task-succeeded', 'SUCCESS', 9)] });
    expect(words(spans(t, 100))).toEqual(['1:queued 1-3', '1:held 3-4', '1:running 4-9']);
    expect(totals(spans(t, 100))).toEqual({ wait: 3, run: 5, total: 8, attempts: 1 });
  });

  it('of a task that runs now', () => {
    const t = detail({ state: 'STARTED', timeline: [entry('task-received', 'RECEIVED', 3), entry('task-started', 'STARTED', 4)] });
    expect(words(spans(t, 10))).toEqual(['1:held 3-4', '1:running 4-10+']);
  });

  it('count the tries', () => {
    const t = detail({
      ready: true,
      timeline: [entry('task-received', 'RECEIVED', 1), entry('task-started', 'STARTED', 2), entry('task-retried', 'RETRY', 3), entry('task-received', 'RECEIVED', 7), entry('task-started', 'STARTED', 8), entry('task-failed', 'FAILURE', 9)],
    });
    expect(words(spans(t, 10))).toEqual(['1:held 1-2', '1:running 2-3', '1:backoff 3-7', '2:held 7-8', '2:running 8-9']);
  });

  it('know an ETA and never run backwards', () => {
    const t = detail({ eta: '1970-01-01T00:01:00+00:00', timeline: [entry('task-received', 'RECEIVED', 10), entry('task-started', 'STARTED', 60)] });
    expect(words(spans(t, 50))).toEqual(['1:eta 10-60', '1:running 60-60+']);
  });

  it('are empty for a task of which nothing is known', () => {
    expect(spans(detail(), 5)).toEqual([]);
    expect(totals([])).toEqual({ wait: null, run: null, total: null, attempts: 0 });
  });
});

it('a missing timeline is made from the stamps', () => {
  expect(ordered(detail({ received: 1, started: 2, failed: 3 })).map((e) => e.type)).toEqual(['task-received', 'task-started', 'task-failed']);
});
