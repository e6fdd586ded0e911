import { describe, expect, it } from 'vitest';
import { flat, parseRepr, stringValue, toJson, type Node } from './repr';

const json = (text: string): unknown => {
  const out = toJson(parseRepr(text));
  return out === null ? null : JSON.parse(out);
};

describe('literals', () => {
  it.each([
    '(2, 3)', "('a',)", '[]', '{}', "{'a': 1, 'b': [1, 2, (3,)]}", '{1, 2}', 'None', '-1.5e-07', "b'\\x00'", "'it\\'s'", `"it's"`, '1j', 'nan',
    "datetime.datetime(2026, 11, 24, 2, 15, tzinfo=datetime.timezone.utc)", "UUID('8372ca5e-569a-4583-aa1e-ee2e8211b0eb')", '<Foo object at 0x7f>', '[...]', "{'k': ...}",
  ])('%s reads and prints back', (text) => expect(flat(parseRepr(text))).toBe(text));

  it('knows keywords of calls from keys of dicts', () => {
    const call = parseRepr('f(1, a=2)');
    expect(call.kind === 'group' && call.items.map((i) => i.sep)).toEqual(['', '=']);
  });
});

describe('as JSON', () => {
  it.each<[string, unknown]>([
    ["(1, 'a', None, True)", [1, 'a', null, true]],
    ["{'a': {'b': [1.5]}, 2: 'x'}", { a: { b: [1.5] }, 2: 'x' }],
    ['{}', {}], ['()', []], ['{1, 2}', [1, 2]],
    ["'line\\nbreak \\x41\\u00e9\\U0001f600\\''", "line\nbreak Aé😀'"],
  ])('%s', (text, value) => expect(json(text)).toEqual(value));

  it('keeps big integers exact', () => expect(toJson(parseRepr('123456789012345678901234567890'))).toBe('123456789012345678901234567890'));
  it.each(["b'x'", 'nan', '[...]', '<object>', "UUID('x')", "['cut", '[1, 2'])('refuses %s', (text) => expect(toJson(parseRepr(text))).toBeNull());
});

describe('broken input', () => {
  it.each(["['a', 'b", '[1, [2, {3: ', '(((', '}{', "{'a': }", ',,,', '[1 2 3]', '\\', "'", "b'", '<<', '[)', 'a b c', "{'x': 1]", '\u0000', '[,]', '=', ':', '1,2'])('%j is shown, not thrown', (text) => {
    expect(flat(parseRepr(text)).length).toBeGreaterThan(0);
  });

  it('marks what was cut', () => {
    const node = parseRepr("['a', ['b'");
    expect(node.kind === 'group' && node.cut).toBe(true);
    expect(flat(node)).toBe("['a', ['b'……");
  });

  it('is bounded in depth, nodes and time', () => {
    const started = Date.now();
    const deep = parseRepr('['.repeat(100_000));
    expect(depth(deep)).toBeLessThan(70);
    parseRepr('[' + '1,'.repeat(90_000));
    parseRepr("'" + '\\'.repeat(150_000));
    parseRepr('<'.repeat(150_000));
    parseRepr('[' + '<a,'.repeat(5_000));
    expect(Date.now() - started).toBeLessThan(3000);
  });

  it('reads anything made of its own characters', () => {
    const alphabet = ['[', ']', '(', ')', '{', '}', "'", '"', ',', ':', '=', '.', '<', '>', '\\', 'a', '1', ' ', 'None', '...', '\n', 'é', '😀'];
    let seed = 7;
    for (let run = 0; run < 3000; run++) {
      let text = '';
      for (let i = 0; i < 24; i++) text += alphabet[(seed = (seed * 1103515245 + 12345) & 0x7fffffff) % alphabet.length];
      const node = parseRepr(text);
      flat(node);
      toJson(node);
    }
  });
});

it('stringValue leaves bytes and broken literals alone', () => {
  expect(stringValue("b'x'")).toBeNull();
  expect(stringValue("'x")).toBeNull();
  expect(stringValue("'\\U00110000'")).toBe('\\U00110000');
});

function depth(node: Node): number {
  return node.kind === 'atom' ? 0 : 1 + Math.max(0, ...node.items.map((i) => depth(i.value)));
}
