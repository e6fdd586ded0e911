// The per-second counts of the last minutes as charts need them: gap-free, bucketed, stacked.

import type { SeriesPoint } from '../api/types';

export const SERIES_SECONDS = 300;

/** Old points with newer ones laid over them by second; at most the last `SERIES_SECONDS` are kept. */
export function mergeSeries(old: readonly SeriesPoint[], fresh: readonly SeriesPoint[]): SeriesPoint[] {
  if (!fresh.length) return [...old];
  const first = fresh[0] as SeriesPoint;
  const byTime = new Map(old.filter((p) => p.t < first.t).map((p) => [Math.floor(p.t), p]));
  for (const point of fresh) byTime.set(Math.floor(point.t), point);
  const sorted = [...byTime.values()].sort((a, b) => a.t - b.t);
  const end = sorted.at(-1)?.t ?? 0;
  return sorted.filter((p) => p.t > end - SERIES_SECONDS);
}

export interface Buckets {
  t: number[];
  received: number[];
  succeeded: number[];
  failed: number[];
  retried: number[];
}

/**
 * Rates per second in buckets of `step` seconds, aligned to multiples of it, without gaps, up to `end` (exclusive).
 * The last bucket is left out while it is still filling.
 */
export function buckets(series: readonly SeriesPoint[], end: number, seconds: number, step: number): Buckets {
  const stop = Math.floor(end / step) * step;
  const start = stop - Math.floor(seconds / step) * step;
  const n = Math.max(0, (stop - start) / step);
  const empty = (): number[] => new Array<number>(n).fill(0);
  const out: Buckets = { t: Array.from({ length: n }, (_, i) => start + i * step), received: empty(), succeeded: empty(), failed: empty(), retried: empty() };
  for (const point of series) {
    const i = Math.floor((point.t - start) / step);
    if (i < 0 || i >= n) continue;
    for (const key of ['received', 'succeeded', 'failed', 'retried'] as const) out[key][i] = (out[key][i] ?? 0) + point[key] / step;
  }
  return out;
}

/** Sums over the last `seconds` before `end`. */
export function windowSums(series: readonly SeriesPoint[], end: number, seconds: number): Omit<SeriesPoint, 't'> {
  const sums = { received: 0, succeeded: 0, failed: 0, retried: 0 };
  for (const point of series) {
    if (point.t < end - seconds || point.t >= end) continue;
    for (const key of ['received', 'succeeded', 'failed', 'retried'] as const) sums[key] += point[key];
  }
  return sums;
}

/** The path of a sparkline in a box of `width` by `height`; a flat line when all values are equal to zero. */
export function sparkPath(values: readonly number[], width: number, height: number, max?: number): { line: string; area: string } {
  if (values.length < 2) return { line: '', area: '' };
  const top = Math.max(max ?? 0, ...values, 1e-9);
  const step = width / (values.length - 1);
  const points = values.map((v, i) => `${round(i * step)},${round(height - 1 - (Math.max(0, v) / top) * (height - 2))}`);
  return { line: `M${points.join('L')}`, area: `M0,${height}L${points.join('L')}L${width},${height}Z` };
}

function round(n: number): string {
  return String(Math.round(n * 10) / 10);
}
