// The made-up cluster's other half: who is looking, what they may do and did, queues, dead letters, failures,
// aggregates, schedules, alerts, and what workers answer. Actions change the story of `world.mjs`.

const OPERATOR = [
  'task.retry', 'task.send', 'task.revoke', 'task.abort', 'task.rate_limit', 'task.time_limit', 'queue.pause', 'queue.resume', 'worker.add_consumer', 'worker.cancel_consumer',
  'dead_letter.requeue', 'schedule.run', 'schedule.enable', 'schedule.disable',
];
const ADMIN = ['worker.shutdown', 'worker.pool_restart', 'worker.pool_grow', 'worker.pool_shrink', 'worker.autoscale', 'queue.purge', 'dead_letter.drop', 'schedule.edit', 'schedule.revert'];
export const ACTIONS = [...OPERATOR, ...ADMIN];
const READ_ONLY = 'Read only mode is enabled: to control workers, set FLOWER_USERS or FLOWER_BASIC_AUTH';
const QUEUES = ['celery', 'payments', 'mail', 'media', 'batch'];

export class Control {
  constructor(world, { role = 'admin', readOnly = false, hostile = false } = {}) {
    this.world = world;
    this.role = role;
    this.readOnly = readOnly;
    this.loggedOut = false;
    this.jobs = [];
    this.audit = [];
    this.paused = new Map();
    this.limits = new Map([['webhooks.deliver', '20/s'], ['search.reindex', '2/m']]);
    this.extraQueues = new Map();
    this.pools = new Map();
    this.depths = [];
    const p = (field) => (hostile ? `${hostile}${field}` : null);
    this.hostile = p;
    const now = world.now;
    const letter = (i, part) => ({ id: `dead-${i}`, name: 'shop.orders.charge_card', args: `(${700000 + i},)`, kwargs: "{'currency': 'EUR'}", reason: ['rejected', 'expired', 'rejected'][i % 3], from: 'payments', died_at: now - 3600 + i * 90, count: 1 + (i % 2), bytes: 412, ...part });
    this.dead = new Map([['payments.dead', Array.from({ length: 23 }, (_, i) => letter(i, {}))], ['mail.dead', []]]);
    if (hostile) this.dead.set(p('dead'), [letter(99, { id: p('dead-id'), name: p('dead-name'), args: p('dead-args'), kwargs: p('dead-kwargs'), reason: p('dead-reason'), from: p('dead-from') })]);
    this.schedules = [
      {
        name: 'shop', error: null,
        entries: [
          entry('nightly-report', 'reports.nightly.build', '30 4 * * mon-fri', now - 40_000, { kwargs: { sections: ['sales', 'refunds'] } }),
          entry('reindex', 'search.reindex', '15m', now - 400, { kwargs: { index: 'products' } }),
          entry('retry-webhooks', 'webhooks.deliver', 90, now - 30, { args: ['https://hooks.example.com/ping'], edited: true }),
          entry('month-end', 'billing.invoice.render_pdf', { minute: '0', hour: '3', day_of_month: '1', month_of_year: '*', day_of_week: '*' }, null, { enabled: false }),
        ],
      },
    ];
    if (hostile) {
      this.schedules.push({ name: p('schedule'), error: p('schedule-error'), entries: [entry(p('entry'), p('entry-task'), p('entry-when'), null, { args: [p('entry-arg')], kwargs: { [p('k')]: p('v') }, options: { queue: p('o') }, problem: p('entry-problem') }), entry('by-object', 'x', { event: p('entry-event') }, null, {})] });
      this.write('admin', { action: p('audit-action'), target: p('audit-target'), params: { [p('audit-key')]: p('audit-value') }, outcome: p('audit-outcome'), detail: p('audit-detail'), user: p('audit-user'), via: p('audit-via'), address: p('audit-address') });
    }
    this.write('operator', { user: 'anna', action: 'task.retry', target: '0f7c1f6e-58b1-4a51-9c0e-1d2f3a4b5c6d', params: { args: '[redacted]' }, outcome: 'ok' });
    this.write('viewer', { user: 'visitor', action: 'queue.purge', target: 'payments', params: { queue: 'payments' }, outcome: 'denied', detail: 'needs the role admin' });
    this.write('admin', { user: 'root', action: 'worker.pool_grow', target: 'celery@worker-1', params: { n: 2 }, outcome: 'ok' });
  }

