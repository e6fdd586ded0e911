// All workers, kept current while a page that shows them is open, with a short memory of how much each one did.

import { getJson } from '../api/client';
import type { Delta, Worker, WorkerPage } from '../api/types';
import { clock } from './clock.svelte';
import { live } from './live.svelte';

const SAMPLE_SECONDS = 2;
const SAMPLES = 60;

interface Sample {
  t: number;
  done: number;
}

class Workers {
  items = $state.raw<Worker[]>([]);
  loaded = $state(false);
  trouble = $state('');
  /** Tasks finished per second by worker, one value per sample since this page was opened. */
  pace = $state.raw<ReadonlyMap<string, number[]>>(new Map());

  private samples = new Map<string, Sample[]>();
  private users = 0;
  private leave: (() => void) | undefined;
  private version = 0;

  /** Starts following; call the returned function when leaving. */
  use(): () => void {
    if (this.users++ === 0) {
      this.leave = live.listen({ topics: ['workers'], onDelta: (delta) => this.delta(delta), onResync: () => void this.read() });
    }
    return () => {
      if (--this.users === 0) this.leave?.();
    };
  }

  private async read(): Promise<void> {
    try {
      const page = await getJson<WorkerPage>('workers');
      this.version = page.version;
      this.put(page.items);
      this.loaded = true;
      this.trouble = '';
    } catch (error) {
      this.trouble = error instanceof Error ? error.message : String(error);
    }
  }

  private delta(delta: Delta): void {
    if (!delta.workers?.length || delta.version <= this.version) return;
    const changed = new Map(delta.workers.map((worker) => [worker.name, worker]));
    const rest = this.items.map((worker) => {
      const update = changed.get(worker.name);
      changed.delete(worker.name);
      return update ?? worker;
    });
    this.put([...rest, ...changed.values()]);
  }

  private put(items: Worker[]): void {
    this.items = [...items].sort((a, b) => Number(b.online) - Number(a.online) || (a.name < b.name ? -1 : 1));
    const now = clock.precise();
    let sampled = false;
    for (const worker of items) {
      const done = worker.counts.succeeded + worker.counts.failed;
      const list = this.samples.get(worker.name) ?? [];
      const last = list.at(-1);
      if (last && now - last.t < SAMPLE_SECONDS) continue;
      this.samples.set(worker.name, [...list, { t: now, done }].slice(-SAMPLES));
      sampled = true;
    }
    if (sampled) this.pace = new Map([...this.samples].map(([name, list]) => [name, rates(list)]));
  }
}

function rates(list: Sample[]): number[] {
  return list.slice(1).map((sample, i) => {
    const before = list[i] as Sample;
    return Math.max(0, sample.done - before.done) / Math.max(0.001, sample.t - before.t);
  });
}

export const workers = new Workers();
