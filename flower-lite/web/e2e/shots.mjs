// Pictures of every page, light and dark, desktop and phone.
//
//   npm run shots -- [base url] [folder]        without a base url the mock is started; default folder: e2e/shots
//   npm run shots -- [base url] ../../docs/screenshots --docs       the small set of the documentation, as WebP
//
// ONLY=tasks,queues and LOOKS=dark-phone make fewer; FULL=1 takes whole pages.

import { mkdirSync, writeFileSync } from 'node:fs';
import { startMock } from '../mock/server.mjs';
import { DESKTOP, launch, open, PHONE } from './browser.mjs';

const docs = process.argv.includes('--docs');
const [baseArg, folder = 'e2e/shots'] = process.argv.slice(2).filter((arg) => arg !== '--docs');
const mock = baseArg ? null : await startMock({ rate: 9, history: 900 });
const base = (baseArg || mock.url).replace(/\/?$/, '/');
mkdirSync(folder, { recursive: true });

const json = async (path) => (await fetch(`${base}api/v2/${path}`)).json().catch(() => ({}));
const find = async (query) => (await json(`tasks?${query}`)).items ?? [];
const segment = encodeURIComponent;
const failures = await find('state=FAILURE&limit=200');
const failed = failures.find((t) => t.retries > 0) ?? failures[0];
const workers = (await json('workers')).items;
const online = workers.find((w) => w.online) ?? workers[0];
const dead = workers.find((w) => !w.online);
const rich = (await find('name=search.reindex&state=SUCCESS&limit=1'))[0] ?? (await find('state=SUCCESS&limit=1'))[0];

/** A workflow of some size; with `fails`, one of whose members failed. */
async function flow(fails) {
  const members = await find(`limit=1000${fails ? '&state=FAILURE' : ''}`);
  const roots = new Set(members.filter((t) => t.root_id && t.root_id !== t.id).map((t) => t.root_id));
  let best = null;
  for (const root of [...roots].slice(0, 40)) {
    const tree = await json(`workflows/${segment(root)}`);
    if (tree.total > (best?.total ?? 2) && tree.total < 12 && Boolean(tree.by_state?.FAILURE) === fails) best = tree;
  }
  const pick = (nodes) => nodes.flatMap((n) => [n, ...pick(n.children)]);
  const all = best ? pick(best.tree) : [];
  return (fails ? all.find((t) => t.state === 'FAILURE') : all.find((t) => t.children.length > 1)) ?? all[0];
}
const chord = await flow(false);
const broken = await flow(true);
const letters = (await json('dead-letters')).items?.find((q) => q.ready > 0);

const pages = [
  ['overview', '?window=900', { slow: true }],
  ['tasks', 'tasks'],
  ['tasks-selected', 'tasks?state=FAILURE,RETRY', { select: 3 }],
  ['task-failed', failed && `task/${segment(failed.id)}`],
  ['task-success', rich && `task/${segment(rich.id)}`],
  ['workflow', chord && `task/${segment(chord.id)}`],
  ['workflow-failed', broken && `task/${segment(broken.id)}`],
  ['retry', rich && `task/${segment(rich.id)}`, { press: 'Retry with changes' }],
  ['failures', 'failures'],
  ['workers', 'workers', { slow: true }],
  ['worker', online && `worker/${segment(online.name)}`],
  ['worker-held', online && `worker/${segment(online.name)}?tab=held`],
  ['worker-pool', online && `worker/${segment(online.name)}?tab=pool`],
  ['worker-tasks', online && `worker/${segment(online.name)}?tab=tasks`],
  ['worker-offline', dead && `worker/${segment(dead.name)}`],
  ['queues', letters ? `queues?dead=${segment(letters.queue)}` : 'queues', { slow: true }],
  ['schedules', 'schedules'],
  ['alerts', 'alerts'],
  ['audit', 'audit'],
  ['about', 'about'],
  ['missing', 'task/00000000-dead-4bad-8bad-000000000000'],
];
const IN_DOCS = {
  'light-desktop': ['overview', 'tasks', 'task-failed', 'workflow', 'workflow-failed', 'failures', 'workers', 'worker-pool', 'queues', 'schedules', 'alerts', 'audit', 'about', 'retry', 'tasks-selected'],
  'dark-desktop': pages.map(([name]) => name).filter((name) => !['missing', 'worker-offline', 'task-success'].includes(name)),
  'light-phone': ['overview', 'tasks', 'task-failed', 'workflow', 'failures', 'workers', 'worker-pool', 'queues', 'schedules', 'alerts', 'audit', 'about'],
  'dark-phone': ['overview', 'tasks', 'workflow-failed', 'failures', 'workers', 'queues', 'schedules', 'alerts', 'audit', 'about', 'retry'],
};

const only = process.env.ONLY?.split(',');
const looks = (process.env.LOOKS ?? 'light-desktop,dark-desktop,light-phone,dark-phone').split(',');
const browser = await launch();
for (const look of looks) {
  const [scheme, size] = look.split('-');
  const phone = size === 'phone';
  const { page, context, problems } = await open(browser, { scheme, viewport: phone ? PHONE : DESKTOP, scale: phone ? 2 : 1, prefs: process.env.COMPACT ? { density: 'compact' } : undefined });
  const cdp = await context.newCDPSession(page);
  for (const [name, path, { slow, select, press } = {}] of pages) {
    if (!path && path !== '') continue;
    if (only ? !only.includes(name) : docs && !IN_DOCS[look].includes(name)) continue;
    await page.goto(base + path);
    await page.waitForSelector('main h1');
    await page.waitForTimeout(slow ? 2600 : 900);
    for (let i = 0; i < (select ?? 0); i++) await page.locator('.row .pick label').nth(i + 1).click();
    if (press) {
      await page.locator('.acts button', { hasText: press }).click();
      await page.waitForTimeout(500);
    }
    if (docs) {
      const { data } = await cdp.send('Page.captureScreenshot', { format: 'webp', quality: 62 });
      writeFileSync(`${folder}/${name}-${look}.webp`, Buffer.from(data, 'base64'));
    } else {
      await page.screenshot({ path: `${folder}/${name}-${look}.png`, fullPage: process.env.FULL === '1' });
    }
  }
  if (problems.length) console.log(look, [...new Set(problems)]);
  await context.close();
}
await browser.close();
mock?.close();
