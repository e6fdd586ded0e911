// Pictures of every page, light and dark, desktop and phone.
//
//   npm run shots -- [base url] [folder]        without a base url the mock is started; default folder: e2e/shots
//
// The pictures of the documentation are of a real cluster, as WebP: see real.mjs --shots. ONLY=tasks,queues and
// LOOKS=dark-phone make fewer; FULL=1 takes whole pages.

import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { startMock } from '../mock/server.mjs';
import { DESKTOP, launch, open, PHONE } from './browser.mjs';

const segment = encodeURIComponent;

/** The pages with something on them: name, address, and what to do before. */
async function choose(json) {
  const find = async (query) => (await json(`tasks?${query}`)).items ?? [];
  const failures = await find('state=FAILURE&limit=200');
  const failed = failures.find((t) => t.retries > 0) ?? failures.find((t) => t.name.includes('charge')) ?? failures[0];
  const workers = (await json('workers')).items;
  const online = workers.find((w) => w.online) ?? workers[0];
  const dead = workers.find((w) => !w.online);
  const rich = (await find('name=search.reindex&state=SUCCESS&limit=1'))[0] ?? (await find('state=SUCCESS&limit=1'))[0];

  /** A task of a workflow of some size; with `fails`, one whose member failed. */
  const flow = async (fails) => {
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
  };
  const chord = await flow(false);
  const broken = await flow(true);
  const letters = (await json('dead-letters')).items?.find((q) => q.ready > 0);
  const at = (worker, tab) => worker && `worker/${segment(worker.name)}${tab ? `?tab=${tab}` : ''}`;

  return [
    ['overview', '', { slow: true }],
    ['tasks', 'tasks'],
    ['tasks-selected', 'tasks?state=FAILURE,RETRY', { select: 3 }],
    ['task-failed', failed && `task/${segment(failed.id)}`],
    ['task-success', rich && `task/${segment(rich.id)}`],
    ['workflow', chord && `task/${segment(chord.id)}`],
    ['workflow-failed', broken && `task/${segment(broken.id)}`],
    ['retry', failed && `task/${segment(failed.id)}`, { press: 'Retry with changes' }],
    ['failures', 'failures'],
    ['workers', 'workers', { slow: true }],
    ['worker', at(online, ''), { slow: true }],
    ['worker-held', at(online, 'held'), { slow: true }],
    ['worker-pool', at(online, 'pool'), { slow: true }],
    ['worker-tasks', at(online, 'tasks'), { slow: true }],
    ['worker-offline', at(dead, '')],
    ['queues', letters ? `queues?dead=${segment(letters.queue)}` : 'queues', { slow: true }],
    ['schedules', 'schedules'],
    ['alerts', 'alerts'],
    ['audit', 'audit'],
    ['about', 'about'],
    ['missing', 'task/00000000-dead-4bad-8bad-000000000000'],
  ];
}

const IN_DOCS = {
  'light-desktop': ['overview', 'tasks', 'task-failed', 'workflow', 'workflow-failed', 'failures', 'workers', 'worker-pool', 'queues', 'schedules', 'alerts', 'audit', 'about', 'retry', 'tasks-selected'],
  'dark-desktop': ['overview', 'tasks', 'task-failed', 'workflow-failed', 'failures', 'workers', 'worker', 'worker-held', 'worker-tasks', 'queues', 'schedules', 'alerts', 'audit', 'about'],
  'light-phone': ['overview', 'tasks', 'task-failed', 'workflow', 'failures', 'workers', 'worker-pool', 'queues', 'schedules', 'alerts', 'audit', 'about'],
  'dark-phone': ['overview', 'tasks', 'workflow-failed', 'failures', 'workers', 'queues', 'schedules', 'alerts', 'audit', 'about', 'retry'],
};

const only = process.env.ONLY?.split(',');
const looks = (process.env.LOOKS ?? 'light-desktop,dark-desktop,light-phone,dark-phone').split(',');

/** Takes the pictures; with `logIn`, as somebody. `docs`: the smaller set, small files. */
export async function picture(browser, base, folder, { json, logIn, docs = false }) {
  mkdirSync(folder, { recursive: true });
  const pages = await choose(json);
  for (const look of looks) {
    const [scheme, size] = look.split('-');
    const phone = size === 'phone';
    const { page, context, problems } = await open(browser, { scheme, viewport: phone ? PHONE : DESKTOP, scale: phone ? 2 : 1, prefs: process.env.COMPACT ? { density: 'compact' } : undefined });
    const cdp = await context.newCDPSession(page);
    const save = async (name) => {
      if (docs) writeFileSync(`${folder}/${name}-${look}.webp`, Buffer.from((await cdp.send('Page.captureScreenshot', { format: 'webp', quality: 60 })).data, 'base64'));
      else await page.screenshot({ path: `${folder}/${name}-${look}.png`, fullPage: process.env.FULL === '1' });
    };
    if (logIn) {
      await page.goto(`${base}login`);
      await page.locator('input[type=password]').waitFor();
      if (!only || only.includes('login')) await save('login');
      await logIn(page);
    }
    for (const [name, path, { slow, select, press } = {}] of pages) {
      if (!path && path !== '') continue;
      if (only ? !only.includes(name) : docs && !IN_DOCS[look].includes(name)) continue;
      await page.goto(base + path);
      await page.waitForSelector('main h1');
      await page.waitForTimeout(slow ? 3500 : 1200);
      for (let i = 0; i < (select ?? 0); i++) await page.locator('.row .pick label').nth(i + 1).click();
      if (press) {
        await page.locator('.acts button', { hasText: press }).click();
        await page.waitForTimeout(600);
      }
      await save(name);
    }
    if (problems.length) console.log(look, [...new Set(problems)]);
    await context.close();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [given, folder = 'e2e/shots'] = process.argv.slice(2);
  const mock = given ? null : await startMock({ rate: 9, history: 900 });
  const base = (given || mock.url).replace(/\/?$/, '/');
  const browser = await launch();
  await picture(browser, base, folder, { json: async (path) => (await fetch(`${base}api/v2/${path}`)).json().catch(() => ({})) });
  await browser.close();
  mock?.close();
}
