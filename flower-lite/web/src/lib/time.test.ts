import { describe, expect, it } from 'vitest';
import { ago, clockTime, count, duration, fullTime, isoTime, parseInstant, percent, rate } from './time';

const NOON = Date.UTC(2026, 10, 24, 12, 0, 0) / 1000;

describe('duration', () => {
  it.each([
    [0, '0 s'], [0.00000042, '0.42 µs'], [0.00043, '430 µs'], [0.0009996, '1 ms'], [0.0021, '2.1 ms'], [0.0123456, '12.3 ms'],
    [0.9994, '999 ms'], [0.9996, '1 s'], [1.5, '1.5 s'], [59.94, '59.9 s'], [59.96, '1 m'], [75, '1 m 15 s'], [3600, '1 h'],
    [3725, '1 h 2 m'], [86400 * 3 + 7200, '3 d 2 h'], [-0.5, '−500 ms'],
  ])('%s s', (seconds, text) => expect(duration(seconds)).toBe(text));

  it('has a dash for the unknown', () => {
    for (const value of [null, undefined, NaN, Infinity]) expect(duration(value)).toBe('–');
  });
});

describe('ago', () => {
  it.each([
    [0, 'now'], [1.4, 'now'], [2, '2 s ago'], [59.9, '59 s ago'], [60, '1 m ago'], [3600 * 2 + 300, '2 h 5 m ago'], [3600 * 11 + 300, '11 h ago'],
    [86400 * 2.5, '2 d ago'], [-30, 'in 30 s'],
  ])('%s s', (age, text) => expect(ago(NOON - age, NOON)).toBe(text));
});

describe('instants', () => {
  it('drop the date when it is today', () => {
    expect(clockTime(NOON - 3.5, NOON, 'utc')).toBe('11:59:56.500');
    expect(clockTime(NOON - 3.5, NOON, 'utc', false)).toBe('11:59:56');
    expect(clockTime(NOON - 86400, NOON, 'utc')).toBe('2026-11-23 12:00:00.000');
  });

  it('are full in tooltips', () => {
    expect(fullTime(NOON + 0.0421, 'utc')).toBe('2026-11-24 12:00:00.042 UTC');
    expect(fullTime(1e300, 'utc')).toBe('unknown');
  });

  it('survive what no date can hold', () => {
    expect(isoTime(1e300)).toBe('');
    expect(clockTime(null, NOON, 'local')).toBe('–');
  });

  it('read both spellings of an eta', () => {
    expect(parseInstant('2026-11-24T12:00:00+00:00')).toBe(NOON);
    expect(parseInstant('2026-11-24T12:00:00')).toBe(NOON);
    expect(parseInstant(5)).toBe(5);
    expect(parseInstant('soon')).toBeNull();
    expect(parseInstant(null)).toBeNull();
  });
});

describe('numbers', () => {
  it('rates, shares and counts', () => {
    expect([0, 0.01, 0.25, 14.64, 99.96, 1204].map(rate)).toEqual(['0', '<0.1', '0.3', '14.6', '100', '1,204']);
    expect([0, 0.0004, 0.021, 0.1249, 1].map(percent)).toEqual(['0 %', '<0.1 %', '2.1 %', '12 %', '100 %']);
    expect([0, 99_999, 123_456, 1_234_567, 98_765_432].map(count)).toEqual(['0', '99,999', '123 k', '1.23 M', '98.8 M']);
  });
});
