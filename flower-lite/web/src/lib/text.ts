// Untrusted text on its way to the screen. Svelte writes text nodes, so markup is never a danger; what is left are
// characters that are invisible or that reorder their neighbours, and strings long enough to stall layout.

// C0 and C1 controls (but tab and newline), zero-width characters, line separators, bidi marks, tags, and lone surrogates.
// eslint-disable-next-line no-control-regex
const ODD = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/gu;

/** `text` with every invisible or reordering character replaced by its code in angle brackets. */
export function visible(text: string): string {
  return text.replace(ODD, (c) => `⟨${(c.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}⟩`);
}

/** One line of at most `max` characters for a table cell. */
export function oneLine(text: string, max = 240): string {
  const cut = clip(text, max);
  return visible(cut.replace(/\s*[\r\n]\s*/g, ' ↵ '));
}

/** `text` cut to `max` code units without splitting a surrogate pair; a cut is marked by an ellipsis. */
export function clip(text: string, max: number): string {
  if (text.length <= max) return text;
  const last = text.charCodeAt(max - 1);
  const end = last >= 0xd800 && last <= 0xdbff ? max - 1 : max;
  return `${text.slice(0, end)}…`;
}

/** A recognisable head of an identifier: UUIDs give their first group, anything else its first 12 characters. */
export function shortId(id: string): string {
  const uuid = /^([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i.exec(id);
  return uuid?.[1] ?? visible(clip(id, 12));
}

/** `demo.mail.send` → [`demo.mail.`, `send`], so that a page can dim the module. */
export function splitName(name: string): [module: string, last: string] {
  const dot = name.lastIndexOf('.');
  return dot < 0 || dot === name.length - 1 ? ['', name] : [name.slice(0, dot + 1), name.slice(dot + 1)];
}

/** `ValueError('no')` or `mod.Error: no` → class and message, as far as they can be told apart. */
export function splitException(text: string): { type: string; message: string } {
  const call = /^([A-Za-z_][\w.]*)\(([\s\S]*)\)$/.exec(text);
  if (call) return { type: call[1] ?? '', message: unquote((call[2] ?? '').replace(/,$/, '')) };
  const colon = /^([A-Za-z_][\w.]*(?:::\w+)*): ([\s\S]*)$/.exec(text);
  if (colon) return { type: colon[1] ?? '', message: colon[2] ?? '' };
  return /^[A-Za-z_][\w.]*$/.test(text) ? { type: text, message: '' } : { type: '', message: text };
}

function unquote(text: string): string {
  const quoted = /^(['"])([\s\S]*)\1$/.exec(text);
  const inner = quoted?.[2];
  if (inner === undefined || quoted === null || hasBareQuote(inner, quoted[1] ?? "'")) return text;
  return inner.replace(/\\(['"\\])/g, '$1').replace(/\\n/g, '\n');
}

function hasBareQuote(inner: string, quote: string): boolean {
  for (let i = 0; i < inner.length; i++) {
    if (inner[i] === '\\') i++;
    else if (inner[i] === quote) return true;
  }
  return false;
}

/** Plural by count, with the number grouped: `1 task`, `1,200 tasks`. */
export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`;
}
