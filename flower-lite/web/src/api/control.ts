// The shapes of what operators do and of what is told about it: who one is, actions, bulk jobs, queues, dead letters,
// failures, aggregates, schedules, the audit log, alerts. As in `types.ts`: wire types, `null` means "not known".

export type Role = 'viewer' | 'operator' | 'admin';

export interface Me {
  authenticated: boolean;
  name: string | null;
  role: Role | null;
  via: string;
  expires_at: number | null;
  login: { password: boolean; oidc: string | null };
  control: 'on' | 'read_only' | 'needs_authentication';
  /** Why nothing can be changed here, when nothing can. */
  refusal: string | null;
  /** What this user may do now. */
  can: string[];
}

export interface Outcome {
  target: string;
  ok: boolean;
  said: string | null;
  task_id: string | null;
  count: number | null;
}

export interface ActionResult {
  action: string;
  ok: boolean;
  message: string;
  results: Outcome[];
}

export interface DryRun {
  total: number;
  ids: string[];
  more: boolean;
}

export interface Job {
  id: string;
  action: string;
  state: 'running' | 'done' | 'cancelled';
  user: string | null;
  started_at: number;
  ended_at: number | null;
  total: number;
  done: number;
  succeeded: number;
  failed: number;
  errors: { target: string; said: string }[];
  created: string[];
}

export interface KnownArguments {
  id: string;
  name: string | null;
  /** JSON text, so that whole numbers of any size survive. */
  args: string | null;
  kwargs: string | null;
  source: 'result_backend' | 'event' | null;
  problem: string | null;
}

export interface Pause {
  by: string | null;
  at: number;
  reason: string | null;
  workers: string[];
}

export interface Queue {
  name: string;
  ready: number | null;
  consumers: number | null;
  workers: number;
  processes: number;
  rate: number;
  time_to_drain: number | null;
  oldest: number | null;
  unacked?: number | null;
  in_rate?: number | null;
  out_rate?: number | null;
  paused?: Pause | null;
}

export interface DeadQueue {
  queue: string;
  ready: number | null;
  from: string[];
}

export interface DeadLetter {
  id: string;
  name: string | null;
  args: string | null;
  kwargs: string | null;
  reason: string | null;
  from: string | null;
  died_at: number | null;
  count: number | null;
  bytes: number;
}

export interface DeadLetters {
  queue: string;
  ready: number | null;
  items: DeadLetter[];
  complete: boolean;
}

export interface FailureGroup {
  key: string;
  name: string | null;
  exception: string;
  message: string | null;
  count: number;
  first: number;
  last: number;
  workers: string[];
  samples: string[];
  series: number[];
}

export interface Failures {
  version: number;
  items: FailureGroup[];
  total: number;
  groups: number;
  more: boolean;
}

export interface Times {
  count: number;
  p50: number | null;
  p95: number | null;
  p99: number | null;
  max: number | null;
}

export interface Aggregate {
  key: string | null;
  ended: number;
  succeeded: number;
  failed: number;
  retried: number;
  per_second: number;
  failure_rate: number | null;
  runtime: Times;
  wait: Times;
}

export interface AggregatePoint {
  t: number;
  ended: number;
  failed: number;
  retried: number;
  runtime_p50: number | null;
  runtime_p95: number | null;
  wait_p50: number | null;
  wait_p95: number | null;
}

export interface Aggregates {
  window: number;
  from: number;
  to: number;
  step: number;
  total: Aggregate;
  items: Aggregate[];
  series: AggregatePoint[];
}

export type Timing = number | string | Record<string, unknown> | null;

export interface ScheduleEntry {
  name: string;
  task: string | null;
  schedule: Timing;
  args: unknown;
  kwargs: unknown;
  options: unknown;
  enabled: boolean;
  edited: boolean;
  last_run: number | null;
  claimed: boolean;
  problem: string | null;
}

export interface Schedule {
  name: string;
  error: string | null;
  entries: ScheduleEntry[];
}

export interface AuditEntry {
  id: number | string;
  at: number;
  user: string | null;
  role: string | null;
  via: string | null;
  address: string | null;
  action: string;
  target: string | null;
  params: Record<string, unknown> | null;
  outcome: string;
  detail: string | null;
}

export interface AuditPage {
  items: AuditEntry[];
  next_cursor: string | null;
}

export interface AlertInstance {
  target: string;
  state: string;
  since: number;
  value: number | null;
  summary: string;
}

export interface AlertRule {
  name: string;
  kind: string;
  threshold: number | null;
  for: number | null;
  state: 'inactive' | 'pending' | 'firing';
  instances: AlertInstance[];
}

export interface Alerts {
  rules: AlertRule[];
  resolved: { rule: string; target: string; fired_at: number; resolved_at: number; summary: string }[];
  webhook: { configured: boolean; queued: number; delivered: number; failed: number; dropped: number; last_error: string | null };
}

/** What a worker answers when asked; each part as Celery's `inspect` gives it. */
export interface Answers {
  name: string;
  source: string;
  answered_at: number | null;
  answers: Record<string, unknown>;
}
