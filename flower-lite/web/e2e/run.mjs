// Browser tests in real Chromium: every page in both themes and three widths, with a hostile string in every field,
// by keyboard alone, through axe, and through trouble on the stream; every action (actions.mjs), every role (roles.mjs).
//
//   npm run e2e                    against the mock, with everything that only a mock can provoke
//   SUITES=actions,roles npm run e2e   some of pages, actions, roles, keyboard
//   npm run e2e -- <base url>      against a running flower-lite, whatever it has seen

import { PAYLOAD, startMock } from '../mock/server.mjs';
import { axe, check, ensure, equal, finish, overflow, until } from './check.mjs';
import { actions } from './actions.mjs';
import { launch, open, PHONE } from './browser.mjs';
import { keyboard } from './keyboard.mjs';
import { roles } from './roles.mjs';

const given = process.argv[2]?.replace(/\/?$/, '/');
const mock = given ? null : await startMock({ prefix: '/dashboard', rate: 10, history: 420, hostile: true });
const base = given ?? mock.url;
const browser = await launch();
const suites = (process.env.SUITES ?? 'pages,actions,roles,keyboard').split(',');

const json = async (path) => (await fetch(`${base}api/v2/${path}`)).json();
const poke = async (what) => (await fetch(`${base}__mock/${what}`, { method: 'POST' })).json();
const segment = encodeURIComponent;

const newest = async (query) => (await json(`tasks?limit=1&${query}`)).items[0];
const workers = (await json('workers')).items;
const failure = await newest('state=FAILURE');
const success = await newest('state=SUCCESS');
const hostileId = mock ? `${PAYLOAD}id` : null;
const paths = {
  overview: '',
  tasks: 'tasks',
  'filtered tasks': 'tasks?state=FAILURE,RETRY&sort=-runtime',
  'no match': 'tasks?q=zzz-no-such-text',
  'another time': '?window=3600&by=worker',
  workers: 'workers',
  failures: 'failures',
  queues: 'queues',
  schedules: 'schedules',
  alerts: 'alerts',
  audit: 'audit',
  about: 'about',
  'Flower’s address of the queues': 'broker',
  'no such task': 'task/00000000-dead-4bad-8bad-000000000000',
  'no such worker': 'worker/nobody%40nowhere',
  'no such page': 'nothing/here',
  ...(failure && { 'failed task': `task/${segment(failure.id)}` }),
  ...(success && { 'succeeded task': `task/${segment(success.id)}` }),
  ...Object.fromEntries(workers.filter((w, i, all) => all.findIndex((x) => x.online === w.online) === i).map((w) => [w.online ? 'worker' : 'offline worker', `worker/${segment(w.name)}`])),
  ...(mock && {
    'hostile task': `task/${segment(hostileId)}`,
    'hostile success': 'task/hostile-success',
    'hostile state': 'task/hostile-state',
    'hostile worker': `worker/${segment(`${PAYLOAD}worker`)}`,
    ...Object.fromEntries(['held', 'pool', 'queues', 'tasks', 'conf', 'stats'].map((tab) => [`hostile worker, ${tab}`, `worker/${segment(`${PAYLOAD}worker`)}?tab=${tab}`])),
    'worker, held': `worker/${segment('celery@worker-1')}?tab=held`,
    'worker, pool': `worker/${segment('celery@worker-1')}?tab=pool`,
    'hostile dead letters': `queues?dead=${segment(`${PAYLOAD}dead`)}`,
    'hostile failures': `failures?q=${segment('onerror')}`,
    'hostile audit': `audit?user=${segment(PAYLOAD)}`,
    'hostile search': `tasks?q=${segment(PAYLOAD)}&name=${segment('*onerror*')}`,
    'hostile filter': `tasks?worker=${segment(`${PAYLOAD}worker`)}&state=${segment(PAYLOAD)}`,
  }),
};

const expectMissing = (name) => name.startsWith('no such');
const unexpected = (name, problems) => problems.filter((p) => !(expectMissing(name) && p.includes('status of 404')) && !(name.startsWith('hostile') && p.includes('status of 404')));

