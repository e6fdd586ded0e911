// Addresses under the prefix that the server put into `<base href>`, as values and back.

export const PLAIN_PAGES = ['tasks', 'workers', 'queues', 'failures', 'schedules', 'alerts', 'audit', 'about'] as const;
export type PlainPage = (typeof PLAIN_PAGES)[number];

export type Route = { page: 'overview' } | { page: PlainPage } | { page: 'task'; id: string } | { page: 'worker'; name: string } | { page: 'missing'; path: string };

/** Reads a path; `base` starts and ends with a slash. */
export function parsePath(pathname: string, base: string): Route {
  const path = pathname.startsWith(base) ? pathname.slice(base.length) : pathname.replace(/^\//, '');
  const clean = path.replace(/\/$/, '');
  if (clean === '' || pathname === base.slice(0, -1)) return { page: 'overview' };
  const plain = PLAIN_PAGES.find((page) => page === clean);
  if (plain) return { page: plain };
  if (clean === 'broker') return { page: 'queues' }; // Flower's address of it, in old bookmarks
  const [kind, ...rest] = path.split('/');
  const name = decode(rest.join('/'));
  if (name && kind === 'task') return { page: 'task', id: name };
  if (name && kind === 'worker') return { page: 'worker', name };
  return { page: 'missing', path: clean };
}

/** One path segment from untrusted text; lone surrogates cannot be encoded and become U+FFFD. */
export function segment(text: string): string {
  return encodeURIComponent(text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, '\ufffd'));
}

/** A query string of what is not empty; starts with `?`, or is empty. */
export function search(params: Record<string, string | number | null | undefined>): string {
  const out = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) if (value !== null && value !== undefined && value !== '') out.set(key, String(value));
  const text = out.toString();
  return text ? `?${text}` : '';
}

export function sameRoute(a: Route, b: Route): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
