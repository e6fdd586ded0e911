import { describe, expect, it } from 'vitest';
import { buckets, mergeSeries, sparkPath, windowSums } from './series';
import { compareStates, look, stateCounts } from './states';

const p = (t: number, received = 0, succeeded = 0, failed = 0, retried = 0) => ({ t, received, succeeded, failed, retried });

describe('mergeSeries', () => {
  it('lays new seconds over old ones and forgets what is too old', () => {
    expect(mergeSeries([p(1), p(2, 1), p(3)], [p(2, 5), p(4)]).map((x) => [x.t, x.received])).toEqual([[1, 0], [2, 5], [4, 0]]);
    expect(mergeSeries([p(1)], [p(400)]).map((x) => x.t)).toEqual([400]);
    expect(mergeSeries([p(1)], []).length).toBe(1);
  });
});

describe('buckets', () => {
  it('fills gaps, aligns, and gives rates per second', () => {
    const b = buckets([p(100, 2), p(101, 4), p(104, 0, 0, 6)], 106, 6, 2);
    expect(b.t).toEqual([100, 102, 104]);
    expect(b.received).toEqual([3, 0, 0]);
    expect(b.failed).toEqual([0, 0, 3]);
  });
  it('stops before the bucket that is filling', () => expect(buckets([], 105, 4, 2).t).toEqual([100, 102]));
});

it('windowSums', () => expect(windowSums([p(1, 9), p(5, 1, 2, 3, 4), p(9, 9)], 9, 5)).toEqual({ received: 1, succeeded: 2, failed: 3, retried: 4 }));

it('sparkPath stays inside its box', () => {
  expect(sparkPath([0, 1], 10, 10).line).toBe('M0,9L10,1');
  expect(sparkPath([1], 10, 10).line).toBe('');
});

describe('states', () => {
  it('known ones come first, in life-cycle order', () => {
    expect(['PROGRESS', 'FAILURE', 'RECEIVED', 'ABC'].sort(compareStates)).toEqual(['RECEIVED', 'FAILURE', 'ABC', 'PROGRESS']);
    expect(stateCounts({ SUCCESS: 3, PROGRESS: 1, PENDING: 0 }, ['IGNORED']).map((s) => s.state)).toEqual(['RECEIVED', 'STARTED', 'RETRY', 'SUCCESS', 'FAILURE', 'REVOKED', 'IGNORED', 'PROGRESS']);
  });
  it('unknown ones keep their name, even an unkind one', () => {
    expect(look('MY_STATE')).toEqual({ word: 'My state', icon: 'diamond', tone: 'custom' });
    expect(look('__proto__').tone).toBe('custom');
    expect(look('constructor').tone).toBe('custom');
  });
});
