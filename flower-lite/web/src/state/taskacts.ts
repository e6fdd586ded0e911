// The questions before something is done to tasks: one, or many.

import { change, getJson } from '../api/client';
import type { DryRun, KnownArguments } from '../api/control';
import { jsonBody, Raw, typedNumber, wrongJson } from '../lib/body';
import { parseRepr, toJson } from '../lib/repr';
import { segment } from '../lib/route';
import { oneLine, plural, shortId } from '../lib/text';
import { acts } from './act.svelte';

const SIGNALS: [string, string][] = ['SIGTERM', 'SIGKILL', 'SIGINT', 'SIGQUIT', 'SIGUSR1'].map((s) => [s, s]);

interface Subject {
  id: string;
  name: string | null;
  args?: string | null;
  kwargs?: string | null;
}

/** Sends a task again, with the same arguments or with others. */
export async function askRetry(task: Subject, edit = false, after?: () => void): Promise<void> {
  const known = await getJson<KnownArguments>(`arguments/${segment(task.id)}`).catch(() => null);
  const whole = known !== null && known.args !== null && known.kwargs !== null;
  acts.ask({
    title: `Retry ${task.name ?? shortId(task.id)}`,
    text: 'A new task is sent with a new id; this one stays as it is.',
    ...(whole ? {} : { warning: `The arguments are not known whole${known?.problem ? `: ${known.problem}` : ''}. Type them to be sure, or the monitor may refuse.` }),
    verb: 'Retry',
    fields: [
      { key: 'edit', label: 'Change the arguments', kind: 'check', value: edit || !whole ? 'yes' : '' },
      { key: 'args', label: 'Positional arguments', kind: 'json', value: pretty(known?.args ?? guess(task.args) ?? '[]'), required: true, when: (all) => all.edit === 'yes', check: (text) => wrongJson(text, 'array') },
      { key: 'kwargs', label: 'Keyword arguments', kind: 'json', value: pretty(known?.kwargs ?? guess(task.kwargs) ?? '{}'), required: true, when: (all) => all.edit === 'yes', check: (text) => wrongJson(text, 'object') },
      { key: 'queue', label: 'Queue', placeholder: 'as routed' },
      { key: 'countdown', label: 'Delay in seconds', kind: 'number', min: 0 },
    ],
    run: async (v) => {
      const edited = v.edit === 'yes' ? { args: new Raw(v.args ?? '[]'), kwargs: new Raw(v.kwargs ?? '{}') } : {};
      await acts.run('task.retry', { id: task.id, ...edited, queue: v.queue?.trim() || undefined, countdown: typedNumber(v.countdown ?? '') });
      after?.();
    },
  });
}

/** Keeps a task from running, or ends it. */
export function askRevoke(task: Subject, running: boolean, after?: () => void): void {
  acts.ask({
    title: `Revoke ${task.name ?? shortId(task.id)}`,
    text: running ? 'It is running: revoking alone lets it go on, terminating ends it.' : 'Workers that receive it will throw it away.',
    verb: 'Revoke',
    danger: true,
    fields: [
      { key: 'terminate', label: 'Terminate it if it runs', kind: 'check', value: running ? 'yes' : '' },
      { key: 'signal', label: 'Signal', kind: 'select', value: 'SIGTERM', options: SIGNALS, when: (all) => all.terminate === 'yes' },
    ],
    run: async (v) => {
      const terminate = v.terminate === 'yes';
      await acts.run('task.revoke', { id: task.id, terminate, signal: terminate ? v.signal : undefined });
      after?.();
    },
  });
}

/** Which tasks a bulk action is for: these, those of a filter, or those of a group of failures. */
export type Which = { ids: string[] } | { filter: { state?: string[] | undefined; name?: string | undefined; worker?: string | undefined; q?: string | undefined } } | { failure: { name: string | null; exception: string } };

/** Asks the monitor how many that would be, then the user, then does it. */
export async function askBulk(action: 'task.retry' | 'task.revoke', which: Which, after?: () => void): Promise<void> {
  let dry: DryRun;
  try {
    dry = await change<DryRun>('bulk', jsonBody({ action, ...which, dry_run: true }));
  } catch (error) {
    acts.tell(false, error instanceof Error ? error.message : String(error));
    return;
  }
  if (dry.total === 0) {
    acts.tell(false, 'No task matches any more');
    return;
  }
  const retry = action === 'task.retry';
  acts.ask({
    title: `${retry ? 'Retry' : 'Revoke'} ${plural(dry.total, 'task')}`,
    text: retry ? 'Each is sent again with the same arguments and a new id. Those whose arguments are not known whole are left out, and listed.' : 'Workers that receive them will throw them away.',
    ...(dry.more ? { warning: 'There are more than can be done at once; do it again for the rest.' } : {}),
    verb: `${retry ? 'Retry' : 'Revoke'} ${dry.total.toLocaleString('en')}`,
    danger: !retry,
    fields: retry ? [] : [{ key: 'terminate', label: 'Terminate those that run', kind: 'check' }],
    run: async (v) => {
      await acts.bulk({ action, ...which, terminate: v.terminate === 'yes' ? true : undefined });
      after?.();
    },
  });
}

/** What an event's repr says, as far as that is JSON: something to start typing from. */
function guess(repr: string | null | undefined): string | null {
  return repr ? toJson(parseRepr(repr)) : null;
}

/** Laid out for reading; numbers that would be rounded stay as they are. */
function pretty(text: string): string {
  try {
    return /\d{16}/.test(text) ? text : JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return oneLine(text, 10_000);
  }
}