  write(role, part) {
    this.audit.unshift({ id: this.audit.length + 1, at: this.world.now, user: 'mock', role, via: 'password', address: '127.0.0.1', target: null, params: {}, detail: null, ...part });
  }

  me() {
    const anonymous = this.readOnly;
    return {
      authenticated: !anonymous, name: anonymous ? null : (this.hostile('user') ?? 'mock'), role: anonymous ? 'viewer' : this.role, via: anonymous ? 'anonymous' : 'password', expires_at: anonymous ? null : this.world.now + 43_200,
      login: { password: !anonymous, oidc: null }, control: this.readOnly ? 'read_only' : 'on', refusal: this.readOnly ? READ_ONLY : null, can: this.can(),
    };
  }

  can() {
    if (this.readOnly || this.role === 'viewer') return [];
    return this.role === 'admin' ? ACTIONS : OPERATOR;
  }

  // ── reading ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Answers `GET path`, or `undefined` when that is not from here. */
  get(path, params) {
    const [kind, raw] = path.split(/\/(.*)/s);
    const name = decodeURIComponent(raw ?? '');
    if (path === 'me') return this.me();
    if (path === 'queues') return { items: this.queues() };
    if (path === 'dead-letters') return { items: [...this.dead].map(([queue, items]) => ({ queue, ready: items.length, from: [queue.replace('.dead', '')] })) };
    if (kind === 'dead-letters') return this.dead.has(name) ? { queue: name, ready: this.dead.get(name).length, items: this.dead.get(name).slice(0, Number(params.get('limit') ?? 50)), complete: this.dead.get(name).length <= 50 } : null;
    if (path === 'failures') return this.failures(params);
    if (path === 'aggregates') return this.aggregates(Number(params.get('window') ?? 900), params.get('by') ?? 'name');
    if (path === 'schedules') return { items: this.schedules };
    if (path === 'audit') return this.auditPage(params);
    if (path === 'alerts') return this.alerts();
    if (path === 'bulk') return { items: this.jobs };
    if (kind === 'bulk') return this.jobs.find((job) => job.id === name) ?? null;
    if (kind === 'arguments') return this.known(name);
    if (kind === 'workflows') return this.workflow(name);
    if (kind === 'workers' && name.endsWith('/answers')) return this.answers(decodeURIComponent(raw.slice(0, -'/answers'.length)));
    return undefined;
  }

  queues() {
    const online = [...this.world.workers.values()].filter((w) => w.online);
    const names = [...QUEUES, ...(this.hostile('queue') ? [this.hostile('queue')] : [])];
    return names.map((name, i) => {
      const readers = online.filter((w) => (w.internal.queues ? w.internal.queues.includes(name) : name !== 'media' && QUEUES.includes(name)));
      const waiting = readers.reduce((n, w) => n + w.internal.waiting.length, 0);
      const ready = Math.round(waiting + (name === 'batch' ? 38 + 14 * Math.sin(this.world.now / 50) : 3 + 3 * Math.sin(this.world.now / (9 + i))));
      const pause = this.paused.get(name) ?? null;
      const out = pause ? 0 : 0.4 + i + Math.abs(Math.sin(this.world.now / 20 + i));
      return {
        name, ready, consumers: pause ? 0 : readers.length, workers: readers.length, processes: readers.reduce((n, w) => n + w.internal.slots, 0), rate: out, unacked: Math.min(12, readers.length * 2), in_rate: out * 1.02, out_rate: out,
        time_to_drain: pause || !readers.length ? null : ready / Math.max(0.1, out), oldest: ready ? ready * 0.7 : null, paused: pause,
      };
    });
  }

  failures(params) {
    const since = Number(params.get('since') ?? 0);
    const q = (params.get('q') ?? '').toLowerCase();
    const groups = new Map();
    let total = 0;
    for (const task of this.world.tasks.values()) {
      if (task.state !== 'FAILURE' || (task.failed ?? 0) < since) continue;
      const exception = /^[A-Za-z_.]+/.exec(task.exception ?? '')?.[0] ?? task.exception ?? 'Unknown';
      if (q && !`${task.name} ${task.exception}`.toLowerCase().includes(q)) continue;
      total++;
      const key = `${task.name} ${exception}`;
      const group = groups.get(key) ?? { key, name: task.name, exception, message: null, count: 0, first: task.failed, last: task.failed, workers: [], samples: [], series: new Array(24).fill(0) };
      group.count++;
      group.first = Math.min(group.first, task.failed);
      group.last = Math.max(group.last, task.failed);
      group.message = task.exception;
      if (!group.workers.includes(task.worker)) group.workers.push(task.worker);
      group.samples = [task.id, ...group.samples].slice(0, 10);
      const start = since || this.world.startedAt;
      group.series[Math.min(23, Math.max(0, Math.floor(((task.failed - start) / Math.max(1, this.world.now - start)) * 24)))]++;
      groups.set(key, group);
    }
    const items = [...groups.values()].sort((a, b) => b.count - a.count);
    return { version: this.world.version, items, total, groups: items.length, more: false };
  }

