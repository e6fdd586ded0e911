// The queues as the broker counts them, with a short memory of their depth since the page was opened.

import { untrack } from 'svelte';
import type { Queue } from '../api/control';
import { Resource } from './resource.svelte';
import { clock } from './clock.svelte';

const EVERY_MS = 2500;
const SAMPLES = 120;

class Queues {
  readonly list = new Resource<{ items: Queue[] }>();
  /** Depths by queue, oldest first, one for each time in `times`. */
  depths = $state.raw<ReadonlyMap<string, readonly (number | null)[]>>(new Map());
  times = $state.raw<readonly number[]>([]);

  readonly items = $derived([...(this.list.value?.items ?? [])].sort((a, b) => (b.ready ?? -1) - (a.ready ?? -1) || (a.name < b.name ? -1 : 1)));
  readonly waiting = $derived(this.list.value ? this.items.reduce((n, queue) => n + (queue.ready ?? 0), 0) : null);

  /** Follows them; meant for `$effect`. */
  use(): () => void {
    const stop = this.list.follow('queues', EVERY_MS);
    const sampler = $effect.root(() => {
      $effect(() => {
        const items = this.list.value?.items;
        if (items) untrack(() => this.sample(items));
      });
    });
    return () => {
      stop();
      sampler();
    };
  }

  private sample(items: readonly Queue[]): void {
    const n = this.times.length;
    this.times = [...this.times, clock.precise()].slice(-SAMPLES);
    const names = new Set([...this.depths.keys(), ...items.map((queue) => queue.name)]);
    const now = new Map(items.map((queue) => [queue.name, queue.ready]));
    this.depths = new Map([...names].map((name) => [name, [...(this.depths.get(name) ?? new Array<null>(n).fill(null)), now.get(name) ?? null].slice(-SAMPLES)]));
  }
}

export const queues = new Queues();
