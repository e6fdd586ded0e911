// A tolerant reader of Python reprs, as events carry them for args, kwargs and results. It never fails: what it cannot
// read, or what the sender cut off, becomes an opaque leaf. Bounded in input, depth and nodes.

export type Role = 'number' | 'string' | 'constant' | 'name' | 'ellipsis' | 'opaque';

export interface Atom {
  kind: 'atom';
  role: Role;
  text: string;
  width: number;
}

export interface Item {
  /** A dict key or a keyword's name; null for positional items. */
  key: Node | null;
  sep: '' | ': ' | '=';
  value: Node;
}

/** Anything with brackets: list, tuple, dict, set, or a call such as `UUID('…')` with `name` in front. */
export interface Group {
  kind: 'group';
  name: string;
  open: '(' | '[' | '{';
  close: ')' | ']' | '}';
  items: Item[];
  /** The closing bracket was missing: the sender shortened the text. */
  cut: boolean;
  /** A one-item tuple's trailing comma. */
  comma: boolean;
  width: number;
}

export type Node = Atom | Group;

const MAX_INPUT = 200_000;
const MAX_DEPTH = 60;
const MAX_NODES = 20_000;

const CLOSE = { '(': ')', '[': ']', '{': '}' } as const;
const CONSTANTS = new Set(['True', 'False', 'None', 'Ellipsis', 'NotImplemented', 'nan', 'inf', 'true', 'false', 'null']);

export function parseRepr(text: string): Node {
  const reader = new Reader(text.slice(0, MAX_INPUT));
  const node = reader.value(0);
  const rest = reader.rest() + text.slice(MAX_INPUT);
  if (!rest.trim()) return node;
  // More than one value: not a Python literal, so show the text as it came.
  return atom('opaque', text);
}

/** The one-line text of a node. */
export function flat(node: Node): string {
  if (node.kind === 'atom') return node.text;
  const inner = node.items.map((item) => (item.key ? flat(item.key) + item.sep : '') + flat(item.value)).join(', ');
  return `${node.name}${node.open}${inner}${node.comma ? ',' : ''}${node.cut ? '…' : node.close}`;
}

/** The value as JSON text, or null when it holds something that JSON cannot say (objects, sets of calls, cuts). */
export function toJson(node: Node, indent = ''): string | null {
  if (node.kind === 'atom') return atomJson(node);
  if (node.name || node.cut) return null;
  const deeper = `${indent}  `;
  const parts: string[] = [];
  for (const item of node.items) {
    const value = toJson(item.value, deeper);
    if (value === null) return null;
    if (!item.key) {
      parts.push(deeper + value);
      continue;
    }
    const key = item.key.kind === 'atom' ? atomJson(item.key) : null;
    if (key === null) return null;
    parts.push(`${deeper}${key.startsWith('"') ? key : JSON.stringify(key)}: ${value}`);
  }
  const isObject = node.open === '{' && (node.items.length === 0 || node.items[0]?.key !== null);
  const [open, close] = isObject ? ['{', '}'] : ['[', ']'];
  return parts.length ? `${open}\n${parts.join(',\n')}\n${indent}${close}` : open + close;
}