async function visit(page, path, from = base) {
  await page.goto(from + path);
  await page.waitForSelector('main h1', { state: 'attached' });
  await until('the page is live', () => page.evaluate(() => /Live|lost|Lag/.test(document.querySelector('header .pill')?.textContent ?? '')));
  await page.waitForTimeout(250);
}

// ── every page, every look ───────────────────────────────────────────────────────────────────────────────────────

for (const [look, options] of !suites.includes('pages') ? [] : [
  ['light desktop', { scheme: 'light' }],
  ['dark desktop', { scheme: 'dark' }],
  ['light phone', { scheme: 'light', viewport: PHONE }],
  ['dark phone', { scheme: 'dark', viewport: PHONE }],
  ['320 px', { scheme: 'light', viewport: { width: 320, height: 640 }, quick: true }],
  ['compact tablet', { scheme: 'dark', viewport: { width: 820, height: 1100 }, prefs: { density: 'compact', zone: 'utc' }, quick: true }],
]) {
  const { page, context, problems } = await open(browser, options);
  await page.addInitScript(() => addEventListener('securitypolicyviolation', (e) => console.error(`policy violated: ${e.violatedDirective} ${e.blockedURI}`)));
  for (const [name, path] of Object.entries(paths)) {
    await check(`${name}, ${look}`, async () => {
      problems.length = 0;
      await visit(page, path);
      equal(await page.locator('main h1').count(), 1, 'number of h1');
      equal(await page.evaluate(() => [globalThis.__xss ?? null, document.querySelectorAll('#app img[onerror], #app script').length]), [null, 0], 'hostile text that became alive');
      equal(await overflow(page), '', 'sideways scrolling');
      if (!options.quick) equal(await axe(page), [], 'axe findings');
      equal(unexpected(name, problems), [], 'problems');
    });
  }
  await context.close();
}

// ── keyboard ─────────────────────────────────────────────────────────────────────────────────────────────────────

{
  const { page, context, problems } = await open(browser);
  const focusText = () => page.evaluate(() => document.activeElement?.textContent?.trim() ?? '');
  const path = () => page.evaluate(() => location.href.slice(document.baseURI.length));

  await check('the first Tab offers to skip to the content, and it does', async () => {
    await visit(page, '');
    await page.keyboard.press('Tab');
    equal(await focusText(), 'Skip to content', 'focus');
    await page.keyboard.press('Enter');
    equal(await page.evaluate(() => document.activeElement?.id), 'main', 'focus after skipping');
    equal(await path(), '', 'address');
  });

  await check('g t, g w, g o go places and focus their heading', async () => {
    for (const [key, where, heading] of [['t', 'tasks', 'Tasks'], ['w', 'workers', 'Workers'], ['o', '', 'Overview']]) {
      await page.keyboard.press('g');
      await page.keyboard.press(key);
      await until(`focus on ${heading}`, async () => (await focusText()) === heading);
      equal(await path(), where, 'address');
    }
  });

  await check('? shows the keys, Escape closes them', async () => {
    await page.keyboard.press('?');
    await page.waitForSelector('dialog[open]');
    equal(await axe(page), [], 'axe findings in the dialog');
    await page.keyboard.press('Escape');
    await page.waitForSelector('dialog[open]', { state: 'detached' });
  });

  const letter = success?.name?.[0] ?? 'a';
  if (success) await check('/ searches, j and k walk, Enter opens, back returns to the same list', async () => {
    await visit(page, 'tasks?state=SUCCESS');
    await page.keyboard.press('/');
    equal(await page.evaluate(() => document.activeElement?.id), 'query', 'focus');
    await page.keyboard.type(letter);
    await until('the address has the text', async () => (await path()).includes(`q=${letter}`));
    await page.waitForTimeout(300);
    await page.keyboard.press('Escape');
    for (const key of ['j', 'j', 'j', 'k']) await page.keyboard.press(key);
    const row = await until('a row has the focus', () => page.evaluate(() => document.activeElement?.closest('[aria-rowindex]')?.getAttribute('aria-rowindex')));
    ensure(Number(row) >= 2, `row ${row}`);
    const search = await page.evaluate(() => location.search);
    const opened = await page.evaluate(() => document.activeElement?.getAttribute('href'));
    await page.keyboard.press('Enter');
    await page.waitForSelector('nav[aria-label=Breadcrumb]');
    equal(await page.evaluate(() => location.pathname), opened, 'address');
    await page.goBack();
    await page.waitForSelector('[role=table]');
    equal(await page.evaluate(() => location.search), search, 'filter after going back');
  });

  await check('t changes the theme and a reload keeps it', async () => {
    const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
    const before = await theme();
    await page.locator('main').focus();
    await page.keyboard.press('t');
    const after = await theme();
    ensure(after !== before, `still ${after}`);
    await page.reload();
    await page.waitForSelector('main h1', { state: 'attached' });
    equal(await theme(), after, 'theme');
  });

  await check('the display menu works by keyboard alone', async () => {
    await visit(page, '');
    await page.getByRole('button', { name: 'Display settings' }).focus();
    await page.keyboard.press('Enter');
    await page.getByRole('radio', { name: 'Compact' }).focus();
    await page.keyboard.press('Space');
    equal(await page.evaluate(() => document.documentElement.dataset.density), 'compact', 'density');
    await page.keyboard.press('Escape');
    equal(await page.getByRole('radio', { name: 'Compact' }).count(), 0, 'menu still open');
  });

  await check('no problem while using the keyboard', async () => equal(problems, [], 'problems'));
  await context.close();
}