  aggregates(window, by) {
    const from = this.world.now - window;
    const step = window / 60;
    const ended = [...this.world.tasks.values()].filter((t) => (t.succeeded ?? t.failed ?? 0) >= from);
    const groups = new Map();
    for (const task of ended) {
      const list = groups.get(task[by]) ?? [];
      list.push(task);
      groups.set(task[by], list);
    }
    const end = (t) => t.succeeded ?? t.failed;
    const series = Array.from({ length: 60 }, (_, i) => {
      const part = ended.filter((t) => Math.floor((end(t) - from) / step) === i);
      const run = times(part.map((t) => end(t) - t.started));
      const wait = times(part.map((t) => t.started - t.received));
      return { t: from + i * step, ended: part.length, failed: part.filter((t) => t.state === 'FAILURE').length, retried: 0, runtime_p50: run.p50, runtime_p95: run.p95, wait_p50: wait.p50, wait_p95: wait.p95 };
    });
    return { window, from, to: this.world.now, step, total: aggregate(null, ended, window), items: [...groups].map(([key, list]) => aggregate(key, list, window)).sort((a, b) => b.ended - a.ended).slice(0, 50), series };
  }

  alerts() {
    const now = this.world.now;
    const p = this.hostile;
    const instance = (target, summary, value) => ({ target, state: 'firing', since: now - 340, value, summary });
    return {
      rules: [
        { name: 'failures', kind: 'failure_rate', threshold: 0.05, for: 300, state: 'firing', instances: [instance('webhooks.deliver', '8 % of webhooks.deliver failed in the last 5 minutes', 0.08)] },
        { name: 'readers', kind: 'no_worker', threshold: null, for: 60, state: 'inactive', instances: [] },
        { name: 'backlog', kind: 'backlog_age', threshold: 600, for: 60, state: p('x') ? 'firing' : 'pending', instances: [{ ...instance(p('alert-target') ?? 'batch', p('alert-summary') ?? 'The oldest message of batch waits for 11 minutes', 660), state: 'pending' }] },
        { name: p('alert-rule') ?? 'chords', kind: 'stuck_chord', threshold: 1800, for: null, state: 'inactive', instances: [] },
      ],
      resolved: [{ rule: 'readers', target: p('resolved-target') ?? 'media', fired_at: now - 4000, resolved_at: now - 3700, summary: p('resolved-summary') ?? 'No worker read media' }],
      webhook: { configured: true, queued: 0, delivered: 12, failed: 1, dropped: 0, last_error: p('webhook-error') ?? 'the webhook answered 502' },
    };
  }

  auditPage(params) {
    const want = (key, field) => !params.get(key) || String(field ?? '').includes(params.get(key));
    const all = this.audit.filter((e) => want('user', e.user) && want('action', e.action) && (!params.get('outcome') || e.outcome === params.get('outcome')));
    const from = params.get('cursor') ? all.findIndex((e) => String(e.id) === params.get('cursor')) + 1 : 0;
    const limit = Number(params.get('limit') ?? 50);
    const items = all.slice(from, from + limit);
    return { items, next_cursor: from + limit < all.length ? String(items.at(-1).id) : null };
  }

  known(id) {
    const task = this.world.tasks.get(id);
    if (!task) return null;
    const json = (repr) => (repr ?? '').replaceAll("'", '"').replace(/^\((.*?),?\)$/s, '[$1]').replaceAll('True', 'true').replaceAll('None', 'null');
    const whole = (text) => { try { JSON.parse(text); return text; } catch { return null; } };
    const args = whole(json(task.args));
    const kwargs = whole(json(task.kwargs));
    return { id, name: task.name, args, kwargs, source: args && kwargs ? 'event' : null, problem: args && kwargs ? null : `${args ? 'kwargs' : 'args'}: holds what is no literal` };
  }

