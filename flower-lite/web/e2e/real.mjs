// The pages on the real program: flower-lite as it was built, a Python worker, real work; logging in, looking at every
// page, and doing things whose effect the worker and the broker show.
//
//   broker/testkit/scripts/with_servers.sh npm --prefix flower-lite/web run e2e:real
//   … npm --prefix flower-lite/web run e2e:real -- --shots ../../docs/screenshots      pictures instead of tests
//
// Takes the servers from CELERY_BROKER_URL and CELERY_RESULT_BACKEND, the program from CARGO_TARGET_DIR (target/debug),
// Celery from CELERIAC_VENV (.venv).

import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { axe, check, ensure, equal, finish, overflow, until } from './check.mjs';
import { launch, open, PHONE } from './browser.mjs';

const TOP = fileURLToPath(new URL('../../../', import.meta.url));
const HERE = fileURLToPath(new URL('.', import.meta.url));
const program = join(process.env.CARGO_TARGET_DIR ?? join(TOP, 'target'), 'debug/flower-lite');
const venv = process.env.CELERIAC_VENV ?? join(TOP, '.venv');
const { CELERY_BROKER_URL, CELERY_RESULT_BACKEND } = process.env;
const shots = process.argv.indexOf('--shots');
const PASSWORD = 'a-password-of-these-tests';

for (const [what, there] of [['CELERY_BROKER_URL', CELERY_BROKER_URL], ['CELERY_RESULT_BACKEND', CELERY_RESULT_BACKEND], [`${program} (cargo build -p flower-lite)`, existsSync(program)], [`${venv}/bin/celery (make venv)`, existsSync(`${venv}/bin/celery`)]]) {
  if (!there) {
    console.error(`missing: ${what}`);
    process.exit(1);
  }
}