// ── the list ─────────────────────────────────────────────────────────────────────────────────────────────────────

{
  const { page, context, problems } = await open(browser);
  const words = () => page.locator('.row .state').allInnerTexts();
  const address = () => page.evaluate(() => location.search);

  await check('a state filter narrows the list, lives in the address and survives a reload', async () => {
    await visit(page, 'tasks');
    await page.locator('.facets .chip', { hasText: 'Failure' }).click();
    await until('the address says so', async () => (await address()) === '?state=FAILURE');
    if (failure) await until('only failures', async () => { const all = await words(); return all.length > 0 && all.every((w) => w.trim() === 'Failure'); });
    await page.reload();
    if (failure) await until('only failures after a reload', async () => { const all = await words(); return all.length > 0 && all.every((w) => w.trim() === 'Failure'); });
    equal(await page.locator('.chip[aria-pressed=true]').count(), 1, 'pressed chips');
  });

  if (success) await check('a column head sorts, and says how', async () => {
    await visit(page, 'tasks');
    await page.getByRole('columnheader', { name: 'Runtime' }).getByRole('button').click();
    await until('sorted by runtime', async () => (await address()) === '?sort=-runtime');
    equal(await page.getByRole('columnheader', { name: 'Runtime' }).getAttribute('aria-sort'), 'descending', 'aria-sort');
  });

  await check('typed qualifiers become filters', async () => {
    await visit(page, 'tasks');
    await page.locator('#query').fill('state:success demo');
    await page.locator('#query').press('Enter');
    await until('address', async () => (await address()) === '?state=SUCCESS&q=demo');
  });

  await check('only the rows near the window exist, and scrolling loads more', async () => {
    await visit(page, 'tasks');
    const total = (await json('tasks?limit=1')).total;
    ensure((await page.locator('.row').count()) < 120, 'too many rows in the document');
    if (total > 450) {
      const height = () => page.evaluate(() => document.documentElement.scrollHeight);
      const before = await height();
      await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight));
      await until('more rows', async () => (await height()) > before + 1000);
      ensure((await page.locator('.row').count()) < 120, 'too many rows in the document after scrolling');
    }
  });

  if (mock) {
    await check('paused, new rows are counted and not shown; full stop shows them', async () => {
      await visit(page, 'tasks');
      await page.keyboard.press('p');
      const first = await page.locator('.row .open').first().getAttribute('href');
      await until('news', async () => (await page.locator('.news').count()) === 1);
      equal(await page.locator('.row .open').first().getAttribute('href'), first, 'first row while paused');
      await page.keyboard.press('p');
      await until('new first row', async () => (await page.locator('.row .open').first().getAttribute('href')) !== first);
    });

    await check('scrolled down, rows stay where they are', async () => {
      await visit(page, 'tasks');
      await page.evaluate(() => scrollTo(0, 900));
      await page.waitForTimeout(200);
      const top = () => page.evaluate(() => { const r = [...document.querySelectorAll('.row')].find((e) => e.getBoundingClientRect().top > 200); return `${r.querySelector('a').getAttribute('href')} ${Math.round(r.getBoundingClientRect().top)}`; });
      const before = await top();
      await until('news', async () => (await page.locator('.news').count()) === 1);
      equal(await top(), before, 'row under the eyes');
      await page.keyboard.press('.');
      await until('at the top', () => page.evaluate(() => scrollY === 0));
    });

    await check('at the top, new rows come by themselves', async () => {
      await visit(page, 'tasks');
      const first = await page.locator('.row .open').first().getAttribute('href');
      await until('a new first row', async () => (await page.locator('.row .open').first().getAttribute('href')) !== first);
    });
  }

  await check('no problem while using the list', async () => equal(problems, [], 'problems'));
  await context.close();
}