  workflow(root) {
    const members = [...this.world.tasks.values()].filter((t) => (t.root_id ?? t.id) === root || t.id === root);
    if (!members.length) return null;
    const nodes = new Map(members.map((t) => [t.id, { ...t, children: [] }]));
    const tree = [];
    for (const node of nodes.values()) (node.id !== root && nodes.get(node.parent_id) ? nodes.get(node.parent_id).children : tree).push(node);
    const by_state = {};
    for (const t of members) by_state[t.state] = (by_state[t.state] ?? 0) + 1;
    return { version: this.world.version, root, total: members.length, by_state, tree };
  }

  answers(name) {
    const worker = this.world.workers.get(name);
    if (!worker) return null;
    const p = this.hostile;
    const evil = p('worker') === name;
    const request = (id) => {
      const t = this.world.tasks.get(id) ?? {};
      return { id, name: t.name, args: t.args, kwargs: t.kwargs, hostname: name, time_start: t.started, acknowledged: true, worker_pid: worker.pid + 3, delivery_info: { exchange: '', routing_key: t.queue, priority: 0, redelivered: false } };
    };
    const queues = [...(worker.internal.queues ?? QUEUES.filter((q) => q !== 'media')), ...(this.extraQueues.get(name) ?? [])].map((q) => ({ name: q, exchange: { name: '', type: 'direct' }, routing_key: q, durable: true, max_priority: q === 'celery' ? 10 : null }));
    const names = ['shop.orders.charge_card', 'shop.mail.send_receipt', 'media.thumbnails.resize', 'webhooks.deliver', 'demo.add', 'demo.mul', 'demo.xsum', 'demo.total', 'demo.pipeline', 'search.reindex', 'reports.nightly.build', 'billing.invoice.render_pdf'];
    const size = worker.internal.slots;
    return {
      name, source: 'inspect', answered_at: this.world.now,
      answers: {
        active: worker.running.map(request), reserved: worker.internal.waiting.slice(0, 30).map((job) => ({ ...request(job.task.id), time_start: null })),
        scheduled: [...this.world.tasks.values()].filter((t) => t.worker === name && t.state === 'RECEIVED' && t.eta).slice(0, 20).map((t) => ({ eta: t.eta, priority: 6, request: request(t.id) })),
        revoked: [...this.world.tasks.values()].filter((t) => t.state === 'REVOKED').slice(-12).map((t) => t.id), active_queues: evil ? [{ name: p('q'), exchange: { name: p('ex'), type: p('type') }, routing_key: p('rk'), durable: false, max_priority: p('prio') }] : queues,
        registered: evil ? [p('registered'), `${p('limited')} [rate_limit=${p('limit')}]`] : names.map((n) => (this.limits.has(n) ? `${n} [rate_limit=${this.limits.get(n)}]` : n)),
        stats: { total: evil ? { [p('total')]: 3 } : { 'demo.add': 412, 'shop.mail.send_receipt': 318, 'webhooks.deliver': 190 }, pid: worker.pid, clock: '4711', uptime: Math.round(this.world.now - worker.first_seen), prefetch_count: size * 4, pool: { implementation: evil ? p('pool') : worker.sw_ident === 'celeriac' ? 'celeriac' : 'celery.concurrency.prefork:TaskPool', 'max-concurrency': size, processes: Array.from({ length: size }, (_, i) => worker.pid + i + 1), 'max-tasks-per-child': 'N/A', timeouts: [0, 600] }, ...(this.pools.get(name) ? { autoscaler: this.pools.get(name) } : {}), broker: { hostname: 'rabbit.internal', port: 5672, transport: 'amqp', userid: 'shop' }, rusage: { utime: 12.4, stime: 2.1, maxrss: 81_204 } },
        conf: evil ? { [p('setting')]: p('value') } : { broker_url: 'amqp://shop:********@rabbit.internal:5672//', result_backend: 'redis://cache.internal/0', task_acks_late: true, worker_prefetch_multiplier: 4, task_routes: { 'shop.mail.*': { queue: 'mail' } }, timezone: 'UTC', include: ['shop.orders.tasks', 'shop.mail.tasks'] },
      },
    };
  }

