import { expect, it } from 'vitest';
import { Slots } from './slots';

it('rows keep their slots, new ones take those of rows that left', () => {
  const slots = new Slots();
  expect(slots.assign(['c', 'b', 'a'])).toEqual([0, 1, 2]);
  expect(slots.assign(['d', 'c', 'b'])).toEqual([2, 0, 1]);
  expect(slots.assign(['z', 'y', 'x', 'w'])).toEqual([2, 0, 1, 3]);
  expect(slots.assign([])).toEqual([]);
  expect(slots.assign(['q', 'p'])).toEqual([4, 5]);
});

it('slots are distinct, whatever comes', () => {
  const slots = new Slots();
  for (let run = 0; run < 200; run++) {
    const ids = Array.from({ length: 30 }, (_, i) => `t${(run * 7 + i * (1 + (run % 3))) % 97}`);
    const unique = [...new Set(ids)];
    expect(new Set(slots.assign(unique)).size).toBe(unique.length);
  }
});
