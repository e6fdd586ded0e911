// Builders for tests: a task with every field, of which a test names only what it is about.

import type { Task, TaskDetail, TimelineEntry } from '../api/types';

export function task(part: Partial<Task> = {}): Task {
  return {
    id: 't', name: 'demo.add', state: 'SUCCESS', worker: 'celery@a', queue: 'celery', args: null, kwargs: null, result: null, exception: null, runtime: null,
    retries: 0, eta: null, expires: null, root_id: null, parent_id: null, sent: null, received: null, started: null, succeeded: null, failed: null, retried: null,
    revoked: null, rejected: null, timestamp: null, clock: null, ready: false, ...part,
  };
}

export function detail(part: Partial<TaskDetail> = {}): TaskDetail {
  return { ...task(part), traceback: null, timeline: [], children: [], parent: null, root: null, ...part };
}

export function entry(type: string, state: string | null, timestamp: number): TimelineEntry {
  return { type, state, timestamp, worker: null, clock: null, detail: null };
}