  // ── doing ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Answers `POST actions/<action>`: `[status, body]`. */
  act(action, body) {
    if (!ACTIONS.includes(action)) return [404, problem('Not found', `there is no action ${action}`)];
    if (!this.can().includes(action)) {
      this.write(this.role, { action, target: body.id ?? body.queue ?? null, params: body, outcome: 'denied' });
      return [403, problem('Not allowed', this.readOnly ? READ_ONLY : `needs the role ${ADMIN.includes(action) ? 'admin' : 'operator'}`)];
    }
    try {
      const { message, results = [] } = this.effect(action, body);
      const ok = results.every((r) => r.ok);
      this.write(this.role, { action, target: body.id ?? body.queue ?? body.name ?? body.workers?.join(', ') ?? null, params: body, outcome: ok ? 'ok' : 'failed', detail: ok ? null : results.find((r) => !r.ok)?.said });
      return [200, { action, ok, message, results }];
    } catch (refusal) {
      return [422, problem('Not usable', refusal.message)];
    }
  }

  effect(action, body) {
    const one = (target, part = {}) => [{ target, ok: true, said: null, task_id: null, count: null, ...part }];
    const each = (message, said) => ({ message, results: (body.workers ?? [...this.world.workers.keys()]).flatMap((w) => one(w, { ok: this.world.workers.get(w)?.online ?? false, said })) });
    switch (action) {
      case 'task.retry': {
        const task = this.world.tasks.get(body.id);
        if (!task) throw new Error('id: no such task');
        if (!body.args && this.known(body.id).problem) throw new Error(this.known(body.id).problem);
        const id = this.world.again(task, body);
        return { message: `Retried ${task.name} as ${id}`, results: one(body.id, { task_id: id }) };
      }
      case 'task.revoke':
        this.world.revoke(body.id, body.terminate === true);
        return { message: body.terminate ? 'Terminated' : 'Revoked', results: one(body.id) };
      case 'task.rate_limit':
        this.limits.set(body.name, body.rate_limit);
        return each(`Rate limit of ${body.name} is ${body.rate_limit}`, 'new rate limit set successfully');
      case 'task.time_limit':
        return each(`Time limits of ${body.name} are set`, 'time limits set successfully');
      case 'queue.pause':
        this.paused.set(body.queue, { by: 'mock', at: this.world.now, reason: body.reason ?? null, workers: [] });
        return { message: `Paused ${body.queue}`, results: one(body.queue) };
      case 'queue.resume':
        this.paused.delete(body.queue);
        return { message: `Resumed ${body.queue}`, results: one(body.queue) };
      case 'queue.purge':
        if (body.confirm !== body.queue) throw new Error('confirm: must be the name of the queue');
        return { message: `Purged 12 messages from ${body.queue}`, results: one(body.queue, { count: 12 }) };
      case 'dead_letter.requeue':
      case 'dead_letter.drop': {
        const all = this.dead.get(body.queue) ?? [];
        const gone = all.filter((l) => !body.ids || body.ids.includes(l.id));
        this.dead.set(body.queue, all.filter((l) => !gone.includes(l)));
        return { message: `${action.endsWith('drop') ? 'Dropped' : 'Sent again'}: ${gone.length}`, results: one(body.queue, { count: gone.length }) };
      }
      case 'worker.add_consumer':
        for (const w of body.workers) this.extraQueues.set(w, [...(this.extraQueues.get(w) ?? []), body.queue]);
        return each(`Added ${body.queue}`, `add consumer ${body.queue}`);
      case 'worker.cancel_consumer':
        for (const w of body.workers) this.extraQueues.set(w, (this.extraQueues.get(w) ?? []).filter((q) => q !== body.queue));
        return each(`No longer reading ${body.queue}`, `no longer consuming from ${body.queue}`);
      case 'worker.pool_grow':
      case 'worker.pool_shrink':
        for (const w of body.workers) this.world.workers.get(w).internal.slots += action.endsWith('grow') ? body.n : -body.n;
        return each(`${action.endsWith('grow') ? 'Grew' : 'Shrank'} the pool by ${body.n}`, 'pool will grow');
      case 'worker.autoscale':
        return { message: 'Autoscaling was refused', results: body.workers.map((w) => ({ target: w, ok: false, said: "ValueError('Autoscale not enabled')", task_id: null, count: null })) };
      case 'worker.shutdown':
        for (const w of body.workers) this.world.kill(w);
        return { message: 'Shutting down', results: body.workers.flatMap((w) => one(w)) };
      case 'schedule.run':
        return { message: `Sent ${body.name}`, results: one(body.name, { task_id: [...this.world.tasks.keys()].at(-1) }) };
      default:
        return this.schedule(action, body, one, each);
    }
  }

