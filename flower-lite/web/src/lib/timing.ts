// When an entry of a schedule is due, in words. Beat's files have numbers of seconds, texts, or crontabs as objects.

import type { Timing } from '../api/control';
import { duration } from './time';

const FIELDS = ['minute', 'hour', 'day_of_month', 'month_of_year', 'day_of_week'] as const;
const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];

export function timing(schedule: Timing): string {
  if (schedule === null || schedule === undefined) return 'not known';
  if (typeof schedule === 'number') return `every ${duration(schedule)}`;
  if (typeof schedule === 'string') {
    const plain = /^(\d+(?:\.\d+)?)\s*(s|m|h|d)?$/.exec(schedule.trim());
    if (plain) return `every ${duration(Number(plain[1]) * { s: 1, m: 60, h: 3600, d: 86400 }[(plain[2] ?? 's') as 's']!)}`;
    return crontab(schedule);
  }
  const every = schedule.every;
  if (typeof every === 'number') return `every ${duration(every)}`;
  if (FIELDS.some((field) => field in schedule)) return crontab(FIELDS.map((field) => String(schedule[field] ?? '*').replaceAll(' ', '')).join(' '));
  return JSON.stringify(schedule);
}

/** The commonest crontabs as sentences; the others as they are. */
function crontab(text: string): string {
  const fields = text.trim().split(/\s+/);
  if (fields.length !== 5) return text;
  const [minute, hour, day, month, weekday] = fields as [string, string, string, string, string];
  if (day !== '*' || month !== '*') return text;
  const time = /^\d+$/.test(minute) && /^\d+$/.test(hour) ? `${hour.padStart(2, '0')}:${minute.padStart(2, '0')}` : '';
  const days = weekday === '*' ? 'day' : weekdays(weekday);
  if (time && days) return `every ${days} at ${time}`;
  if (weekday !== '*') return text;
  const step = /^\*\/(\d+)$/.exec(minute);
  if (hour === '*' && minute === '*') return 'every minute';
  if (hour === '*' && step) return `every ${step[1]} minutes`;
  if (hour === '*' && /^\d+$/.test(minute)) return `every hour at :${minute.padStart(2, '0')}`;
  return text;
}

function weekdays(text: string): string {
  if (/^(1-5|mon-fri)$/i.test(text)) return 'weekday';
  if (/^(6,0|0,6|sat,sun)$/i.test(text)) return 'weekend day';
  if (/^[0-7]$/.test(text)) return DAYS[Number(text) % 7] ?? '';
  return DAYS.find((day) => day.slice(0, 3).toLowerCase() === text.toLowerCase()) ?? '';
}
