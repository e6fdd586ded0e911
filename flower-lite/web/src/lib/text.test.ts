import { describe, expect, it } from 'vitest';
import { clip, oneLine, plural, shortId, splitException, splitName, visible } from './text';

describe('visible', () => {
  it('shows what would hide or reorder', () => {
    expect(visible('a\u202eb\u0000c\u200bd')).toBe('a⟨202E⟩b⟨0000⟩c⟨200B⟩d');
    expect(visible('lone \ud800 half, good 😀')).toBe('lone ⟨D800⟩ half, good 😀');
    expect(visible('\u{e0041}')).toBe('⟨E0041⟩');
  });
  it('keeps markup as text, tabs and newlines', () => expect(visible('<b>\t\n</b>')).toBe('<b>\t\n</b>'));
});

describe('shortening', () => {
  it('never splits a pair', () => {
    expect(clip('ab😀', 3)).toBe('ab…');
    expect(clip('abc', 3)).toBe('abc');
  });
  it('makes one line', () => expect(oneLine('a\n  b\r\nc')).toBe('a ↵ b ↵ c'));
  it('knows UUIDs', () => {
    expect(shortId('8372ca5e-569a-4583-aa1e-ee2e8211b0eb')).toBe('8372ca5e');
    expect(shortId('nightly-report-2026-11')).toBe('nightly-repo…');
  });
  it('splits names', () => {
    expect(splitName('demo.mail.send')).toEqual(['demo.mail.', 'send']);
    expect(splitName('add')).toEqual(['', 'add']);
    expect(splitName('odd.')).toEqual(['', 'odd.']);
  });
});

describe('splitException', () => {
  it.each([
    ["ValueError('no')", 'ValueError', 'no'],
    [`KeyError("it's")`, 'KeyError', "it's"],
    ["ValueError('a\\nb')", 'ValueError', 'a\nb'],
    ["Oops('a', 2)", 'Oops', "'a', 2"],
    ["Two('a', 'b')", 'Two', "'a', 'b'"],
    ['requests.exceptions.HTTPError: 404', 'requests.exceptions.HTTPError', '404'],
    ['Empty()', 'Empty', ''],
    ['TimeLimitExceeded', 'TimeLimitExceeded', ''],
    ['anything at all', '', 'anything at all'],
  ])('%s', (text, type, message) => expect(splitException(text)).toEqual({ type, message }));
});

it('plural', () => {
  expect(plural(1, 'task')).toBe('1 task');
  expect(plural(1200, 'task')).toBe('1,200 tasks');
});