  schedule(action, body, one, each) {
    if (!action.startsWith('schedule.')) return each(action, 'done');
    const of = this.schedules.find((s) => s.name === body.schedule);
    const known = of.entries.find((e) => e.name === body.name);
    if (action === 'schedule.edit') {
      if (!body.entry.task) throw new Error('entry.task: is needed');
      const made = entry(body.name, body.entry.task, body.entry.schedule, known?.last_run ?? null, { ...body.entry, edited: true });
      of.entries = known ? of.entries.map((e) => (e === known ? made : e)) : [...of.entries, made];
    } else if (action === 'schedule.revert') {
      known.edited = false;
    } else {
      known.enabled = action === 'schedule.enable';
    }
    return { message: `${body.name}: ${action.slice(9)}`, results: one(body.name) };
  }

  bulk(body) {
    if (!this.can().includes(body.action)) return [403, problem('Not allowed', this.readOnly ? READ_ONLY : 'needs the role operator')];
    const ids = body.ids ?? [...this.world.tasks.values()].filter((t) => (body.failure ? t.state === 'FAILURE' && t.name === body.failure.name && (t.exception ?? '').startsWith(body.failure.exception) : fits(t, body.filter ?? {}))).map((t) => t.id);
    if (body.dry_run) return [200, { total: ids.length, ids: ids.slice(0, 10), more: false }];
    const job = { id: `job-${this.jobs.length + 1}`, action: body.action, state: 'running', user: 'mock', started_at: this.world.now, ended_at: null, total: ids.length, done: 0, succeeded: 0, failed: 0, errors: [], created: [] };
    this.jobs.unshift(job);
    const step = () => {
      for (const id of ids.slice(job.done, job.done + Math.max(5, Math.ceil(ids.length / 8)))) {
        const [status, answer] = body.action === 'task.retry' ? this.act('task.retry', { id }) : this.act('task.revoke', { id, terminate: body.terminate });
        job.done++;
        if (status === 200) job.succeeded++;
        else {
          job.failed++;
          if (job.errors.length < 20) job.errors.push({ target: id, said: answer.detail });
        }
      }
      if (job.done >= job.total || job.state === 'cancelled') Object.assign(job, { state: job.state === 'cancelled' ? 'cancelled' : 'done', ended_at: this.world.now });
      else setTimeout(step, 150);
    };
    setTimeout(step, 150);
    return [202, job];
  }

  cancel(id) {
    const job = this.jobs.find((j) => j.id === id);
    if (job?.state === 'running') job.state = 'cancelled';
    return job ?? null;
  }
}

function entry(name, task, schedule, last_run, part) {
  return { name, task, schedule, args: null, kwargs: null, options: null, enabled: true, edited: false, last_run, claimed: false, problem: null, ...part };
}

function fits(task, filter) {
  const text = [task.id, task.name, task.args, task.kwargs, task.result, task.exception].join(' ').toLowerCase();
  return (!filter.state || filter.state.includes(task.state)) && (!filter.worker || task.worker === filter.worker) && (!filter.name || (task.name ?? '').includes(filter.name.replaceAll('*', ''))) && (!filter.q || text.includes(filter.q.toLowerCase()));
}

function aggregate(key, tasks, window) {
  const failed = tasks.filter((t) => t.state === 'FAILURE').length;
  return { key, ended: tasks.length, succeeded: tasks.length - failed, failed, retried: tasks.filter((t) => t.retries).length, per_second: tasks.length / window, failure_rate: tasks.length ? failed / tasks.length : null, runtime: times(tasks.map((t) => (t.succeeded ?? t.failed) - t.started)), wait: times(tasks.map((t) => t.started - t.received)) };
}

function times(values) {
  const sorted = values.filter((v) => Number.isFinite(v)).sort((a, b) => a - b);
  const at = (share) => (sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : null);
  return { count: sorted.length, p50: at(0.5), p95: at(0.95), p99: at(0.99), max: sorted.at(-1) ?? null };
}

function problem(title, detail) {
  return { type: 'about:blank', title, detail };
}
