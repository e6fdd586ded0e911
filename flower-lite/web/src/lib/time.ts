// Durations, ages and instants as people read them. All instants are unix seconds of the *server's* clock;
// the current time is handed in, so every function here is a function of its arguments.

export type Zone = 'local' | 'utc';

/** `0.00043` → `430 µs`, `1.5` → `1.5 s`, `75` → `1 m 15 s`: three significant figures at most. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '–';
  const sign = seconds < 0 ? '−' : '';
  const s = Math.abs(seconds);
  if (s === 0) return '0 s';
  if (s < 0.0009995) return `${sign}${figures(s * 1e6)} µs`;
  if (s < 0.9995) return `${sign}${figures(s * 1e3)} ms`;
  if (s < 59.95) return `${sign}${figures(s)} s`;
  const whole = Math.round(s);
  if (whole < 3600) return sign + pair(Math.floor(whole / 60), 'm', whole % 60, 's');
  if (whole < 86400) return sign + pair(Math.floor(whole / 3600), 'h', Math.floor((whole % 3600) / 60), 'm');
  return sign + pair(Math.floor(whole / 86400), 'd', Math.floor((whole % 86400) / 3600), 'h');
}

/** How long ago `then` was at `now`, coarse on purpose so that it changes at most once a second. */
export function ago(then: number | null | undefined, now: number): string {
  if (then === null || then === undefined || !Number.isFinite(then)) return '–';
  const s = now - then;
  if (s < -1.5) return `in ${coarse(-s)}`;
  if (s < 1.5) return 'now';
  return `${coarse(s)} ago`;
}

/** `14:03:07.482`, or with the date when it isn't the day of `now`. */
export function clockTime(at: number | null | undefined, now: number, zone: Zone, fraction = true): string {
  const parts = fields(at, zone);
  if (!parts) return '–';
  const time = `${parts.hour}:${parts.minute}:${parts.second}${fraction ? `.${parts.milli}` : ''}`;
  const today = fields(now, zone);
  return today && today.date === parts.date ? time : `${parts.date} ${time}`;
}

/** The full instant for tooltips and copying: `2026-11-24 14:03:07.482 UTC`. */
export function fullTime(at: number | null | undefined, zone: Zone): string {
  const parts = fields(at, zone);
  if (!parts) return 'unknown';
  return `${parts.date} ${parts.hour}:${parts.minute}:${parts.second}.${parts.milli} ${parts.label}`;
}

/** For `<time datetime>`; empty when out of what a `Date` can hold. */
export function isoTime(at: number | null | undefined): string {
  const date = asDate(at);
  return date ? date.toISOString() : '';
}

/** A wire time that may be unix seconds or ISO-8601 (`eta`, `expires`) as unix seconds. */
export function parseInstant(value: string | number | null | undefined): number | null {
  if (typeof value === 'number') return Number.isFinite(value) ? value : null;
  if (!value) return null;
  const ms = Date.parse(/[zZ]|[+-]\d\d:?\d\d$/.test(value) ? value : `${value}Z`);
  return Number.isNaN(ms) ? null : ms / 1000;
}

/** A rate with a steady width: `0`, `0.2`, `14.6`, `1,204`. */
export function rate(perSecond: number | null | undefined): string {
  if (perSecond === null || perSecond === undefined || !Number.isFinite(perSecond)) return '–';
  if (perSecond === 0) return '0';
  if (perSecond < 0.05) return '<0.1';
  return perSecond < 99.95 ? perSecond.toFixed(1) : Math.round(perSecond).toLocaleString('en');
}

/** A share of 1 as per cent: `0 %`, `0.4 %`, `12 %`. */
export function percent(share: number | null | undefined): string {
  if (share === null || share === undefined || !Number.isFinite(share)) return '–';
  const p = share * 100;
  if (p === 0) return '0 %';
  if (p < 0.1) return '<0.1 %';
  return `${p < 9.95 ? p.toFixed(1) : Math.round(p)} %`;
}

/** Whole numbers, grouped; from 100,000 on in thousands or millions. */
export function count(n: number | null | undefined): string {
  if (n === null || n === undefined || !Number.isFinite(n)) return '–';
  if (Math.abs(n) < 100_000) return n.toLocaleString('en');
  if (Math.abs(n) < 999_500) return `${Math.round(n / 1000).toLocaleString('en')} k`;
  return `${(n / 1e6).toFixed(Math.abs(n) < 9.95e6 ? 2 : 1)} M`;
}

function figures(n: number): string {
  if (n < 9.995) return trim(n.toFixed(2));
  return n < 99.95 ? trim(n.toFixed(1)) : String(Math.round(n));
}

function trim(s: string): string {
  return s.replace(/\.?0+$/, '');
}

function pair(big: number, bigUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${big} ${bigUnit}` : `${big} ${bigUnit} ${small} ${smallUnit}`;
}

function coarse(s: number): string {
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m`;
  if (s < 86400) return pair(Math.floor(s / 3600), 'h', s < 36000 ? Math.floor((s % 3600) / 60) : 0, 'm');
  return `${Math.floor(s / 86400)} d`;
}

function asDate(at: number | null | undefined): Date | null {
  if (at === null || at === undefined || !Number.isFinite(at)) return null;
  const date = new Date(at * 1000);
  return Number.isNaN(date.getTime()) ? null : date;
}

interface Fields {
  date: string;
  hour: string;
  minute: string;
  second: string;
  milli: string;
  label: string;
}

function fields(at: number | null | undefined, zone: Zone): Fields | null {
  const d = asDate(at);
  if (!d) return null;
  const two = (n: number): string => String(n).padStart(2, '0');
  const utc = zone === 'utc';
  const year = utc ? d.getUTCFullYear() : d.getFullYear();
  const month = utc ? d.getUTCMonth() : d.getMonth();
  return {
    date: `${year}-${two(month + 1)}-${two(utc ? d.getUTCDate() : d.getDate())}`,
    hour: two(utc ? d.getUTCHours() : d.getHours()),
    minute: two(utc ? d.getUTCMinutes() : d.getMinutes()),
    second: two(utc ? d.getUTCSeconds() : d.getSeconds()),
    milli: String(d.getUTCMilliseconds()).padStart(3, '0'),
    label: utc ? 'UTC' : offset(d),
  };
}

function offset(d: Date): string {
  const minutes = -d.getTimezoneOffset();
  if (minutes === 0) return 'UTC';
  const abs = Math.abs(minutes);
  return `UTC${minutes < 0 ? '−' : '+'}${String(Math.floor(abs / 60)).padStart(2, '0')}:${String(abs % 60).padStart(2, '0')}`;
}
