// Where we are. Links are ordinary links; a click on one that stays inside the prefix is turned into a history entry.

import { tick } from 'svelte';
import { parsePath, sameRoute, search, segment, type PlainPage, type Route } from '../lib/route';

const FRAMES = 120;
const base = new URL('.', document.baseURI).pathname;

class Router {
  route = $state.raw<Route>(parsePath(location.pathname, base));
  search = $state(location.search);

  start(): void {
    history.scrollRestoration = 'manual';
    addEventListener('popstate', (event) => {
      this.read();
      const top = (event.state as { top?: number } | null)?.top ?? 0;
      void tick().then(() => requestAnimationFrame(() => scrollTo(0, top)));
    });
    document.addEventListener('click', (event) => this.click(event));
  }

  /** Goes to a page of ours. A new page starts at its heading; the same page with another query keeps its focus. */
  go(href: string, how: 'push' | 'replace' = 'push'): void {
    const before = this.route;
    history.replaceState({ top: scrollY }, '');
    if (how === 'push') history.pushState({ top: 0 }, '', href);
    else history.replaceState({ top: scrollY }, '', href);
    this.read();
    if (sameRoute(before, this.route)) return;
    scrollTo(0, 0);
    void tick().then(() => focusHeading(FRAMES));
  }

  /** Changes what the page's address says of it, without a new entry in the history. */
  set(params: Record<string, string | number | null | undefined>): void {
    const now = Object.fromEntries(new URLSearchParams(this.search));
    this.go(location.pathname + search({ ...now, ...params }), 'replace');
  }

  param(name: string): string {
    return new URLSearchParams(this.search).get(name) ?? '';
  }

  private read(): void {
    const next = parsePath(location.pathname, base);
    if (!sameRoute(next, this.route)) this.route = next;
    this.search = location.search;
  }

  private click(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const anchor = (event.target as Element | null)?.closest?.('a');
    if (!anchor || anchor.target || anchor.rel.includes('external') || anchor.hasAttribute('download') || anchor.origin !== location.origin || !anchor.pathname.startsWith(base)) return;
    event.preventDefault();
    this.go(anchor.href);
  }
}

/** A page that is not here yet has no heading; it is waited for, but not for ever. */
function focusHeading(frames: number): void {
  const heading = document.querySelector<HTMLElement>('main h1');
  if (heading) heading.focus({ preventScroll: true });
  else if (frames > 0) requestAnimationFrame(() => focusHeading(frames - 1));
}

export const router = new Router();

/** Addresses of our pages, absolute within the origin. */
export const link = {
  overview: (): string => base,
  tasks: (search = ''): string => `${base}tasks${search}`,
  task: (id: string): string => `${base}task/${segment(id)}`,
  workers: (): string => `${base}workers`,
  page: (page: PlainPage, params: Record<string, string | number | null | undefined> = {}): string => base + page + search(params),
  worker: (name: string): string => `${base}worker/${segment(name)}`,
};
