// Addresses under the prefix that the server put into `<base href>`, as values and back.

export type Route =
  | { page: 'overview' }
  | { page: 'tasks' }
  | { page: 'task'; id: string }
  | { page: 'workers' }
  | { page: 'worker'; name: string }
  | { page: 'missing'; path: string };

/** Reads a path; `base` starts and ends with a slash. */
export function parsePath(pathname: string, base: string): Route {
  const path = pathname.startsWith(base) ? pathname.slice(base.length) : pathname.replace(/^\//, '');
  const clean = path.replace(/\/$/, '');
  if (clean === '' || pathname === base.slice(0, -1)) return { page: 'overview' };
  if (clean === 'tasks') return { page: 'tasks' };
  if (clean === 'workers') return { page: 'workers' };
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
