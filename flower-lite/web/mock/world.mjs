// A made-up Celery cluster: workers that take tasks, run, retry, fail and die, told as events over simulated time.
// Seeded, so that two runs with the same options tell the same story. No IO here; `server.mjs` serves it.

const NAMES = [
  { name: 'shop.orders.charge_card', weight: 14, run: 0.18, fail: 0.05, queue: 'payments', call: (r) => [`(${orderId(r)},)`, `{'amount': '${(r() * 400).toFixed(2)}', 'currency': 'EUR', 'capture': True}`], result: (r) => `{'charge': 'ch_${hex(r, 12)}', 'captured': True}`, error: declined },
  { name: 'shop.mail.send_receipt', weight: 16, run: 0.09, fail: 0.01, retry: 0.06, queue: 'mail', call: (r) => [`('user${Math.floor(r() * 9000)}@example.org',)`, `{'template': 'receipt', 'order_id': ${orderId(r)}, 'locale': '${pick(r, ['en', 'de', 'cs', 'ja'])}'}`], result: () => 'None', error: refused },
  { name: 'media.thumbnails.resize', weight: 12, run: 1.1, fail: 0.02, queue: 'media', call: (r) => [`('uploads/${hex(r, 8)}.jpg', ${pick(r, [320, 640, 1280])})`, "{'quality': 82, 'formats': ['webp', 'avif']}"], result: (r) => `['cdn/${hex(r, 8)}.webp', 'cdn/${hex(r, 8)}.avif']`, error: brokenImage },
  { name: 'webhooks.deliver', weight: 10, run: 0.35, fail: 0.02, retry: 0.22, queue: 'celery', call: (r) => [`('https://hooks.example.com/${hex(r, 6)}', {'event': 'order.paid', 'id': ${orderId(r)}})`, '{}'], result: () => '204', error: timeout },
  { name: 'demo.add', weight: 20, run: 0.002, fail: 0, queue: 'celery', call: (r) => [`(${int(r, 100)}, ${int(r, 100)})`, '{}'], result: (r) => String(int(r, 200)) },
  { name: 'demo.mul', weight: 10, run: 0.0016, fail: 0, queue: 'celery', call: (r) => [`(${int(r, 100)}, ${int(r, 100)})`, '{}'], result: (r) => String(int(r, 9000)) },
  { name: 'search.reindex', weight: 4, run: 3.4, fail: 0.04, queue: 'batch', call: (r) => ['()', `{'index': 'products-${int(r, 12)}', 'since': datetime.datetime(2026, 11, ${1 + int(r, 23)}, 4, 0, tzinfo=datetime.timezone.utc), 'batch': 500}`], result: (r) => `{'indexed': ${int(r, 40000)}, 'skipped': ${int(r, 40)}, 'took': ${(r() * 9).toFixed(3)}}`, error: memory },
  { name: 'reports.nightly.build', weight: 1.2, run: 14, fail: 0.05, queue: 'batch', progress: true, call: (r) => [`('2026-11-${String(1 + int(r, 23)).padStart(2, '0')}',)`, "{'sections': ['sales', 'refunds', 'stock'], 'recipients': ['ops@example.org']}"], result: (r) => `'reports/${hex(r, 10)}.pdf'`, error: missingKey },
  { name: 'billing.invoice.render_pdf', weight: 6, run: 0.6, fail: 0.015, queue: 'celery', call: (r) => [`(UUID('${uuid(r)}'),)`, "{'paper': 'A4'}"], result: (r) => `<Invoice ${int(r, 90000)} pages=${1 + int(r, 4)}>`, error: missingKey },
];
const CHORD = { header: 'demo.xsum', body: 'demo.total' };

