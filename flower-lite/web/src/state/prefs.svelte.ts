// What this browser likes: theme, density, time zone, single-key shortcuts. Kept in localStorage where allowed.

import type { Zone } from '../lib/time';

export type Theme = 'system' | 'light' | 'dark';
export type Density = 'comfortable' | 'compact';

const KEY = 'flower-lite';
const dark = matchMedia('(prefers-color-scheme: dark)');

class Prefs {
  theme = $state<Theme>('system');
  density = $state<Density>('comfortable');
  zone = $state<Zone>('local');
  shortcuts = $state(true);
  private systemDark = $state(dark.matches);

  /** The theme in force. */
  readonly shown = $derived<'light' | 'dark'>(this.theme === 'system' ? (this.systemDark ? 'dark' : 'light') : this.theme);

  constructor() {
    const saved = load();
    if (saved.theme === 'light' || saved.theme === 'dark') this.theme = saved.theme;
    if (saved.density === 'compact') this.density = 'compact';
    if (saved.zone === 'utc') this.zone = 'utc';
    if (saved.shortcuts === false) this.shortcuts = false;
    dark.addEventListener('change', () => {
      this.systemDark = dark.matches;
      this.apply();
    });
    this.apply();
  }

  set(change: Partial<Pick<Prefs, 'theme' | 'density' | 'zone' | 'shortcuts'>>): void {
    Object.assign(this, change);
    this.apply();
    try {
      localStorage.setItem(KEY, JSON.stringify({ theme: this.theme, density: this.density, zone: this.zone, shortcuts: this.shortcuts }));
    } catch {
      // Storage may be refused; the choice then lasts as long as the page.
    }
  }

  nextTheme(): void {
    this.set({ theme: this.shown === 'dark' ? 'light' : 'dark' });
  }

  private apply(): void {
    document.documentElement.dataset.theme = this.shown;
    document.documentElement.dataset.density = this.density;
  }
}

function load(): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(localStorage.getItem(KEY) ?? '{}');
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

export const prefs = new Prefs();
