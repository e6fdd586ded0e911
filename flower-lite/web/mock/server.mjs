// Serves flower-lite's JSON and stream from a made-up cluster, and the built pages as the real program does: under a
// prefix, with the same Content-Security-Policy. For developing the pages and for their browser tests; Node only.
//
//   node mock/server.mjs [--port 5556] [--prefix /dashboard] [--rate 8] [--history 600] [--hostile] [--seed N]
//                        [--role admin] [--read-only]
//
// `POST /__mock/{drop-streams,resync,disconnect,connect,dropped,freeze,thaw,kill?worker=,role?role=,read-only,
// control,log-out}` makes things happen.

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Control } from './control.mjs';
import { World } from './world.mjs';

const DIST = fileURLToPath(new URL('../dist/', import.meta.url));
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'";
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml', '.json': 'application/json' };
export const PAYLOAD = `"'><img src=x onerror=window.__xss=1><script>window.__xss=1</script>\u202Ejavascript:alert(1){{7*7}}\${7*7}\u0000 `;
const RING = 120; // ticks of 250 ms that a reconnecting client can resume over

const option = (name, fallback) => {
  const i = process.argv.indexOf(`--${name}`);
  return i < 0 ? fallback : (process.argv[i + 1] ?? '');
};

export function startMock({ port = 0, prefix = '', rate = 8, history = 600, hostile = false, seed, role = 'admin', readOnly = false } = {}) {
  const begin = Date.now() / 1000;
  const world = new World({ now: begin - history, rate, hostile: hostile ? PAYLOAD : false, ...(seed ? { seed } : {}) });
  world.advance(begin - 45);
  world.kill('celery@batch-7');
  world.advance(begin);
  const control = new Control(world, { role, readOnly, hostile: hostile ? PAYLOAD : false });
  let ring = [];
  let frozen = false;
  const streams = new Set();

  const tick = setInterval(() => {
    if (frozen) return;
    world.advance(Date.now() / 1000);
    const { tasks, workers } = world.changed;
    world.changed = { tasks: new Set(), workers: new Set() };
    world.version++;
    ring.push({ version: world.version, tasks, workers });
    if (ring.length > RING) ring = ring.slice(-RING);
    while (world.tasks.size > 120_000) {
      world.tasks.delete(world.tasks.keys().next().value);
      world.evicted++;
    }
    for (const second of world.series.keys()) {
      if (second >= world.now - 400) break;
      world.series.delete(second);
    }
    for (const stream of streams) stream.push(world.version - 1);
  }, 250);
  const alive = setInterval(() => streams.forEach((s) => s.res.write(': alive\n\n')), 15_000);

  function overview() {
    const by_state = {};
    for (const task of world.tasks.values()) by_state[task.state] = (by_state[task.state] ?? 0) + 1;
    const end = Math.floor(world.now);
    const series = Array.from({ length: 300 }, (_, i) => world.series.get(end - 299 + i) ?? { t: end - 299 + i, received: 0, succeeded: 0, failed: 0, retried: 0 });
    const last = series.slice(-11, -1);
    const sum = (key) => last.reduce((n, p) => n + p[key], 0) / 10;
    const online = [...world.workers.values()].filter((w) => w.online).length;
    return {
      version: world.version, server_time: Date.now() / 1000, connected: world.connected, started_at: begin - history, events: { ...world.events, lag: world.connected ? 0.03 + Math.random() * 0.05 : null },
      tasks: { total: world.tasks.size, by_state, evicted: world.evicted }, workers: { online, offline: world.workers.size - online },
      rates: { per_second: sum('succeeded') + sum('failed'), failures_per_second: sum('failed') }, series, program: 'flower-lite 0.1.0 (mock)',
    };
  }

  function delta(since, topics) {
    const entries = ring.filter((e) => e.version > since);
    const out = { version: world.version };
    if (topics.has('overview')) {
      out.overview = overview();
      out.overview.series = out.overview.series.slice(-3);
    }
    if (topics.has('workers')) out.workers = [...new Set(entries.flatMap((e) => [...e.workers]))].map((n) => world.workers.get(n)).filter(Boolean);
    const ids = [...new Set(entries.flatMap((e) => [...e.tasks]))];
    if (topics.has('tasks')) out.tasks = ids.slice(-200).map((id) => world.tasks.get(id)).filter(Boolean);
    for (const topic of topics) if (topic.startsWith('task:') && ids.includes(topic.slice(5))) out.task = detail(topic.slice(5));
    return out;
  }

  function detail(id) {
    const task = world.tasks.get(id);
    return task ? { ...task, ...task.detail } : null;
  }

  function stream(req, res, url) {
    const topics = new Set((url.searchParams.get('topics') ?? 'overview').split(','));
    res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store', 'x-accel-buffering': 'no' });
    const send = (event, data, id) => res.write(`${id ? `id: ${id}\n` : ''}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
    send('hello', { version: world.version, server_time: Date.now() / 1000 });
    const self = { res, send, push: (since) => send('delta', delta(since, topics), world.version) };
    const last = Number(req.headers['last-event-id']);
    if (last) {
      if (last > world.version || (ring[0] && last < ring[0].version - 1)) send('resync', { version: world.version }, world.version);
      else self.push(last);
    }
    streams.add(self);
    req.on('close', () => streams.delete(self));
  }

  function list(url) {
    const p = url.searchParams;
    const states = p.get('state')?.split(',').filter(Boolean) ?? [];
    const limit = Math.min(1000, Math.max(1, Number(p.get('limit') ?? 50)));
    const sort = p.get('sort') ?? '-received';
    const key = sort.replace(/^-/, '');
    if (!['received', 'started', 'runtime', 'name', 'state', 'worker'].includes(key) || Number.isNaN(limit)) return problem(422, 'Bad parameter', `sort: '${sort}' is not one of received, started, runtime, name, state, worker`);
    const name = p.get('name') ? new RegExp(`^${p.get('name').replace(/[.+^${}()|[\]\\]/g, '\\$&').replaceAll('*', '[\\s\\S]*').replaceAll('?', '[\\s\\S]')}$`) : null;
    const worker = p.get('worker');
    const q = p.get('q')?.toLowerCase();
    const test = {
      state: (t) => !states.length || states.includes(t.state),
      name: (t) => !name || name.test(t.name ?? ''),
      worker: (t) => !worker || t.worker === worker,
    };
    const text = (t) => !q || [t.id, t.name, t.args, t.kwargs, t.result, t.exception].some((f) => f?.toLowerCase().includes(q));
    const facets = { state: {}, name: {}, worker: {} };
    const hits = [];
    for (const task of world.tasks.values()) {
      const ok = { state: test.state(task), name: test.name(task), worker: test.worker(task) };
      const misses = !ok.state + !ok.name + !ok.worker;
      if (misses > 1 || !text(task)) continue;
      for (const field of ['state', 'name', 'worker']) if ((misses === 0 || !ok[field]) && task[field] !== null) facets[field][task[field]] = (facets[field][task[field]] ?? 0) + 1;
      if (!misses) hits.push(task);
    }
    const value = (t) => (key === 'received' ? (t.received ?? t.sent ?? t.timestamp) : t[key]);
    const compare = (a, b, down) => (a === b ? 0 : a === null ? 1 : b === null ? -1 : a < b === down ? 1 : -1);
    hits.sort((a, b) => compare(value(a), value(b), sort.startsWith('-')) || compare(a.received ?? a.timestamp, b.received ?? b.timestamp, true) || (a.id < b.id ? -1 : 1));
    const from = p.get('cursor') ? hits.findIndex((t) => t.id === p.get('cursor')) + 1 : 0;
    const items = hits.slice(from, from + limit);
    return json({ version: world.version, total: hits.length, items, next_cursor: from + limit < hits.length ? items.at(-1).id : null, ...(p.get('facets') ? { facets } : {}) });
  }

  function api(path, url) {
    if (control.loggedOut && path !== 'me') return problem(401, 'Not logged in', 'log in first');
    const told = control.get(path, url.searchParams);
    if (told !== undefined) return told === null ? problem(404, 'Not found', `${path} is not known`) : json(told);
    if (path === 'overview') return json(overview());
    if (path === 'workers') return json({ version: world.version, items: [...world.workers.values()] });
    if (path === 'tasks') return list(url);
    const [kind, raw] = path.split(/\/(.*)/s);
    const id = decodeURIComponent(raw ?? '');
    if (kind === 'tasks') return detail(id) ? json({ version: world.version, ...detail(id) }) : problem(404, 'No such task', `No task ${id} is known`);
    const worker = kind === 'workers' ? world.workers.get(id) : null;
    if (!worker) return problem(404, 'Not found', `${path} is not known`);
    const tasks = [...world.tasks.values()].filter((t) => t.worker === id).reverse().slice(0, 50);
    return json({ ...worker, tasks });
  }

  async function change(path, req) {
    if (control.loggedOut) return problem(401, 'Not logged in', 'log in first');
    if (req.headers['x-requested-with'] !== 'flower-lite') return problem(403, 'Not from here', 'X-Requested-With is missing');
    let text = '';
    for await (const chunk of req) text += chunk;
    if (req.method === 'DELETE') return json(control.cancel(decodeURIComponent(path.slice('bulk/'.length))));
    control.lastBody = text;
    const body = JSON.parse(text);
    const [status, answer] = path === 'bulk' ? control.bulk(body) : control.act(path.slice('actions/'.length), body);
    return { ...json(answer), status, ...(status >= 400 ? { type: 'application/problem+json' } : {}) };
  }

  function trouble(path, url) {
    if (path === 'role') control.role = url.searchParams.get('role');
    if (path === 'read-only') control.readOnly = true;
    if (path === 'control') control.readOnly = false;
    if (path === 'log-out') control.loggedOut = true;
    if (path === 'log-in') control.loggedOut = false;
    if (path === 'last-body') return json({ body: control.lastBody });
    if (path === 'drop-streams') streams.forEach((s) => s.res.destroy());
    if (path === 'resync') streams.forEach((s) => s.send('resync', { version: world.version }, world.version));
    if (path === 'disconnect') world.connected = false;
    if (path === 'connect') world.connected = true;
    if (path === 'dropped') world.events.dropped += 17;
    if (path === 'freeze') frozen = true;
    if (path === 'thaw') frozen = false;
    if (path === 'kill') world.kill(url.searchParams.get('worker'));
    return json({ done: path });
  }

  async function file(path) {
    const name = normalize(path).replace(/^(\.\.[/\\])+/, '');
    const body = await readFile(join(DIST, name));
    return { status: 200, type: TYPES[extname(name)] ?? 'application/octet-stream', body };
  }

  async function page() {
    const html = await readFile(join(DIST, 'index.html'), 'utf8');
    return { status: 200, type: TYPES['.html'], body: html.replace('<base href="/" />', `<base href="${prefix}/" />`) };
  }

  async function answer(req, res) {
    const url = new URL(req.url ?? '/', 'http://mock');
    if (!url.pathname.startsWith(prefix)) return problem(404, 'Not found', 'outside the prefix');
    const path = url.pathname.slice(prefix.length).replace(/^\//, '');
    if (path === 'api/v2/stream') return control.loggedOut ? problem(401, 'Not logged in', 'log in first') : stream(req, res, url);
    if (path.startsWith('api/v2/') && req.method !== 'GET') return change(path.slice(7), req);
    if (path === 'logout' && req.method === 'POST') {
      control.loggedOut = true;
      return { status: 204, type: 'text/plain', body: '' };
    }
    if (path === 'login') return { status: 200, type: TYPES['.html'], body: '<!doctype html><html lang="en"><title>Log in</title><link rel="icon" href="data:,"><h1>Log in</h1></html>' };
    if (path.startsWith('api/v2/')) return api(path.slice(7), url);
    if (path.startsWith('__mock/')) return trouble(path.slice(7), url);
    if (path === 'healthcheck') return { status: 200, type: 'text/plain', body: 'OK' };
    if (path.startsWith('assets/')) return file(path);
    if (/^$|^(workers|tasks|queues|broker|failures|schedules|alerts|audit|about)$|^(task|worker)\//.test(path)) return page();
    return { ...(await page()), status: 404 };
  }

  const server = createServer((req, res) => {
    answer(req, res)
      .catch((error) => problem(error.code === 'ENOENT' ? 404 : 500, 'Not served', String(error)))
      .then((out) => {
        if (!out) return;
        res.writeHead(out.status, { 'content-type': out.type, 'content-security-policy': POLICY, 'x-content-type-options': 'nosniff', 'cache-control': 'no-store' });
        res.end(out.body);
      });
  });
  return new Promise((resolve) => {
    server.listen(port, '127.0.0.1', () => {
      const close = () => {
        clearInterval(tick);
        clearInterval(alive);
        streams.forEach((s) => s.res.destroy());
        server.close();
      };
      resolve({ url: `http://127.0.0.1:${server.address().port}${prefix}/`, world, control, close });
    });
  });
}

function json(body) {
  return { status: 200, type: 'application/json', body: JSON.stringify(body) };
}

function problem(status, title, detail) {
  return { status, type: 'application/problem+json', body: JSON.stringify({ type: 'about:blank', title, status, detail }) };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await startMock({
    port: Number(option('port', 5556)), prefix: option('prefix', ''), rate: Number(option('rate', 8)), history: Number(option('history', 600)), hostile: process.argv.includes('--hostile'), seed: Number(option('seed', 0)), role: option('role', 'admin'), readOnly: process.argv.includes('--read-only'),
  });
  console.log(`mock flower-lite at ${mock.url}`);
}
