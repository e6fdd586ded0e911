// What a worker answered to `inspect`, made into lines for a page. Workers of any version and kind answer, so nothing is
// taken to be there, and nothing to be of the right type.

export type Dict = Record<string, unknown>;

/** A task that a worker holds. */
export interface Held {
  id: string;
  name: string;
  args: string;
  kwargs: string;
  /** Unix seconds. */
  started: number | null;
  eta: number | null;
  queue: string;
  pid: string;
  redelivered: boolean;
}

export interface ReadQueue {
  name: string;
  exchange: string;
  routingKey: string;
  durable: boolean;
  maxPriority: string;
}

export interface Registered {
  name: string;
  /** What `inspect` says beside the name, such as `rate_limit`. */
  extras: Record<string, string>;
}

export function dict(value: unknown): Dict {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Dict) : {};
}

export function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

export function text(value: unknown): string {
  if (value === null || value === undefined) return '';
  if (typeof value === 'string') return value;
  return JSON.stringify(value) ?? '';
}

export function number(value: unknown): number | null {
  const n = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
  return typeof n === 'number' && Number.isFinite(n) ? n : null;
}

function held(value: unknown): Held {
  const request = dict(value);
  const delivery = dict(request.delivery_info);
  return {
    id: text(request.id),
    name: text(request.name) || text(request.type),
    args: text(request.args),
    kwargs: text(request.kwargs),
    started: number(request.time_start),
    eta: null,
    queue: text(delivery.routing_key),
    pid: text(request.worker_pid),
    redelivered: delivery.redelivered === true,
  };
}

export function tasks(answer: unknown): Held[] {
  return list(answer).map(held);
}

export function scheduled(answer: unknown): Held[] {
  return list(answer).map((value) => {
    const entry = dict(value);
    const at = typeof entry.eta === 'string' ? Date.parse(entry.eta) / 1000 : number(entry.eta);
    return { ...held(entry.request), eta: at === null || Number.isNaN(at) ? null : at };
  });
}

export function ids(answer: unknown): string[] {
  return list(answer).map(text).filter(Boolean);
}

export function queues(answer: unknown): ReadQueue[] {
  return list(answer).map((value) => {
    const queue = dict(value);
    const exchange = dict(queue.exchange);
    return {
      name: text(queue.name),
      exchange: [text(exchange.name) || '(default)', text(exchange.type)].filter(Boolean).join(', '),
      routingKey: text(queue.routing_key),
      durable: queue.durable === true,
      maxPriority: text(queue.max_priority),
    };
  });
}

/** `demo.add [rate_limit=10/m routing_key=x]` in its parts. */
export function registered(answer: unknown): Registered[] {
  return list(answer)
    .map(text)
    .map((line) => {
      const [, name, more] = /^(\S+) \[(.*)\]$/s.exec(line) ?? [];
      const extras = Object.fromEntries([...(more ?? '').matchAll(/(\w+)=(\S+)/g)].map((m) => [m[1] ?? '', m[2] ?? '']));
      return { name: name ?? line, extras };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

export interface Pool {
  kind: string;
  size: number | null;
  processes: string[];
  maxTasks: string;
  timeouts: [soft: number | null, hard: number | null];
  prefetch: number | null;
  autoscaler: { min: number | null; max: number | null } | null;
  total: Record<string, number>;
  uptime: number | null;
}

export function pool(stats: unknown): Pool {
  const all = dict(stats);
  const of = dict(all.pool);
  const [soft, hard] = list(of.timeouts);
  const scaler = dict(all.autoscaler);
  const kind = (text(of.implementation) || 'unknown').replace(/^.*\.(\w+):TaskPool$/, '$1');
  const processes = list(of.processes).map(text);
  return {
    kind,
    // Celery's prefork pool goes on telling the size that it started with after it has grown.
    size: kind === 'prefork' && processes.length ? processes.length : number(of['max-concurrency']),
    processes,
    maxTasks: text(of['max-tasks-per-child']) || 'N/A',
    timeouts: [number(soft) || null, number(hard) || null],
    prefetch: number(all.prefetch_count),
    autoscaler: Object.keys(scaler).length ? { min: number(scaler.min), max: number(scaler.max) } : null,
    total: Object.fromEntries(Object.entries(dict(all.total)).flatMap(([name, n]) => (number(n) === null ? [] : [[name, number(n) as number]]))),
    uptime: number(all.uptime),
  };
}

/** Any answer as lines of key and value, one for each leaf, keys joined by dots. */
export function leaves(value: unknown, prefix = '', depth = 0): [string, string][] {
  const entries = Object.entries(dict(value));
  if (!entries.length || depth > 5) return prefix ? [[prefix, text(value)]] : [];
  return entries.flatMap(([key, inner]) => leaves(inner, prefix ? `${prefix}.${key}` : key, depth + 1));
}
