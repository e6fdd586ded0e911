// Who is looking, and what they may change. Controls ask here whether they work, and why not when they don't.

import { getJson } from '../api/client';
import type { Me } from '../api/control';
import { neededRole } from '../lib/roles';

class Session {
  me = $state.raw<Me | null>(null);

  async read(): Promise<void> {
    this.me = await getJson<Me>('me').catch(() => this.me);
  }

  /** Why `action` can't be done now; empty when it can. */
  refusal(action: string): string {
    const me = this.me;
    if (!me) return 'The monitor has not said yet what you may do';
    if (me.can.includes(action)) return '';
    if (me.control !== 'on') return me.refusal ?? 'This monitor only shows: it is read-only';
    return `Needs the role ${neededRole(action)}; yours is ${me.role ?? 'none'}`;
  }

  /** Why nothing at all can be changed here, if so. */
  readonly locked = $derived(this.me && this.me.control !== 'on' ? (this.me.refusal ?? 'This monitor is read-only') : '');
}

export const session = new Session();
