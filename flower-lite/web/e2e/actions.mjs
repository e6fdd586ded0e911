// Everything that the pages can do, done: by pointer and by keyboard, with what is typed wrong, and what is refused.

import { startMock } from '../mock/server.mjs';
import { axe, check, ensure, equal, until } from './check.mjs';
import { open, PHONE } from './browser.mjs';

export async function actions(browser, visit) {
  const mock = await startMock({ prefix: '/ops', rate: 8, history: 300 });
  const base = mock.url;
  const json = async (path) => (await fetch(`${base}api/v2/${path}`)).json();
  const poke = async (what) => (await fetch(`${base}__mock/${what}`, { method: 'POST' })).json();
  const { page, context, problems } = await open(browser);
  const go = (path) => visit(page, path, base);
  const dialog = page.locator('dialog[open]');
  const toast = (text) => until(`a line that says “${text}”`, async () => (await page.locator('.toasts').allInnerTexts()).join('\n').includes(text));
  const press = (name, options) => page.getByRole('button', { name, exact: true }).first().click(options);
  const confirm = () => dialog.locator('.go').click();
  const closed = () => until('the dialog is closed', async () => (await dialog.count()) === 0);
  const clear = async () => { while (await page.locator('.toasts .close').count()) await page.locator('.toasts .close').first().click(); };
  const newest = async (query) => (await json(`tasks?limit=1&${query}`)).items[0];
  const body = async () => (await poke('last-body')).body;
  const audited = async () => (await json('audit')).items[0];

  // ── one task ───────────────────────────────────────────────────────────────────────────────────────────────────

  await check('a task is retried, and the new one can be opened', async () => {
    const task = await newest('state=FAILURE&name=shop.orders.charge_card');
    await go(`task/${task.id}`);
    await press('Retry');
    equal(await dialog.locator('h2').innerText(), 'Retry shop.orders.charge_card', 'title');
    equal(await axe(page), [], 'axe findings in the dialog');
    await confirm();
    await closed();
    await toast('Retried shop.orders.charge_card');
    equal((await audited()).action, 'task.retry', 'audit');
    await page.locator('.toasts a').click();
    await until('the new task', async () => !page.url().endsWith(task.id) && (await page.locator('h1').innerText()).includes('charge_card'));
  });

  await check('arguments are changed as typed, whole numbers of any size too; what is no JSON is said', async () => {
    await clear();
    const task = await newest('state=SUCCESS&name=demo.add');
    await go(`task/${task.id}`);
    await press('Retry with changes');
    await dialog.locator('[name=args]').fill('[1, 2');
    await confirm();
    ensure((await dialog.innerText()).includes('is not JSON'), 'no word about it');
    await dialog.locator('[name=args]').fill('{"a": 1}');
    ensure((await dialog.innerText()).includes('must be a list'), 'no word about it');
    await dialog.locator('[name=args]').fill('[12345678901234567890, 2]');
    await dialog.locator('[name=countdown]').fill('soon');
    ensure((await dialog.innerText()).includes('must be a number'), 'no word about it');
    await dialog.locator('[name=countdown]').fill('1.5');
    await confirm();
    await closed();
    ensure((await body()).includes('"args":[12345678901234567890, 2]') && (await body()).includes('"countdown":1.5'), await body());
  });

  await check('e and r ask about the task; Escape goes back to where the focus was', async () => {
    const task = await until('a task that waits for its time', async () => (await json('tasks?limit=200&state=RECEIVED')).items.find((t) => t.eta), 30_000);
    await go(`task/${task.id}`);
    await page.getByRole('button', { name: 'Retry with changes' }).focus();
    await page.keyboard.press('r');
    await dialog.waitFor();
    equal(await dialog.locator('h2').innerText(), `Revoke ${task.name}`, 'title');
    await page.keyboard.press('Escape');
    await closed();
    equal(await page.evaluate(() => document.activeElement?.textContent?.trim()), 'Retry with changes', 'focus');
    await page.keyboard.press('e');
    await dialog.waitFor();
    await page.keyboard.press('Escape');
    await closed();
  });

  await check('a task that runs is terminated', async () => {
    await clear();
    let task;
    await until('it is revoked', async () => {
      task = (await json('tasks?limit=20&state=STARTED')).items.find((t) => /reports|reindex/.test(t.name)) ?? (await newest('state=STARTED,PROGRESS'));
      if (!task) return false;
      await go(`task/${task.id}`);
      const button = page.getByRole('button', { name: 'Terminate or revoke' });
      if (!(await button.count()) || (await button.getAttribute('aria-disabled'))) return false;
      await button.click();
      await confirm();
      await closed();
      return (await json(`tasks/${task.id}`)).state === 'REVOKED';
    }, 30_000);
    await until('the page says so', async () => (await page.locator('.top').innerText()).includes('Revoked'));
    ensure(/"terminate":true,"signal":"SIGTERM"/.test(await body()), await body());
  });

  // ── a workflow ─────────────────────────────────────────────────────────────────────────────────────────────────

  await check('a workflow is drawn, a fan-out is unfolded by keyboard, boxes lead to their tasks', async () => {
    const roots = (await json('tasks?limit=50&name=demo.pipeline')).items;
    let big;
    for (const root of roots) {
      const flow = await json(`workflows/${root.id}`);
      if (flow.total >= 10 && !flow.by_state.FAILURE && flow.by_state.SUCCESS === flow.total) big = root;
    }
    ensure(big, 'no workflow of ten tasks in this story');
    await go(`task/${big.id}`);
    const boxes = page.locator('.scroll .node');
    await until('boxes', async () => (await boxes.count()) >= 3);
    equal(await page.locator('.scroll .node.here').count(), 1, 'this task');
    ensure((await page.locator('.scroll .edge.inferred').count()) > 0, 'no line into the body of the chord');
    await page.locator('.scroll [role=button]').focus();
    await page.keyboard.press('Enter');
    await until('unfolded', async () => (await boxes.count()) >= 10);
    equal(await axe(page), [], 'axe findings');
    await page.locator('.scroll a.node', { hasText: 'total' }).focus();
    await page.keyboard.press('Enter');
    await until('the body of the chord', async () => (await page.locator('h1').innerText()).includes('total'));
    await page.getByText('List', { exact: true }).click();
    await until('as a list', async () => (await page.locator('section[aria-labelledby=workflow] li').count()) >= 10);
  });

  await check('a workflow grows and changes state by itself', async () => {
    const { id } = mock.world.submitChord({ run: 5 });
    await go(`task/${id}`);
    const head = () => page.locator('section[aria-labelledby=workflow] header').innerText().catch(() => '');
    const first = await until('the workflow', head);
    await until('more tasks, or other states', async () => { const now = await head(); return now && now !== first; }, 20_000);
  });

  // ── many tasks ─────────────────────────────────────────────────────────────────────────────────────────────────

  await check('rows are chosen by keyboard, one and many, and retried together', async () => {
    await clear();
    await go('tasks?state=FAILURE&name=shop.orders.charge_card');
    await page.keyboard.press('p');
    for (const key of ['j', 'x', 'j', 'j', 'j', 'X']) await page.keyboard.press(key);
    const bar = page.getByRole('region', { name: 'Selected tasks' });
    ensure((await bar.innerText()).includes('4 selected'), await bar.innerText());
    equal(await axe(page), [], 'axe findings');
    await page.keyboard.press('e');
    await dialog.waitFor();
    equal(await dialog.locator('h2').innerText(), 'Retry 4 tasks', 'title');
    await confirm();
    await toast('Retried 4 tasks');
    equal(await bar.count(), 0, 'the selection is gone');
  });

  await check('all that match are taken, with those that could not be listed', async () => {
    await clear();
    await go('tasks?state=FAILURE');
    await page.keyboard.press('p');
    await page.locator('.row .pick label').first().click();
    ensure(await page.locator('.row .pick input').first().isChecked(), 'the box of a chosen row is empty');
    await page.locator('.row .pick label').nth(2).click({ modifiers: ['Shift'] });
    await until('a range', async () => (await page.locator('.row .pick input:checked').count()) === 3);
    const total = (await json('tasks?state=FAILURE&limit=1')).total;
    await page.getByRole('button', { name: 'Retry all that match' }).click();
    await dialog.waitFor();
    const asked = Number(/Retry ([\d,]+)/.exec(await dialog.locator('h2').innerText())?.[1]?.replaceAll(',', ''));
    ensure(Math.abs(asked - total) < 12, `${asked} of ${total}`);
    await confirm();
    await until('the job ends', async () => /Retried .* tasks, .* not/.test(await page.locator('.toasts').innerText()), 20_000);
    ensure((await page.locator('.toasts').innerText()).includes('no literal'), await page.locator('.toasts').innerText());
  });

  await check('the head chooses and leaves all rows; Escape too', async () => {
    await clear();
    await go('tasks?state=SUCCESS');
    await page.locator('.head .pick label').click();
    const bar = page.getByRole('region', { name: 'Selected tasks' });
    ensure(/\d\d+ selected/.test(await bar.innerText()), await bar.innerText());
    await page.keyboard.press('Escape');
    await until('nothing is chosen', async () => (await bar.count()) === 0);
  });

  await check('a group of failures is retried', async () => {
    await clear();
    await go('failures');
    const group = (await json('failures')).items.find((g) => g.name === 'demo.xsum') ?? (await json('failures')).items[0];
    await page.getByRole('button', { name: `Retry all ${group.exception} of ${group.name}` }).click();
    await confirm();
    await closed();
    ensure((await body()).includes(`"failure":{"name":"${group.name}","exception":"${group.exception}"}`), await body());
    await toast('Retried');
  });

  await check('failures are found by words and by time, both in the address', async () => {
    await go('failures');
    await page.locator('input[type=search]').fill('KeyError');
    await until('the address', async () => page.url().includes('q=KeyError'));
    await until('only those', async () => { const all = await page.locator('li h2').allInnerTexts(); return all.length > 0 && all.every((t) => t.includes('KeyError')); });
    await page.getByText('24 h', { exact: true }).click();
    await until('the address', async () => page.url().includes('window=86400'));
  });

  // ── queues ─────────────────────────────────────────────────────────────────────────────────────────────────────

  await check('a queue is paused with a reason, and resumed', async () => {
    await clear();
    await go('queues');
    await press('Pause mail');
    await dialog.locator('[name=reason]').fill('provider is down');
    await confirm();
    await closed();
    await until('it says so', async () => (await page.locator('tr', { hasText: 'mail' }).first().innerText()).includes('provider is down'));
    equal(await axe(page), [], 'axe findings');
    await press('Resume mail');
    await until('it goes on', async () => !(await page.locator('tr', { hasText: 'mail' }).first().innerText()).includes('Paused'));
  });

  await check('a queue is purged only by who types its name', async () => {
    await clear();
    await press('Purge batch');
    ensure(await dialog.locator('.go').isDisabled(), 'the button works without the name');
    await dialog.locator('[name=typed]').fill('batc');
    ensure(await dialog.locator('.go').isDisabled(), 'the button works with half of the name');
    await dialog.locator('[name=typed]').fill('batch');
    await confirm();
    await toast('Purged 12 messages');
    equal(JSON.parse(await body()).confirm, 'batch', 'confirm');
  });

  await check('dead letters are sent again, one and all, and dropped', async () => {
    await clear();
    await go('queues?dead=payments.dead');
    const rows = page.locator('.in tbody tr');
    await until('letters', async () => (await rows.count()) === 23);
    await page.getByRole('checkbox', { name: 'Select dead-3' }).check();
    await press('Send 1 again');
    await confirm();
    await closed();
    await until('one less', async () => (await rows.count()) === 22);
    equal(JSON.parse(await body()).ids, ['dead-3'], 'ids');
    await page.getByRole('checkbox', { name: 'Select dead-4' }).check();
    await press('Drop 1');
    await dialog.locator('[name=typed]').fill('payments.dead');
    await confirm();
    await until('one less', async () => (await rows.count()) === 21);
    await press('Send all again');
    await confirm();
    await until('none', async () => (await rows.count()) === 0);
  });

  // ── workers ────────────────────────────────────────────────────────────────────────────────────────────────────

  const worker = (tab) => `worker/${encodeURIComponent('celery@worker-1')}?tab=${tab}`;

  await check('a pool grows; autoscaling that is refused is said', async () => {
    await clear();
    await go(worker('pool'));
    await press('Grow');
    await dialog.locator('[name=n]').fill('0');
    await confirm();
    ensure((await dialog.innerText()).includes('must be 1 or more'), 'no word about it');
    await dialog.locator('[name=n]').fill('2');
    await confirm();
    await closed();
    await until('eight slots', async () => (await page.locator('section[aria-labelledby=pool]').innerText()).includes('8'));
    await press('Autoscale');
    await confirm();
    await toast('Autoscale not enabled');
    await press('Restart pool');
    await confirm();
    await closed();
  });

  await check('a worker is given a queue, and taken away one', async () => {
    await clear();
    await go(worker('queues'));
    await press('Add a queue');
    await confirm();
    ensure((await dialog.innerText()).includes('Queue is needed'), 'no word about it');
    await dialog.locator('[name=queue]').fill('extra');
    await confirm();
    await until('it reads it', async () => (await page.locator('tbody').innerText()).includes('extra'));
    await press('Stop reading extra');
    await confirm();
    await until('no more', async () => !(await page.locator('tbody').innerText()).includes('extra'));
  });

  await check('limits of a task are set', async () => {
    await clear();
    await go(worker('tasks'));
    await press('Rate limit of demo.add');
    await dialog.locator('[name=limit]').fill('fast');
    await confirm();
    ensure((await dialog.innerText()).includes('must be like 10/m'), 'no word about it');
    await dialog.locator('[name=limit]').fill('10/m');
    await confirm();
    await until('it is shown', async () => (await page.locator('tr', { hasText: 'demo.add' }).innerText()).includes('10/m'));
    await press('Time limits of demo.add');
    await dialog.locator('[name=soft]').fill('5');
    await dialog.locator('[name=all]').check();
    await confirm();
    await closed();
    equal(JSON.parse(await body()), { name: 'demo.add', soft: 5, hard: null }, 'body');
  });

  await check('what a worker holds is shown, and settings are found', async () => {
    await go(worker('held'));
    for (const title of ['Active', 'Reserved', 'Scheduled', 'Revoked']) equal(await page.getByRole('heading', { name: title }).count(), 1, title);
    await go(worker('conf'));
    await page.locator('input[type=search]').fill('prefetch');
    equal(await page.locator('dt').allInnerTexts().then((all) => all.filter((t) => t.includes('prefetch'))), ['worker_prefetch_multiplier'], 'settings found');
    await go(worker('stats'));
    ensure((await page.locator('main').innerText()).includes('pool.max-concurrency'), 'no statistics');
  });

  await check('a worker is shut down by who types its name; then its controls say why they do nothing', async () => {
    await clear();
    await go(`worker/${encodeURIComponent('celery@worker-2')}?tab=pool`);
    await press('Shut down');
    await dialog.locator('[name=typed]').fill('celery@worker-2');
    await confirm();
    await until('Offline', async () => (await page.locator('.top').innerText()).includes('Offline'));
    await press('Grow', { force: true }); // it is marked as disabled
    await toast('It is offline');
    equal(await dialog.count(), 0, 'dialogs');
  });

  // ── schedules, audit ───────────────────────────────────────────────────────────────────────────────────────────

  await check('an entry runs now, is switched off and on, changed and reverted; a new one is made', async () => {
    await clear();
    await go('schedules');
    const row = (name) => page.locator('tr', { hasText: name }).innerText();
    await press('Run now: reindex');
    await toast('Sent reindex');
    await press('Disable reindex');
    await until('off', async () => /\bOff\b/.test(await row('reindex')));
    await press('Enable reindex');
    await until('on', async () => /\bOn\b/.test(await row('reindex')));
    await press('Change reindex');
    await dialog.locator('[name=when]').fill('30 5 * * *');
    await confirm();
    await until('changed', async () => (await row('reindex')).includes('every day at 05:30'));
    equal(JSON.parse(await body()).entry.schedule, '30 5 * * *', 'schedule');
    await press('Revert reindex');
    await confirm();
    await until('reverted', async () => !(await row('reindex')).includes('changed here'));
    await press('New entry in shop');
    await dialog.locator('[name=name]').fill('pinger');
    await dialog.locator('[name=task]').fill('demo.add');
    await dialog.locator('[name=when]').fill('45');
    await dialog.locator('[name=args]').fill('[1, 2]');
    await confirm();
    await closed();
    await until('it is there', async () => (await row('pinger')).includes('every 45 s'));
  });

  await check('the audit log has it all, and is filtered', async () => {
    await go('audit');
    const actionsSeen = (await page.locator('tbody th').allInnerTexts()).map((t) => t.trim());
    ensure(actionsSeen.includes('schedule.edit'), actionsSeen.join(', '));
    await page.getByRole('combobox', { name: 'Outcome' }).selectOption('failed');
    await until('only failed ones', async () => { const all = await page.locator('tbody .tag').allInnerTexts(); return all.length > 0 && all.every((t) => t === 'Failed'); });
    ensure(page.url().includes('outcome=failed'), page.url());
    await page.getByRole('combobox', { name: 'Outcome' }).selectOption('');
    await page.locator('input[type=search]').nth(1).fill('queue.purge');
    await until('only purges', async () => { const all = await page.locator('tbody th').allInnerTexts(); return all.length > 0 && all.every((t) => t.trim() === 'queue.purge'); });
    await page.locator('input[type=search]').nth(1).fill('');
    await until('more', async () => (await page.locator('tbody tr').count()) >= 50);
    await page.getByRole('button', { name: 'Older entries' }).click();
    await until('older ones', async () => (await page.locator('tbody tr').count()) > 50);
  });

  await check('on a phone the other pages are behind More, and actions work', async () => {
    const phone = await open(browser, { viewport: PHONE });
    await visit(phone.page, '', base);
    await phone.page.getByRole('button', { name: /^More/ }).click();
    equal(await axe(phone.page), [], 'axe findings');
    await phone.page.getByRole('link', { name: 'Queues', exact: true }).click();
    await phone.page.getByRole('button', { name: 'Pause media' }).click();
    await phone.page.locator('dialog[open] .go').click();
    await until('paused', async () => (await phone.page.locator('tr', { hasText: 'media' }).innerText()).includes('Paused'));
    equal(await axe(phone.page), [], 'axe findings');
    equal(phone.problems, [], 'problems');
    await phone.context.close();
  });

  await check('no problem while doing things', async () => equal(problems, [], 'problems'));
  await context.close();
  mock.close();
}