// ── live ─────────────────────────────────────────────────────────────────────────────────────────────────────────

if (mock) {
  const { page, context, problems } = await open(browser);
  const pill = () => page.locator('header span.pill').innerText();
  const said = () => page.locator('[role=status].sr').innerText();

  await check('figures move without a reload', async () => {
    await visit(page, '');
    const kept = () => page.locator('section[aria-labelledby=states] header .dim').innerText();
    const before = await kept();
    await until('another count', async () => (await kept()) !== before);
  });

  await check('one connection serves all, and a running task counts up', async () => {
    equal(await page.evaluate(() => performance.getEntriesByType('resource').filter((e) => e.name.includes('/stream')).length <= 3), true, 'few streams');
  });

  await check('a broken stream is shown, announced, and mended', async () => {
    await poke('drop-streams');
    await until('Reconnecting', async () => (await pill()).includes('Reconnecting'), 4000);
    ensure((await said()).includes('lost'), `said: ${await said()}`);
    await until('Live', async () => /Live/.test(await pill()), 15_000);
  });

  await check('resync makes the page read again', async () => {
    const before = await page.evaluate(() => performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/overview')).length);
    await poke('resync');
    await until('another read', () => page.evaluate((n) => performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/overview')).length > n, before));
  });

  await check('a lost broker and lost events are said', async () => {
    await poke('disconnect');
    await until('Broker away', async () => (await pill()).includes('Broker away'));
    await poke('connect');
    await until('Live', async () => /Live/.test(await pill()));
    await poke('dropped');
    await until('17 lost', async () => (await pill()).includes('17 lost'));
  });

  await check('a worker that dies is seen on its page', async () => {
    await visit(page, `worker/${segment('celery@worker-2')}`);
    await poke(`kill?worker=${segment('celery@worker-2')}`);
    await until('Offline', async () => (await page.locator('.top').innerText()).includes('Offline'));
    await page.waitForSelector('.offline');
  });

  await check('no problem but the broken stream', async () => equal(problems.filter((p) => !/ERR_|stream/.test(p)), [], 'problems'));
  await context.close();
}

// ── motion ───────────────────────────────────────────────────────────────────────────────────────────────────────

await check('nothing moves for who asked for less motion', async () => {
  const context = await browser.newContext({ reducedMotion: 'reduce' });
  const page = await context.newPage();
  await visit(page, '');
  equal(await page.evaluate(() => document.getAnimations().length), 0, 'animations');
  await context.close();
});

// ── doing things: each with a cluster of its own ─────────────────────────────────────────────────────────────────

mock?.close();
for (const [name, suite] of Object.entries({ actions, roles, keyboard })) {
  if (mock && suites.includes(name)) await suite(browser, visit);
}

await browser.close();
finish();