export class World {
  constructor({ now, rate = 8, seed = 20261124, hostile = false }) {
    this.random = prng(seed);
    this.rate = rate;
    this.now = now;
    this.startedAt = now;
    this.clock = 1000;
    this.version = 1;
    this.tasks = new Map();
    this.workers = new Map();
    this.queue = new Heap();
    this.series = new Map();
    this.events = { received: 0, dropped: 0, undecodable: 0, lag: 0.04 };
    this.evicted = 0;
    this.connected = true;
    this.changed = { tasks: new Set(), workers: new Set() };
    const sw = { sw_ident: 'py-celery', sw_ver: '5.7.0', sw_sys: 'Linux' };
    this.addWorker('celery@worker-1', { ...sw, slots: 6, pid: 4117 });
    this.addWorker('celery@worker-2', { ...sw, slots: 6, pid: 4120 });
    this.addWorker('media@gpu-1', { ...sw, slots: 4, pid: 991, queues: ['media'] });
    this.addWorker('celery@rust-1', { sw_ident: 'celeriac', sw_ver: '0.1.0', sw_sys: 'Linux', slots: 8, pid: 20412 });
    this.addWorker('celery@batch-7', { ...sw, slots: 2, pid: 713, queues: ['batch'] });
    this.at(now, () => this.arrive());
    if (hostile) this.addHostile(hostile);
  }

  /** Runs the story up to `time`. */
  advance(time) {
    while (this.queue.size && this.queue.peek().at <= time) {
      const { at, run } = this.queue.pop();
      this.now = Math.max(this.now, at);
      run();
    }
    this.now = Math.max(this.now, time);
  }

  at(time, run) {
    this.queue.push({ at: time, run });
  }

  addWorker(name, { slots, pid, queues, ...sw }) {
    const worker = {
      name, online: true, last_heartbeat: this.now, freq: 2, pid, sw_ident: sw.sw_ident, sw_ver: sw.sw_ver, sw_sys: sw.sw_sys, loadavg: [0.4, 0.5, 0.4], active: 0, processed: 0,
      clock: this.clock, drift: 0.002, counts: { received: 0, started: 0, succeeded: 0, failed: 0, retried: 0, revoked: 0 }, first_seen: this.now, running: [],
    };
    Object.defineProperty(worker, 'internal', { value: { slots, queues: queues ?? null, waiting: [], base: this.random() }, enumerable: false });
    this.workers.set(name, worker);
    this.beat(worker);
  }

  beat(worker) {
    if (!worker.online) return;
    worker.last_heartbeat = this.now;
    worker.active = worker.running.length;
    worker.clock = ++this.clock;
    worker.drift = (this.random() - 0.5) * 0.02;
    const load = worker.internal.base + worker.running.length * 0.35 + this.random() * 0.2;
    worker.loadavg = worker.loadavg.map((old, i) => Number((old + (load - old) / [2, 8, 20][i]).toFixed(2)));
    this.events.received++;
    this.changed.workers.add(worker.name);
    this.at(this.now + worker.freq, () => this.beat(worker));
  }

  kill(name) {
    const worker = this.workers.get(name);
    if (!worker) return;
    worker.online = false;
    this.changed.workers.add(name);
  }

  arrive() {
    const r = this.random;
    const wave = 1 + 0.45 * Math.sin(this.now / 37) + 0.2 * Math.sin(this.now / 7.3);
    if (r() < 0.006) this.submitChord();
    else if (r() < 0.03) this.submitChain();
    else this.submit(weighted(r, NAMES), {});
    this.at(this.now + -Math.log(1 - r()) / (this.rate * wave), () => this.arrive());
  }

  submitChain() {
    const charge = this.submit(NAMES[0], {});
    charge.then = () => {
      const mail = this.submit(NAMES[1], { parent: charge });
      mail.then = () => this.submit(NAMES[8], { parent: mail });
    };
  }

