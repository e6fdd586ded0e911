import { expect, it } from 'vitest';
import { timing } from './timing';

it.each([
  [30, 'every 30 s'],
  ['5m', 'every 5 m'],
  ['90', 'every 1 m 30 s'],
  ['30 4 * * *', 'every day at 04:30'],
  ['30 4 * * mon-fri', 'every weekday at 04:30'],
  ['0 9 * * 1', 'every Monday at 09:00'],
  ['0 9 * * sun', 'every Sunday at 09:00'],
  ['*/5 * * * *', 'every 5 minutes'],
  ['* * * * *', 'every minute'],
  ['15 * * * *', 'every hour at :15'],
  ['0 0 1 * *', '0 0 1 * *'],
  ['*/5 8-18 * * 1-5', '*/5 8-18 * * 1-5'],
  ['odd', 'odd'],
  [{ every: 60 }, 'every 1 m'],
  [{ minute: 0, hour: '3' }, 'every day at 03:00'],
  [{ event: 'sunset' }, '{"event":"sunset"}'],
  [null, 'not known'],
])('%j is %s', (schedule, words) => expect(timing(schedule)).toBe(words));
