// Something that the API has and the stream does not carry: read when it comes on screen, again at most every few
// seconds while the page is looked at, and at once after a gap in the stream or a change that was made here.

import { untrack } from 'svelte';
import { ApiError, getJson } from '../api/client';
import { live } from './live.svelte';

export class Resource<T> {
  value = $state.raw<T | null>(null);
  error = $state.raw<ApiError | null>(null);

  private path = '';
  private request: AbortController | null = null;
  private readAt = 0;

  /** Keeps it fresh while in use; meant for `$effect`, so that another path starts over. */
  follow(path: string, everyMs: number): () => void {
    if (path !== this.path) this.readAt = 0;
    this.path = path;
    const tick = setInterval(() => {
      if (!document.hidden && Date.now() - this.readAt >= everyMs) void this.read();
    }, Math.min(everyMs, 1000));
    const stop = untrack(() => live.listen({ topics: [], onDelta: () => undefined, onResync: () => void this.read() }));
    untrack(() => void this.read());
    return () => {
      clearInterval(tick);
      this.request?.abort();
      stop();
    };
  }

  async read(): Promise<void> {
    // One at a time: what is under way for the same path is as fresh as a new one would be.
    if (Date.now() - this.readAt < 150) return;
    this.readAt = Date.now();
    this.request?.abort();
    const request = new AbortController();
    this.request = request;
    try {
      this.value = await getJson<T>(this.path, request.signal);
      this.error = null;
    } catch (error) {
      if (!request.signal.aborted) this.error = ApiError.of(error, 'It could not be read');
    } finally {
      if (this.request === request) this.readAt = Date.now();
    }
  }

  /** Reads after a change, whose effect may take a moment to show. */
  soon(): void {
    this.readAt = 0;
    void this.read();
    setTimeout(() => ((this.readAt = 0), void this.read()), 1200);
  }
}