  submitChord({ run = 0.4 } = {}) {
    const r = this.random;
    const size = 4 + int(r, 9);
    const doomed = r() < 0.3;
    let left = size;
    const root = this.submit({ name: 'demo.pipeline', run: 0.01, fail: 0, queue: 'celery', call: () => [`(${size},)`, '{}'], result: () => `<AsyncResult: ${uuid(r)}>` }, {});
    root.then = () => {
      for (let i = 0; i < size; i++) {
        const fail = doomed && i === size - 1 ? 1 : 0;
        const part = this.submit({ name: CHORD.header, run, fail, queue: 'celery', call: () => [`([${Array.from({ length: 6 }, () => int(r, 100)).join(', ')}],)`, '{}'], result: () => String(int(r, 600)), error: overflow }, { parent: root });
        part.then = () => {
          if (--left === 0) this.submit({ name: CHORD.body, run: 0.02, fail: 0, queue: 'celery', call: () => ['([' + Array.from({ length: size }, () => int(r, 600)).join(', ') + '],)', '{}'], result: () => String(int(r, 5000)) }, { parent: part });
        };
      }
    };
    return root.task;
  }

  submit(kind, { parent = null }) {
    const r = this.random;
    const id = uuid(r);
    const [args, kwargs] = kind.call(r);
    const eta = kind.name === 'shop.mail.send_receipt' && r() < 0.04 ? this.now + 20 + r() * 60 : null;
    const task = emptyTask(id);
    Object.assign(task, {
      name: kind.name, queue: kind.queue, args, kwargs, eta: eta ? new Date(eta * 1000).toISOString() : null, root_id: parent ? parent.task.root_id : id, parent_id: parent?.task.id ?? null,
    });
    Object.defineProperty(task, 'detail', { value: { traceback: null, timeline: [], children: [], parent: task.parent_id, root: task.root_id }, enumerable: false });
    const job = { task, kind, then: null, attempt: 0, eta };
    this.tasks.set(id, task);
    if (parent) parent.task.detail.children.push(id);
    this.event(task, 'sent', { state: 'SENT', detail: { queue: kind.queue, exchange: '', routing_key: kind.queue }, worker: null });
    this.at(this.now + 0.002 + r() * 0.03, () => this.receive(job));
    return job;
  }

  /** Sends a task again, with other arguments if there are some; says its new id. */
  again(task, { args, kwargs }) {
    const kind = NAMES.find((known) => known.name === task.name) ?? { ...NAMES[4], name: task.name, queue: task.queue ?? 'celery' };
    const call = () => [args ? `(${args.map((a) => JSON.stringify(a)).join(', ')},)` : task.args, kwargs ? JSON.stringify(kwargs) : task.kwargs];
    return this.submit({ ...kind, call, fail: 0, retry: 0 }, {}).task.id;
  }

  /** As workers do when they are told: what waits is thrown away, what runs is ended where that was asked for. */
  revoke(id, terminate) {
    const task = this.tasks.get(id);
    if (!task || task.ready || (task.state === 'STARTED' && !terminate)) return;
    const worker = this.workers.get(task.worker ?? '') ?? null;
    if (worker) worker.running = worker.running.filter((other) => other !== id);
    this.event(task, 'revoked', { state: 'REVOKED', worker, detail: { terminated: terminate, signum: terminate ? 'SIGTERM' : null, expired: false }, end: true });
  }

  receive(job) {
    if (job.task.ready) return;
    const candidates = [...this.workers.values()].filter((w) => w.online && (w.internal.queues ? w.internal.queues.includes(job.task.queue) : job.task.queue !== 'media'));
    const worker = candidates[int(this.random, candidates.length)];
    if (!worker) {
      this.at(this.now + 1, () => this.receive(job));
      return;
    }
    this.event(job.task, 'received', { state: 'RECEIVED', worker, detail: { retries: job.attempt, ...(job.eta ? { eta: job.task.eta } : {}) } });
    if (this.random() < 0.004) {
      this.event(job.task, 'revoked', { state: 'REVOKED', worker, detail: { terminated: false, signum: null, expired: false }, end: true });
      return;
    }
    if (job.eta && job.eta > this.now) this.at(job.eta, () => this.offer(job, worker));
    else this.offer(job, worker);
  }

