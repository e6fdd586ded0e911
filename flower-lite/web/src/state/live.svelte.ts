// The one connection to the server's stream, shared by whatever is on screen. Pages say which topics they need and get
// deltas; after a gap that the stream cannot fill they are told to read their data again.

import { apiUrl, getJson } from '../api/client';
import type { Delta, Overview } from '../api/types';
import { mergeSeries } from '../lib/series';
import { announcer } from './announce.svelte';
import { clock } from './clock.svelte';

export type Connection = 'connecting' | 'live' | 'reconnecting' | 'asleep';

export interface Listener {
  topics: string[];
  onDelta(delta: Delta): void;
  /** Data may have been missed: read again. Also called once at the start. */
  onResync(): void;
}

const HELLO_PATIENCE_MS = 500;
const HIDDEN_MS = 60_000;
const POLL_MS = 5_000;
const RESYNC_GAP_MS = 1_000;
const MAX_BACKOFF_MS = 15_000;
const GAUGE_MS = 2_000;
const GAUGES = 90;
const MAX_STATES = 40;

class Live {
  connection = $state<Connection>('connecting');
  overview = $state.raw<Overview | null>(null);
  /** Every state that occurred since the page was opened, so that lists of states don't jump when one is empty for a moment. */
  states = $state.raw<readonly string[]>([]);
  /** Tasks running and waiting, one value every two seconds since the page was opened. */
  gauges = $state.raw<{ running: number[]; waiting: number[] }>({ running: [], waiting: [] });
  /** Why the overview could not be read, when it could not. */
  trouble = $state('');

  private listeners = new Set<Listener>();
  private source: EventSource | null = null;
  private topics = '';
  private version = 0;
  private failures = 0;
  private saidHello = false;
  private started = false;
  private reopenTimer: ReturnType<typeof setTimeout> | undefined;
  private hiddenTimer: ReturnType<typeof setTimeout> | undefined;
  private resyncTimer: ReturnType<typeof setTimeout> | undefined;
  private lastResync = 0;

  start(): void {
    if (this.started) return;
    this.started = true;
    this.schedule();
    document.addEventListener('visibilitychange', () => this.visibility());
    addEventListener('online', () => this.reopen());
    setInterval(() => {
      if (this.connection === 'reconnecting' && !document.hidden) this.resync();
    }, POLL_MS);
    setInterval(() => this.sample(), GAUGE_MS);
  }

  /** Registers a page part. Its data is first read when the stream is open, so that no change falls in between. */
  listen(listener: Listener): () => void {
    this.listeners.add(listener);
    const known = this.source !== null && this.saidHello && this.covers(listener.topics);
    if (known) listener.onResync();
    this.schedule();
    return () => {
      this.listeners.delete(listener);
      this.schedule();
    };
  }

  private covers(topics: string[]): boolean {
    const open = this.topics.split(',');
    return topics.every((topic) => open.includes(encodeURIComponent(topic)));
  }

  private wanted(): string {
    const topics = new Set(['overview']);
    for (const listener of this.listeners) for (const topic of listener.topics) topics.add(topic);
    return [...topics].map(encodeURIComponent).sort().join(',');
  }

  /** Reopens on the next turn, so that a page leaving and another coming make one change. */
  private schedule(): void {
    if (!this.started) return;
    queueMicrotask(() => {
      if (this.connection !== 'asleep' && this.wanted() !== this.topics) this.reopen();
    });
  }

  private reopen(): void {
    clearTimeout(this.reopenTimer);
    this.source?.close();
    this.topics = this.wanted();
    this.saidHello = false;
    const source = new EventSource(`${apiUrl('stream')}?topics=${this.topics}`);
    this.source = source;
    if (this.connection === 'asleep') this.connection = 'connecting';
    source.addEventListener('hello', (event) => this.hello(JSON.parse((event as MessageEvent<string>).data) as { version: number; server_time: number }));
    source.addEventListener('delta', (event) => this.delta(JSON.parse((event as MessageEvent<string>).data) as Delta));
    source.addEventListener('resync', () => this.resync());
    source.onerror = () => this.failed(source);
    // Behind a proxy that swallows streams the pages must still show their data.
    setTimeout(() => {
      if (this.source === source && !this.saidHello) this.resync();
    }, HELLO_PATIENCE_MS);
  }

