// Who may do what: controls that work for nobody say why, and ask the server for nothing; a session that ends leads to
// where a new one begins.

import { startMock } from '../mock/server.mjs';
import { ACTIONS } from '../mock/control.mjs';
import { axe, check, ensure, equal, until } from './check.mjs';
import { open } from './browser.mjs';

export async function roles(browser, visit) {
  const mock = await startMock({ rate: 8, history: 200, role: 'viewer' });
  const base = mock.url;
  const poke = (what) => fetch(`${base}__mock/${what}`, { method: 'POST' });
  const json = async (path) => (await fetch(`${base}api/v2/${path}`)).json();
  const { page, context, problems } = await open(browser);
  const writes = [];
  page.on('request', (request) => request.method() !== 'GET' && writes.push(request.url()));
  const task = (await json('tasks?limit=1&state=FAILURE')).items[0];
  const pages = [`task/${task.id}`, 'failures', 'queues?dead=payments.dead', 'schedules', ...['pool', 'queues', 'tasks', 'held'].map((tab) => `worker/${encodeURIComponent('celery@worker-1')}?tab=${tab}`)];

  /** Presses every control of a page; says what each one was told. */
  async function pressAll(path) {
    await visit(page, path, base);
    const buttons = page.locator('main [data-action]');
    await until('controls', async () => (await buttons.count()) > 0 || path.includes('held'));
    const seen = [];
    for (let i = 0; i < (await buttons.count()); i++) {
      const button = buttons.nth(i);
      ensure(await button.getAttribute('aria-disabled'), `${path}: ${await button.innerText()} can be pressed`);
      ensure(((await button.getAttribute('title')) ?? '').length > 10, `${path}: ${await button.innerText()} gives no reason`);
      seen.push(await button.getAttribute('data-action'));
      if (i < 3) await button.click({ force: true }); // it is marked as disabled
    }
    equal(await page.locator('dialog[open]').count(), 0, 'dialogs');
    return seen;
  }

  await check('a viewer sees every control, can use none, and is told why', async () => {
    const seen = new Set();
    for (const path of pages) for (const action of await pressAll(path)) seen.add(action);
    const known = ACTIONS.filter((action) => seen.has(action));
    ensure(known.length >= 16, `only ${[...seen].join(', ')}`);
    ensure((await page.locator('.toasts').innerText()).includes('Needs the role'), await page.locator('.toasts').innerText());
    equal(writes, [], 'requests that would change something');
  });

  await check('keys do no more than buttons', async () => {
    await visit(page, `task/${task.id}`, base);
    await page.keyboard.press('e');
    await page.keyboard.press('r');
    equal(await page.locator('dialog[open]').count(), 0, 'dialogs');
    equal(writes, [], 'requests that would change something');
  });

  await check('an operator may retry and pause, and not purge', async () => {
    await poke('role?role=operator');
    await visit(page, 'queues', base);
    equal(await page.getByRole('button', { name: 'Pause mail' }).getAttribute('aria-disabled'), null, 'pause');
    equal(await page.getByRole('button', { name: 'Purge mail' }).getAttribute('title'), 'Needs the role admin; yours is operator', 'purge');
  });

  await check('what the server refuses meanwhile is shown in the dialog, which stays', async () => {
    await visit(page, 'queues', base);
    await page.getByRole('button', { name: 'Pause mail' }).click();
    await poke('role?role=viewer');
    await page.locator('dialog[open] .go').click();
    await until('the refusal', async () => (await page.locator('dialog[open]').innerText()).includes('needs the role operator'));
    equal(await axe(page), [], 'axe findings');
    await page.keyboard.press('Escape');
    await until('the page has learnt it', async () => (await page.getByRole('button', { name: 'Pause mail' }).getAttribute('aria-disabled')) === 'true');
  });

  await check('read-only is said on every page that has controls', async () => {
    await poke('role?role=admin');
    await poke('read-only');
    writes.length = 0;
    for (const path of pages) {
      await pressAll(path);
      ensure((await page.locator('p.locked').innerText()).includes('Read only mode'), `${path} says nothing`);
    }
    equal(writes, [], 'requests that would change something');
    await page.getByRole('button', { name: 'Account' }).click();
    ensure((await page.locator('.panel').innerText()).includes('Read only mode'), 'the account says nothing');
  });

  await check('who logs out comes to the login, and so does who is logged out', async () => {
    await poke('control');
    await visit(page, 'queues', base);
    await page.getByRole('button', { name: 'Account of mock' }).click();
    await page.getByRole('button', { name: 'Log out' }).click();
    await until('the login', async () => page.url() === `${base}login`);
    await poke('log-in');
    await visit(page, 'tasks?state=FAILURE', base);
    await poke('log-out');
    await poke('resync');
    await until('the login that leads back', async () => page.url() === `${base}login?next=${encodeURIComponent('/tasks?state=FAILURE')}`, 15_000);
    await poke('log-in');
  });

  await check('no problem but the refusals', async () => equal(problems.filter((p) => !/status of 40[13]/.test(p) && !/stream|ERR_/.test(p)), [], 'problems'));
  await context.close();
  mock.close();
}