  offer(job, worker) {
    if (worker.running.length < worker.internal.slots) this.start(job, worker);
    else worker.internal.waiting.push(job);
  }

  start(job, worker) {
    const { task, kind } = job;
    if (task.ready) return;
    const r = this.random;
    this.event(task, 'started', { state: 'STARTED', worker });
    worker.running.push(task.id);
    const slow = r() < 0.02 ? 6 : 1;
    const run = kind.run * (worker.name.includes('rust') ? 0.4 : 1) * Math.exp((r() + r() + r() - 1.5) * 1.1) * slow;
    if (kind.progress) for (const step of [0.25, 0.5, 0.75]) this.at(this.now + run * step, () => task.state === 'STARTED' || task.state === 'PROGRESS' ? this.event(task, 'progress', { state: 'PROGRESS', worker, detail: { done: step * 100, total: 100 } }) : null);
    this.at(this.now + run, () => this.finish(job, worker, run));
  }

  finish(job, worker, run) {
    const { task, kind } = job;
    const r = this.random;
    worker.running = worker.running.filter((id) => id !== task.id);
    if (!worker.online || task.ready) return;
    worker.processed++;
    if (kind.retry && r() < kind.retry && job.attempt < 3) {
      const error = kind.error(r, task);
      job.attempt++;
      task.exception = error.repr;
      task.detail.traceback = error.traceback;
      task.retries = job.attempt;
      this.event(task, 'retried', { state: 'RETRY', worker, detail: { exception: error.repr } });
      this.at(this.now + 2 ** job.attempt + r(), () => this.receive(job));
    } else if (r() < kind.fail) {
      const error = kind.error(r, task);
      task.exception = error.repr;
      task.detail.traceback = error.traceback;
      this.event(task, 'failed', { state: 'FAILURE', worker, detail: { exception: error.repr }, end: true });
    } else {
      task.result = kind.result(r);
      task.runtime = run;
      this.event(task, 'succeeded', { state: 'SUCCESS', worker, detail: { runtime: run, result: task.result }, end: true });
      job.then?.();
    }
    const next = worker.internal.waiting.shift();
    if (next) this.start(next, worker);
  }

  event(task, type, { state, worker, detail = null, end = false }) {
    task.state = state;
    if (worker) task.worker = worker.name;
    task.timestamp = this.now;
    task.clock = ++this.clock;
    task.ready = end;
    if (type in task) task[type] = this.now;
    task.detail.timeline.push({ state, type: `task-${type}`, timestamp: this.now, worker: worker?.name ?? 'gen4242@web-1', clock: task.clock, detail });
    if (worker && type in worker.counts) worker.counts[type]++;
    this.events.received++;
    const second = Math.floor(this.now);
    let point = this.series.get(second);
    if (!point) this.series.set(second, (point = { t: second, received: 0, succeeded: 0, failed: 0, retried: 0 }));
    if (type in point) point[type]++;
    this.changed.tasks.add(task.id);
    if (worker) this.changed.workers.add(worker.name);
  }

