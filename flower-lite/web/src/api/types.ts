// The shapes of flower-lite's JSON (`/api/v2`). Times are unix seconds; `null` means "not known".
// These are wire types: pages read them, nothing else is derived from them here.

/** One task as lists show it. `args`, `kwargs` and `result` are Python reprs, possibly shortened by the sender. */
export interface Task {
  id: string;
  name: string | null;
  state: string;
  worker: string | null;
  queue: string | null;
  args: string | null;
  kwargs: string | null;
  result: string | null;
  exception: string | null;
  runtime: number | null;
  retries: number | null;
  eta: string | number | null;
  expires: string | number | null;
  root_id: string | null;
  parent_id: string | null;
  sent: number | null;
  received: number | null;
  started: number | null;
  succeeded: number | null;
  failed: number | null;
  retried: number | null;
  revoked: number | null;
  rejected: number | null;
  timestamp: number | null;
  clock: number | null;
  ready: boolean;
  /** Its worker fell silent while it ran. */
  orphaned?: boolean;
  /** `result_backend` where no event told how it ended, but that did. */
  completed_by?: string | null;
}

/** One state change of a task, in the order in which the monitor applied them. */
export interface TimelineEntry {
  state: string | null;
  type: string;
  timestamp: number;
  worker: string | null;
  clock: number | null;
  /** `event`, or `result_backend`. */
  source?: string;
  detail: Record<string, unknown> | null;
}

export interface TaskDetail extends Task {
  traceback: string | null;
  timeline: TimelineEntry[];
  children: string[];
  parent: string | null;
  root: string | null;
  /** State changes that are no longer kept, the oldest ones. */
  timeline_dropped?: number;
  /** Who sent it, where the sender says so. */
  client?: string | null;
  exchange?: string | null;
  routing_key?: string | null;
  /** What the result backend has of it, where it was asked. */
  stored?: { source: string; status: string; result: string | null; traceback: string | null; date_done: number | null; stamps?: Record<string, unknown> | null } | null;
  stamps?: Record<string, unknown> | null;
}

/** A task of a workflow with what it called. */
export interface WorkflowNode extends Task {
  children: WorkflowNode[];
}

export interface Workflow {
  version: number;
  root: string;
  total: number;
  by_state: Record<string, number>;
  tree: WorkflowNode[];
}

export interface WorkerCounts {
  received: number;
  started: number;
  succeeded: number;
  failed: number;
  retried: number;
  revoked: number;
}

export interface Worker {
  name: string;
  online: boolean;
  last_heartbeat: number | null;
  freq: number | null;
  pid: number | null;
  sw_ident: string | null;
  sw_ver: string | null;
  sw_sys: string | null;
  loadavg: number[] | null;
  active: number | null;
  processed: number | null;
  clock: number | null;
  drift: number | null;
  counts: WorkerCounts;
  first_seen: number | null;
  running: string[];
}

export interface WorkerDetail extends Worker {
  tasks: Task[];
}

export interface SeriesPoint {
  t: number;
  received: number;
  succeeded: number;
  failed: number;
  retried: number;
}

export interface Overview {
  version: number;
  server_time: number;
  connected: boolean;
  started_at: number;
  events: {
    received: number;
    /** Said nothing that can be used. */
    dropped: number;
    undecodable: number;
    lag: number | null;
    /** Must have been lost on the way, at the least. */
    lost?: number;
    /** Seconds without the broker. */
    disconnected?: number;
    /** Seconds in which the monitor took nothing in. */
    stalled?: number;
  };
  tasks: { total: number; by_state: Record<string, number>; orphaned?: number; evicted: number };
  workers: { online: number; offline: number };
  rates: { per_second: number; failures_per_second: number };
  series: SeriesPoint[];
  /** Name and version of the serving program, where it tells. */
  program?: string;
}

/** Counts per value of a column, each made with all other filters applied. */
export interface Facets {
  state?: Record<string, number>;
  name?: Record<string, number>;
  worker?: Record<string, number>;
}

export interface TaskPage {
  version: number;
  total: number;
  items: Task[];
  next_cursor: string | null;
  facets?: Facets;
}

export interface WorkerPage {
  version: number;
  items: Worker[];
}

/** What the stream says changed since its previous message: rows, never whole lists. */
export interface Delta {
  version: number;
  overview?: Partial<Overview>;
  workers?: Worker[];
  tasks?: Task[];
  task?: TaskDetail;
}