/** The characters that a Python string literal stands for; null for bytes, f-strings and broken literals. */
export function stringValue(literal: string): string | null {
  const parts = /^[uU]?(['"])([\s\S]*)\1$/.exec(literal);
  if (!parts) return null;
  return (parts[2] ?? '').replace(
    /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|([\s\S]))/g,
    (whole: string, x?: string, u?: string, big?: string, octal?: string, simple?: string) => {
      const hex = x ?? u ?? big;
      if (hex !== undefined) return codePoint(parseInt(hex, 16), whole);
      if (octal !== undefined) return codePoint(parseInt(octal, 8), whole);
      return SIMPLE_ESCAPES[simple ?? ''] ?? whole;
    },
  );
}

const SIMPLE_ESCAPES: Record<string, string> = { n: '\n', t: '\t', r: '\r', a: '\x07', b: '\b', f: '\f', v: '\v', '\\': '\\', "'": "'", '"': '"', '\n': '' };

function codePoint(code: number, otherwise: string): string {
  return code <= 0x10ffff ? String.fromCodePoint(code) : otherwise;
}

function atomJson(node: Atom): string | null {
  if (node.role === 'number') return /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(node.text) ? node.text : null;
  if (node.role === 'string') {
    const value = stringValue(node.text);
    return value === null ? null : JSON.stringify(value);
  }
  if (node.role !== 'constant') return null;
  return { True: 'true', False: 'false', None: 'null', true: 'true', false: 'false', null: 'null' }[node.text] ?? null;
}

function atom(role: Role, text: string): Atom {
  return { kind: 'atom', role, text, width: text.length };
}

class Reader {
  private at = 0;
  private nodes = 0;

  constructor(private readonly text: string) {}

  rest(): string {
    return this.text.slice(this.at);
  }

  value(depth: number): Node {
    this.space();
    if (++this.nodes > MAX_NODES || depth > MAX_DEPTH) return this.opaqueRest();
    const c = this.text[this.at];
    if (c === undefined) return atom('opaque', '');
    if (c === '(' || c === '[' || c === '{') return this.group('', c, depth);
    if (c === '<') return this.angle();
    if (this.text.startsWith('...', this.at)) return this.take('ellipsis', 3);
    const quoted = this.match(/(?:[bBuUrRfF]{1,2})?(?='|")/y);
    if (quoted !== null) return this.quoted(quoted);
    const number = this.match(/[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[jJ]?|[+-](?:inf|nan)\b/y);
    if (number) return atom('number', number);
    const name = this.match(/[A-Za-z_][\w.]*/y);
    if (name) return this.named(name, depth);
    return this.opaque();
  }

  private named(name: string, depth: number): Node {
    if (CONSTANTS.has(name)) return atom('constant', name);
    if (this.text[this.at] === '(') return this.group(name, '(', depth);
    return atom('name', name);
  }

  private group(name: string, open: '(' | '[' | '{', depth: number): Group {
    this.at++;
    const group: Group = { kind: 'group', name, open, close: CLOSE[open], items: [], cut: true, comma: false, width: name.length + 2 };
    for (;;) {
      this.space();
      const c = this.text[this.at];
      if (c === undefined) break;
      if (c === group.close) {
        this.at++;
        group.cut = false;
        break;
      }
      if (c === ')' || c === ']' || c === '}') break; // somebody else's bracket: the text was cut inside
      const before = this.at;
      const item = this.item(depth + 1);
      group.items.push(item);
      group.width += (item.key ? item.key.width + item.sep.length : 0) + item.value.width + 2;
      this.space();
      group.comma = this.text[this.at] === ',';
      if (group.comma) this.at++;
      else if (this.at === before) this.at++; // always move on
    }
    group.comma = group.comma && open === '(' && group.items.length === 1 && name === '';
    return group;
  }

  private item(depth: number): Item {
    const first = this.value(depth);
    this.space();
    const c = this.text[this.at];
    if (c === ':') {
      this.at++;
      return { key: first, sep: ': ', value: this.value(depth) };
    }
    if (c === '=' && first.kind === 'atom' && first.role === 'name') {
      this.at++;
      return { key: first, sep: '=', value: this.value(depth) };
    }
    return { key: null, sep: '', value: first };
  }

  private quoted(prefix: string): Atom {
    const start = this.at - prefix.length;
    const quote = this.text[this.at];
    let i = this.at + 1;
    while (i < this.text.length && this.text[i] !== quote) i += this.text[i] === '\\' ? 2 : 1;
    this.at = Math.min(i + 1, this.text.length);
    return atom('string', this.text.slice(start, this.at));
  }

  /** `<Foo object at 0x7f…>`, brackets inside included. */
  private angle(): Atom {
    let open = 0;
    for (let i = this.at; i < this.text.length; i++) {
      if (this.text[i] === '<') open++;
      else if (this.text[i] === '>' && --open === 0) return this.take('opaque', i + 1 - this.at);
    }
    return this.opaqueRest();
  }

  /** Something unknown, up to the next separator. */
  private opaque(): Atom {
    const text = this.match(/[^\s,:)\]}]+/y);
    return text ? atom('opaque', text) : this.take('opaque', 1);
  }

  private opaqueRest(): Atom {
    return this.take('opaque', this.text.length - this.at);
  }

  private take(role: Role, length: number): Atom {
    const text = this.text.slice(this.at, this.at + length);
    this.at += length;
    return atom(role, text);
  }

  private match(sticky: RegExp): string | null {
    sticky.lastIndex = this.at;
    const found = sticky.exec(this.text);
    if (!found) return null;
    this.at += found[0].length;
    return found[0];
  }

  private space(): void {
    this.match(/\s*/y);
  }
}