  /** Puts `payload` into every field that an event, a task or a worker can carry. */
  addHostile(payload) {
    const p = (field) => `${payload}${field}`;
    const worker = { slots: 1, pid: 666, sw_ident: p('ident'), sw_ver: p('ver'), sw_sys: p('sys'), queues: ['hostile'] };
    this.addWorker(p('worker'), worker);
    const evil = this.workers.get(p('worker'));
    const make = (id, part) => {
      const task = Object.assign(emptyTask(id), {
        name: p('name'), queue: p('queue'), worker: evil.name, args: `('${p('args')}', [1, {'${p('key')}': <${p('object')}>}])`, kwargs: `{'${p('kwarg')}': '${p('value')}'}`,
        eta: p('eta'), expires: p('expires'), root_id: p('root'), parent_id: p('parent'), retries: 2, sent: this.now - 3, received: this.now - 2, started: this.now - 1, timestamp: this.now, clock: ++this.clock, ...part,
      });
      const timeline = ['sent', 'received', 'started', p('type')].map((type, i) => ({ state: i === 3 ? task.state : ['SENT', 'RECEIVED', 'STARTED'][i], type: `task-${type}`, timestamp: this.now - 3 + i, worker: evil.name, clock: this.clock, detail: { [p('detail-key')]: p('detail'), nested: { [p('deep')]: [p('deeper')] } } }));
      Object.defineProperty(task, 'detail', { enumerable: false, value: { traceback: `Traceback (most recent call last):\n  File "${p('file')}", line 1, in ${p('func')}\n    ${p('code')}\n${p('error')}`, timeline, children: [p('child')], parent: p('parent'), root: p('root') } });
      this.tasks.set(id, task);
      this.changed.tasks.add(id);
      return task;
    };
    make(p('id'), { state: 'FAILURE', exception: p('exception'), failed: this.now, ready: true });
    make('hostile-success', { state: 'SUCCESS', result: `'${p('result')}'`, succeeded: this.now, runtime: 1, ready: true });
    make('hostile-state', { state: p('STATE'), ready: false });
    evil.running.push('hostile-state');
    evil.counts.failed = 1;
  }
}

function emptyTask(id) {
  return {
    id, name: null, state: 'PENDING', worker: null, queue: null, args: null, kwargs: null, result: null, exception: null, runtime: null, retries: 0, eta: null, expires: null, root_id: null,
    parent_id: null, sent: null, received: null, started: null, succeeded: null, failed: null, retried: null, revoked: null, rejected: null, timestamp: null, clock: null, ready: false,
  };
}

// ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────

const VENV = '/srv/shop/.venv/lib/python3.11/site-packages';
const RUN = [
  [`${VENV}/celery/app/trace.py`, 564, 'trace_task', ['R = retval = fun(*args, **kwargs)', '             ^^^^^^^^^^^^^^^^^^^^']],
  [`${VENV}/celery/app/trace.py`, 883, '__protected_call__', ['return self.run(*args, **kwargs)', '       ^^^^^^^^^^^^^^^^^^^^^^^^^']],
];

function traceback(frames, last) {
  const text = [...RUN, ...frames].map(([file, line, where, code]) => `  File "${file}", line ${line}, in ${where}\n${code.map((c) => `    ${c}`).join('\n')}`);
  return `Traceback (most recent call last):\n${text.join('\n')}\n${last}`;
}

function declined(r, task) {
  const why = pick(r, ['insufficient_funds', 'expired_card', 'do_not_honor']);
  return {
    repr: `PaymentDeclined('${why}')`,
    traceback: traceback([
      ['/srv/shop/orders/tasks.py', 48, 'charge_card', ['charge = gateway.charge(order, amount=amount, capture=capture)']],
      ['/srv/shop/payments/gateway.py', 112, 'charge', ['self._raise_for_decline(response)']],
      ['/srv/shop/payments/gateway.py', 87, '_raise_for_decline', ['raise PaymentDeclined(response["decline_code"])']],
    ], `shop.payments.errors.PaymentDeclined: ${why}`),
    task,
  };
}

function refused() {
  return {
    repr: "ConnectionRefusedError(111, 'Connection refused')",
    traceback: traceback([
      ['/srv/shop/mail/tasks.py', 31, 'send_receipt', ['with smtp_connection() as smtp:']],
      ['/usr/lib/python3.11/smtplib.py', 255, '__init__', ['(code, msg) = self.connect(host, port)', '              ^^^^^^^^^^^^^^^^^^^^^^^^']],
      ['/usr/lib/python3.11/socket.py', 836, 'create_connection', ['sock.connect(sa)']],
    ], 'ConnectionRefusedError: [Errno 111] Connection refused'),
  };
}