  private hello(hello: { version: number; server_time: number }): void {
    const resumed = this.saidHello && hello.version >= this.version;
    this.saidHello = true;
    this.failures = 0;
    clock.sync(hello.server_time);
    if (this.connection === 'reconnecting') announcer.now('Live again');
    this.connection = 'live';
    // A browser that resumed by Last-Event-ID is sent what it missed; anybody else reads afresh.
    if (!resumed) this.resync();
    this.version = hello.version;
  }

  private delta(delta: Delta): void {
    this.version = delta.version;
    if (delta.overview) this.mergeOverview(delta.overview);
    for (const listener of this.listeners) listener.onDelta(delta);
  }

  private failed(source: EventSource): void {
    if (this.source !== source) return;
    if (this.connection === 'live') announcer.now('Connection lost, reconnecting');
    this.connection = 'reconnecting';
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again and resumes by itself
    this.failures++;
    const wait = Math.min(MAX_BACKOFF_MS, 1000 * 2 ** (this.failures - 1)) * (0.75 + Math.random() / 2);
    clearTimeout(this.reopenTimer);
    this.reopenTimer = setTimeout(() => this.reopen(), wait);
  }

  /** Lets everybody read again, at most once a second. */
  private resync(): void {
    clearTimeout(this.resyncTimer);
    const wait = this.lastResync + RESYNC_GAP_MS - Date.now();
    const fresh = [...this.listeners].some((listener) => !this.seen.has(listener));
    if (wait > 0 && !fresh) {
      this.resyncTimer = setTimeout(() => this.resync(), wait);
      return;
    }
    this.lastResync = Date.now();
    void this.readOverview();
    for (const listener of this.listeners) {
      this.seen.add(listener);
      listener.onResync();
    }
  }

  private seen = new WeakSet<Listener>();

  private async readOverview(): Promise<void> {
    try {
      this.mergeOverview(await getJson<Overview>('overview'));
      this.trouble = '';
    } catch (error) {
      this.trouble = error instanceof Error ? error.message : String(error);
    }
  }

  private mergeOverview(part: Partial<Overview>): void {
    const old = this.overview;
    if (part.version !== undefined && old && part.version < old.version && part.started_at === old.started_at) return;
    if (part.server_time !== undefined) clock.sync(part.server_time);
    const restarted = part.started_at !== undefined && old !== null && part.started_at !== old.started_at;
    const series = part.series ? mergeSeries(restarted ? [] : (old?.series ?? []), part.series) : (old?.series ?? []);
    this.overview = { ...(old ?? EMPTY_OVERVIEW), ...part, series };
    const fresh = Object.entries(part.tasks?.by_state ?? {}).flatMap(([state, n]) => (n > 0 && !this.states.includes(state) ? [state] : []));
    if (fresh.length && this.states.length < MAX_STATES) this.states = [...this.states, ...fresh];
  }

  private sample(): void {
    const tasks = this.overview?.tasks.by_state;
    if (!tasks || this.connection !== 'live') return;
    const { running, waiting } = gauges(tasks);
    this.gauges = { running: [...this.gauges.running, running].slice(-GAUGES), waiting: [...this.gauges.waiting, waiting].slice(-GAUGES) };
  }

  private visibility(): void {
    clearTimeout(this.hiddenTimer);
    if (document.hidden) {
      this.hiddenTimer = setTimeout(() => {
        this.source?.close();
        this.source = null;
        this.topics = '';
        this.connection = 'asleep';
      }, HIDDEN_MS);
    } else if (this.connection === 'asleep') {
      this.reopen();
    }
  }
}

/** What runs and what waits to run, from the counts by state. */
export function gauges(byState: Record<string, number>): { running: number; waiting: number } {
  return { running: byState.STARTED ?? 0, waiting: (byState.RECEIVED ?? 0) + (byState.SENT ?? 0) + (byState.PENDING ?? 0) };
}

const EMPTY_OVERVIEW: Overview = {
  version: 0,
  server_time: 0,
  connected: true,
  started_at: 0,
  events: { received: 0, dropped: 0, undecodable: 0, lag: null },
  tasks: { total: 0, by_state: {}, evicted: 0 },
  workers: { online: 0, offline: 0 },
  rates: { per_second: 0, failures_per_second: 0 },
  series: [],
};

export const live = new Live();
