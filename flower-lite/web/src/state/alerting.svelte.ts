// What the alert rules say, for the pages that show it and for the number in the header.

import type { Alerts } from '../api/control';
import { Resource } from './resource.svelte';

const EVERY_MS = 10_000;

class Alerting {
  readonly alerts = new Resource<Alerts>();
  readonly instances = $derived((this.alerts.value?.rules ?? []).flatMap((rule) => rule.instances.filter((i) => i.state === 'firing').map((i) => ({ ...i, rule: rule.name, kind: rule.kind }))));
  readonly firing = $derived(this.instances.length);

  use(): () => void {
    return this.alerts.follow('alerts', EVERY_MS);
  }
}

export const alerting = new Alerting();