function timeout() {
  const inner = traceback([
    ['/srv/shop/webhooks/tasks.py', 22, 'deliver', ['response = session.post(url, json=event, timeout=5)']],
    [`${VENV}/requests/sessions.py`, 637, 'post', ['return self.request("POST", url, data=data, json=json, **kwargs)']],
    [`${VENV}/urllib3/connectionpool.py`, 536, '_make_request', ['response = conn.getresponse()']],
  ], 'TimeoutError: timed out');
  return { repr: "DeliveryFailed('no answer within 5 s')", traceback: `${inner}\n\nThe above exception was the direct cause of the following exception:\n\n${traceback([['/srv/shop/webhooks/tasks.py', 26, 'deliver', ['raise DeliveryFailed("no answer within 5 s") from error']]], 'webhooks.errors.DeliveryFailed: no answer within 5 s')}` };
}

function brokenImage() {
  return { repr: "UnidentifiedImageError('cannot identify image file <_io.BytesIO object at 0x7f31c2a4f0b0>')", traceback: traceback([['/srv/media/thumbnails.py', 19, 'resize', ['with Image.open(source) as image:']], [`${VENV}/PIL/Image.py`, 3498, 'open', ['raise UnidentifiedImageError(msg)']]], 'PIL.UnidentifiedImageError: cannot identify image file <_io.BytesIO object at 0x7f31c2a4f0b0>') };
}

function memory() {
  return { repr: "TransportError(429, 'circuit_breaking_exception', '[parent] Data too large')", traceback: traceback([['/srv/shop/search/tasks.py', 64, 'reindex', ['helpers.bulk(client, actions(index, since), chunk_size=batch)']], [`${VENV}/elastic_transport/_transport.py`, 342, 'perform_request', ['raise api_error']]], "TransportError(429, 'circuit_breaking_exception', '[parent] Data too large')") };
}

function missingKey(r) {
  const key = pick(r, ['vat_id', 'shipping', 'warehouse']);
  return { repr: `KeyError('${key}')`, traceback: traceback([['/srv/shop/billing/invoice.py', 77, 'render', [`total = row['${key}'] * rate`, `        ~~~^^^^^^^^^^`]]], `KeyError: '${key}'`) };
}

function overflow() {
  return { repr: "OverflowError('sum exceeds 64 bit')", traceback: traceback([['/srv/demo/tasks.py', 40, 'xsum', ['raise OverflowError("sum exceeds 64 bit")']]], 'OverflowError: sum exceeds 64 bit') };
}

// ── chance ───────────────────────────────────────────────────────────────────────────────────────────────────────

function prng(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function int(r, n) {
  return Math.floor(r() * n);
}
function pick(r, list) {
  return list[int(r, list.length)];
}
function orderId(r) {
  return 100000 + int(r, 900000);
}
function hex(r, n) {
  return Array.from({ length: n }, () => int(r, 16).toString(16)).join('');
}
function uuid(r) {
  return `${hex(r, 8)}-${hex(r, 4)}-4${hex(r, 3)}-${pick(r, ['8', '9', 'a', 'b'])}${hex(r, 3)}-${hex(r, 12)}`;
}
function weighted(r, list) {
  let x = r() * list.reduce((n, item) => n + item.weight, 0);
  return list.find((item) => (x -= item.weight) < 0) ?? list[0];
}

class Heap {
  items = [];
  get size() {
    return this.items.length;
  }
  peek() {
    return this.items[0];
  }
  push(item) {
    const a = this.items;
    let i = a.push(item) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (a[parent].at <= item.at) break;
      a[i] = a[parent];
      i = parent;
    }
    a[i] = item;
  }
  pop() {
    const a = this.items;
    const top = a[0];
    const last = a.pop();
    if (a.length) {
      let i = 0;
      for (;;) {
        let child = 2 * i + 1;
        if (child >= a.length) break;
        if (child + 1 < a.length && a[child + 1].at < a[child].at) child++;
        if (a[child].at >= last.at) break;
        a[i] = a[child];
        i = child;
      }
      a[i] = last;
    }
    return top;
  }
}
