// The list behind the tasks page: pages of rows from the API, kept current by the stream. It follows live while the
// reader is at its top and not busy with a row; otherwise new rows wait and are only counted. It outlives the page, so
// that going back finds the list as it was.

import { ApiError, getJson } from '../api/client';
import type { Delta, Facets, Task, TaskPage } from '../api/types';
import { mergeRows } from '../lib/merge';
import { EMPTY, isFiltered, matches, sameFilter, toApi, type Filter } from '../lib/query';
import { announcer } from './announce.svelte';
import { live } from './live.svelte';

const PAGE = 200;
const MAX_LIMIT = 1000;
const MAX_WAITING = 2000;
const TRIM_ABOVE = 4000;
const FACETS_EVERY_MS = 3000;

class TaskList {
  filter = $state.raw<Filter>(EMPTY);
  rows = $state.raw<Task[]>([]);
  /** How many match on the server, as far as known. */
  total = $state(0);
  facets = $state.raw<Facets | null>(null);
  loading = $state(false);
  loaded = $state(false);
  error = $state.raw<ApiError | null>(null);
  /** The user's switch: off freezes the list altogether. */
  following = $state(true);
  /** New rows that wait to be shown. */
  waiting = $state(0);

  /** Set by the page: the reader is down the list, or pointing at or focused on a row. */
  busy = false;

  private cursor: string | null = null;
  private version = 0;
  private held = new Map<string, Task>();
  private inFlight: AbortController | null = null;
  private facetsTimer: ReturnType<typeof setTimeout> | undefined;
  private during: Delta[] = [];

  get complete(): boolean {
    return this.cursor === null;
  }

  /** Starts following the stream; call the returned function when leaving the page. */
  use(): () => void {
    const stop = live.listen({ topics: ['tasks'], onDelta: (delta) => this.delta(delta), onResync: () => this.following && void this.read(this.depth()) });
    return () => {
      clearTimeout(this.facetsTimer);
      this.facetsTimer = undefined;
      stop();
    };
  }

  /** Shows another filter; the rows of the old one stay until the new ones are here. */
  show(filter: Filter): void {
    if (sameFilter(filter, this.filter) && (this.loaded || this.loading)) return;
    this.filter = filter;
    this.busy = false;
    void this.read(PAGE);
  }

  async read(limit = PAGE): Promise<void> {
    this.inFlight?.abort();
    const request = new AbortController();
    this.inFlight = request;
    this.loading = true;
    this.during = [];
    try {
      const page = await getJson<TaskPage>(`tasks?${toApi(this.filter, limit, null, true)}`, request.signal);
      this.rows = page.items;
      this.cursor = page.next_cursor;
      this.total = page.total;
      this.facets = page.facets ?? null;
      this.version = page.version;
      this.error = null;
      this.loaded = true;
      this.drop();
      for (const delta of this.during) this.delta(delta);
    } catch (error) {
      if (request.signal.aborted) return;
      this.error = error instanceof ApiError ? error : new ApiError(0, 'The list could not be read', String(error));
    } finally {
      if (this.inFlight === request) {
        this.inFlight = null;
        this.loading = false;
        this.during = [];
      }
    }
  }

  /** Loads the next page when the reader nears the end. */
  async more(): Promise<void> {
    if (this.inFlight || this.cursor === null) return;
    const request = new AbortController();
    this.inFlight = request;
    try {
      const page = await getJson<TaskPage>(`tasks?${toApi(this.filter, PAGE, this.cursor, false)}`, request.signal);
      const known = new Set(this.rows.map((row) => row.id));
      this.rows = this.rows.concat(page.items.filter((row) => !known.has(row.id)));
      this.cursor = page.next_cursor;
    } catch (error) {
      if (!request.signal.aborted) this.error = error instanceof ApiError ? error : new ApiError(0, 'The next rows could not be read', String(error));
    } finally {
      if (this.inFlight === request) this.inFlight = null;
    }
  }

  /** Shows what waits. */
  release(): void {
    if (this.held.size >= MAX_WAITING || !this.following) {
      void this.read();
    } else {
      this.rows = mergeRows(this.rows, [...this.held.values()], this.filter, this.complete).rows;
    }
    this.drop();
  }

  toggle(): void {
    this.following = !this.following;
    announcer.now(this.following ? 'Following live' : 'Paused. New tasks are counted, not shown.');
    if (this.following) void this.read();
  }

  private delta(delta: Delta): void {
    const changed = delta.tasks;
    if (!changed?.length || delta.version <= this.version) return;
    if (this.loading) {
      if (this.during.length < 100) this.during.push(delta);
      return;
    }
    if (!this.loaded) return;
    this.refreshFacets();
    if (!this.following) {
      this.hold(changed);
      return;
    }
    if (this.busy) {
      // Rows stay where they are under the reader's eyes; only their contents change.
      const updates = new Map(changed.map((task) => [task.id, task]));
      this.rows = this.rows.map((row) => updates.get(row.id) ?? row);
      this.hold(changed);
      return;
    }
    if (this.held.size) this.release();
    const merged = mergeRows(this.rows, changed, this.filter, this.complete);
    this.rows = merged.rows;
    if (this.rows.length > TRIM_ABOVE && this.rows.length > PAGE) void this.read();
    if (merged.added) announcer.later(`${merged.added} new ${merged.added === 1 ? 'task' : 'tasks'} at the top of the list`);
  }

  private hold(changed: Task[]): void {
    const before = this.held.size;
    const shown = new Set(this.rows.map((row) => row.id));
    for (const task of changed) {
      if (shown.has(task.id) || !matches(task, this.filter)) this.held.delete(task.id);
      else if (this.held.has(task.id) || this.held.size < MAX_WAITING) this.held.set(task.id, task);
    }
    this.waiting = this.held.size;
    if (this.held.size > before) announcer.later(`${this.waiting} new ${this.waiting === 1 ? 'task waits' : 'tasks wait'}; press full stop to show`);
  }

  private drop(): void {
    this.held.clear();
    this.waiting = 0;
  }

  private depth(): number {
    return Math.min(MAX_LIMIT, Math.max(PAGE, this.rows.length));
  }

  /** Counts and the total are the server's; while rows stream in they are asked for again every few seconds. */
  private refreshFacets(): void {
    if (this.facetsTimer !== undefined) return;
    this.facetsTimer = setTimeout(() => {
      this.facetsTimer = undefined;
      if (document.hidden || this.inFlight) return;
      const filter = this.filter;
      getJson<TaskPage>(`tasks?${toApi(filter, 1, null, true)}`)
        .then((page) => {
          if (!sameFilter(filter, this.filter)) return;
          this.total = page.total;
          this.facets = page.facets ?? null;
        })
        .catch(() => undefined); // the pill already tells that the server is away
    }, FACETS_EVERY_MS);
  }

  /** Counts by state under the current other filters: the overview's while there are none, else the server's facets. */
  byState(): Record<string, number> | null {
    if (!isFiltered({ ...this.filter, states: [] }) && live.overview) return live.overview.tasks.by_state;
    return this.facets?.state ?? null;
  }
}

export const taskList = new TaskList();