const folder = mkdtempSync(join(tmpdir(), 'flower-pages-'));
copyFileSync(join(HERE, 'cluster.py'), join(folder, 'cluster.py')); // tracebacks name where it is
const children = [];
function start(name, command, args, env = {}) {
  const child = spawn(command, args, { cwd: folder, env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1', ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (log = (log + chunk).slice(-20_000)));
  children.push({ name, child, log: () => log });
  return child;
}
async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const port = await freePort();
const base = `http://127.0.0.1:${port}/ops/`;
const hash = (text) => spawnSync(program, ['hash-password'], { input: text, encoding: 'utf8' }).stdout.trim();
const users = ['root:admin', 'olga:operator', 'vera:viewer'].map((who) => `${who}:${hash(PASSWORD)}`);
writeFileSync(join(folder, 'flower.toml'), `users = ${JSON.stringify(users)}\n`);
start('flower-lite', program, ['--config', join(folder, 'flower.toml'), '--port', String(port), '--url-prefix', '/ops', '--db', join(folder, 'history.db'), '--broker', CELERY_BROKER_URL, '--result-backend', CELERY_RESULT_BACKEND]);
start('worker', `${venv}/bin/celery`, ['-A', 'cluster', 'worker', '-E', '--concurrency', '4', '-n', 'pages@%h', '-Q', 'celery,mail', '--loglevel', 'warning']);
start('second worker', `${venv}/bin/celery`, ['-A', 'cluster', 'worker', '-E', '--concurrency', '2', '-n', 'media@%h', '-Q', 'media', '--loglevel', 'warning']);

const authorization = `Basic ${Buffer.from(`root:${PASSWORD}`).toString('base64')}`;
/** Once more where the server has just closed the connection that was kept for it. */
const json = async (path, again = true) => {
  try {
    return await (await fetch(`${base}api/v2/${path}`, { headers: { authorization } })).json();
  } catch (error) {
    if (!again) throw error;
    return json(path, false);
  }
};
const alive = (path) => fetch(base + path).then((r) => r.ok).catch(() => false);

let browser;
try {
  await until('flower-lite serves', () => alive('healthcheck'), 30_000);
  await until('both workers are online', async () => (await json('workers')).items?.filter((w) => w.online).length === 2, 60_000);
  const work = spawnSync(`${venv}/bin/python`, ['cluster.py'], { cwd: folder, env: { ...process.env, COUNT: '60', PYTHONDONTWRITEBYTECODE: '1' }, encoding: 'utf8' });
  if (work.status !== 0) throw new Error(`work was not submitted: ${work.stderr}`);
  await until('most of the work is done', async () => {
    const { tasks } = await json('overview');
    return tasks.total > 60 && (tasks.by_state.RECEIVED ?? 0) + (tasks.by_state.PENDING ?? 0) <= 12 && tasks.by_state.FAILURE > 4;
  }, 240_000);

  if (shots > 0) {
    // Charts need some minutes of ordinary work to have a shape.
    start('work', `${venv}/bin/python`, ['cluster.py'], { COUNT: '1', RATE: '4' });
    await new Promise((resolve) => setTimeout(resolve, Number(process.env.WARM ?? 240) * 1000));
    await history();
  }
  browser = await launch();
  if (shots > 0) await (await import('./shots.mjs')).picture(browser, base, process.argv[shots + 1] ?? 'e2e/shots', { json, logIn: (page) => logIn(page, 'root'), docs: !process.env.PNG });
  else await tests();
} catch (error) {
  for (const { name, log } of children) console.log(`── ${name}\n${log()}`);
  throw error;
} finally {
  await browser?.close();
  for (const { child } of children.reverse()) {
    const gone = new Promise((resolve) => child.once('exit', resolve));
    if (child.exitCode === null && child.kill('SIGTERM')) {
      const hard = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await gone;
      clearTimeout(hard);
    }
  }
  rmSync(folder, { recursive: true, force: true });
}
if (shots < 0) finish();

/** Some things that people did, so that queues and the audit log have something to show. */
async function history() {
  const act = (who, action, body) => fetch(`${base}api/v2/actions/${action}`, { method: 'POST', headers: { authorization: `Basic ${Buffer.from(`${who}:${PASSWORD}`).toString('base64')}`, 'content-type': 'application/json' }, body: JSON.stringify(body) });
  const failed = (await json('tasks?limit=3&state=FAILURE&name=shop.orders.charge_card')).items;
  const name = (await json('workers')).items.find((w) => w.name.startsWith('pages@')).name;
  await act('vera', 'queue.purge', { queue: 'celery', confirm: 'celery' });
  await act('olga', 'task.retry', { id: failed[0].id });
  await act('olga', 'task.retry', { id: failed[1].id, args: [4242], kwargs: { amount: '12.00' } });
  await act('olga', 'task.rate_limit', { name: 'media.thumbnails.resize', rate_limit: '20/s' });
  await act('root', 'worker.pool_grow', { workers: [name], n: 2 });
  await act('root', 'worker.autoscale', { workers: [name], min: 1, max: 8 });
  await act('olga', 'queue.pause', { queue: 'media', reason: 'the CDN is being moved' });
}

async function logIn(page, user) {
  await page.goto(`${base}login?next=${encodeURIComponent('/ops/')}`);
  await page.locator('input[type=password]').waitFor();
  await page.locator('input:not([type=password]):not([type=hidden])').first().fill(user);
  await page.locator('input[type=password]').fill(PASSWORD);
  await page.locator('input[type=password]').press('Enter');
  await page.waitForSelector('main h1');
}

async function tests() {
  const segment = encodeURIComponent;
  const worker = (await json('workers')).items.find((w) => w.name.startsWith('pages@')).name;
  const newest = async (query) => (await json(`tasks?limit=1&${query}`)).items[0];
  const { page, context, problems } = await open(browser);
  const toast = (text) => until(`a line that says “${text}”`, async () => (await page.locator('.toasts').allInnerTexts()).join('\n').includes(text), 15_000);
  const visit = async (p, path) => {
    await p.goto(base + path);
    await p.waitForSelector('main h1', { state: 'attached' });
    await until('the page is live', () => p.evaluate(() => /Live|lost|Lag/.test(document.querySelector('header .pill')?.textContent ?? '')), 15_000);
    await p.waitForTimeout(400);
  };
  const dialog = page.locator('dialog[open]');
  const press = (name) => page.getByRole('button', { name, exact: true }).first().click();
  const confirm = async () => {
    await dialog.locator('.go').click();
    await until('the dialog is closed', async () => (await dialog.count()) === 0, 20_000);
  };

  await check('real: who has not logged in comes to the login and back', async () => {
    await page.goto(`${base}tasks?state=FAILURE`);
    await until('the login', async () => page.url().includes('/login'));
    equal(await axe(page), [], 'axe findings of the login');
    await logIn(page, 'root');
  });

  const failed = await newest('state=FAILURE&name=shop.orders.charge_card');
  const nightly = (await json('tasks?limit=10&name=reports.nightly')).items[0];
  const hostile = (await json('tasks?limit=10&q=onerror')).items[0];
  const paths = [
    '', '?window=3600&by=worker', 'tasks', 'tasks?state=FAILURE', `task/${failed.id}`, `task/${nightly.id}`, `task/${hostile.id}`, 'failures', 'workers', `worker/${segment(worker)}`,
    ...['held', 'pool', 'queues', 'tasks', 'conf', 'stats'].map((tab) => `worker/${segment(worker)}?tab=${tab}`), 'queues', 'schedules', 'alerts', 'audit', 'about',
  ];
  for (const path of paths) {
    await check(`real: ${path || 'overview'}`, async () => {
      problems.length = 0;
      await visit(page, path);
      equal(await page.locator('main h1').count(), 1, 'number of h1');
      equal(await page.locator('main [role=alert]').allInnerTexts(), [], 'troubles');
      equal(await page.evaluate(() => [globalThis.__xss ?? null, document.querySelectorAll('#app img[onerror], #app script').length]), [null, 0], 'hostile text that became alive');
      equal(await overflow(page), '', 'sideways scrolling');
      equal(await axe(page), [], 'axe findings');
      equal(problems, [], 'problems');
    });
  }

  await check('real: the workflow of a nightly report is drawn', async () => {
    await visit(page, `task/${nightly.id}`);
    await until('boxes', async () => (await page.locator('.scroll .node').count()) >= 2);
  });

  await check('real: a task is retried with other arguments, and succeeds', async () => {
    await visit(page, `task/${failed.id}`);
    await press('Retry with changes');
    ensure((await dialog.locator('[name=args]').inputValue()).includes(String(JSON.parse(failed.args.replace('(', '[').replace(',)', ']'))[0])), 'the arguments are not there to be changed');
    await dialog.locator('[name=args]').fill('[4242]');
    await confirm();
    await page.locator('.toasts a').click();
    await until('the new task succeeds', async () => (await page.locator('.top').innerText().catch(() => '')).includes('Success'), 30_000);
  });

  await check('real: a task that runs is terminated', async () => {
    const waiting = await until('it runs', () => newest('state=STARTED&name=demo.wait'), 30_000);
    await visit(page, `task/${waiting.id}`);
    await press('Terminate or revoke');
    await confirm();
    await until('it is revoked', async () => (await page.locator('.top').innerText()).includes('Revoked'), 30_000);
  });

  await check('real: the pool grows', async () => {
    await visit(page, `worker/${segment(worker)}?tab=pool`);
    const slots = () => page.locator('section[aria-labelledby=pool] dl > div', { hasText: 'Slots' }).innerText();
    await until('four slots', async () => (await slots()).includes('4'), 20_000);
    await press('Grow');
    await confirm();
    await until('five slots', async () => (await slots()).includes('5'), 30_000);
  });

  await check('real: a rate limit is set, and the worker says so', async () => {
    await visit(page, `worker/${segment(worker)}?tab=tasks`);
    await press('Rate limit of demo.wait');
    await dialog.locator('[name=limit]').fill('10/m');
    await confirm();
    await until('it is shown', async () => (await page.locator('tr', { hasText: 'demo.wait' }).innerText()).includes('10/m'), 30_000);
  });

  await check('real: a queue is paused and resumed', async () => {
    await visit(page, 'queues');
    await until('the queue', async () => (await page.getByRole('button', { name: 'Pause media', exact: true }).count()) === 1, 20_000);
    await press('Pause media');
    await dialog.locator('[name=reason]').fill('for the test');
    await confirm();
    await until('it is paused', async () => (await page.locator('tr', { hasText: 'media' }).first().innerText()).includes('for the test'), 20_000);
    await press('Resume media');
    await until('it goes on', async () => !(await page.locator('tr', { hasText: 'media' }).first().innerText()).includes('Paused'), 20_000);
  });

  await check('real: a group of failures is retried as one job', async () => {
    await visit(page, 'failures');
    await page.getByRole('button', { name: /^Retry all PaymentDeclined of shop/ }).first().click();
    await confirm();
    await toast('Retried');
  });

  await check('real: all of it is in the audit log', async () => {
    await visit(page, 'audit');
    const text = await page.locator('table').innerText();
    for (const action of ['task.retry', 'task.revoke', 'worker.pool_grow', 'task.rate_limit', 'queue.pause', 'queue.resume']) ensure(text.includes(action), `${action} is missing`);
    ensure(text.includes('root'), 'nobody did it');
  });

  await check('real: logging out ends it; a viewer may look only', async () => {
    await page.getByRole('button', { name: 'Account of root' }).click();
    await page.getByRole('button', { name: 'Log out' }).click();
    await until('the login', async () => page.url().includes('/login'));
    await logIn(page, 'vera');
    await visit(page, 'queues');
    ensure((await page.getByRole('button', { name: 'Purge celery', exact: true }).getAttribute('title')).includes('Needs the role admin'), 'no reason');
    await visit(page, `task/${failed.id}`);
    equal(await page.getByRole('button', { name: 'Retry', exact: true }).getAttribute('aria-disabled'), 'true', 'retry');
  });

  await check('real: on a phone', async () => {
    const phone = await open(browser, { viewport: PHONE });
    await logIn(phone.page, 'olga');
    for (const path of ['', 'tasks', `task/${nightly.id}`, 'queues', 'failures']) {
      await visit(phone.page, path);
      equal(await overflow(phone.page), '', `sideways scrolling of ${path}`);
    }
    await phone.context.close();
  });

  await context.close();
}
