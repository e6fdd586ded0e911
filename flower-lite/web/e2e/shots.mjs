// Pictures of every page, light and dark, desktop and phone, into the folder given (default: e2e/shots).
//
//   npm run shots -- [base url] [folder]        without a base url the mock is started

import { mkdirSync } from 'node:fs';
import { startMock } from '../mock/server.mjs';
import { DESKTOP, launch, open, PHONE } from './browser.mjs';

const [baseArg, folder = 'e2e/shots'] = process.argv.slice(2);
const mock = baseArg ? null : await startMock({ rate: 9, history: 900 });
const base = (baseArg || mock.url).replace(/\/?$/, '/');
mkdirSync(folder, { recursive: true });

const find = async (query) => (await (await fetch(`${base}api/v2/tasks?${query}`)).json()).items;
const failed = (await find('state=FAILURE&limit=100')).find((t) => t.retries > 0) ?? (await find('state=FAILURE&limit=1'))[0];
const workers = (await (await fetch(`${base}api/v2/workers`)).json()).items;
const online = workers.find((w) => w.online) ?? workers[0];
const dead = workers.find((w) => !w.online);
const parent = (await find('name=demo.pipeline&limit=1'))[0];
const rich = (await find('name=search.reindex&state=SUCCESS&limit=1'))[0] ?? (await find('state=SUCCESS&limit=1'))[0];

const pages = [
  ['overview', ''],
  ['tasks', 'tasks'],
  ['tasks-failed', 'tasks?state=FAILURE,RETRY'],
  ['task-failed', failed && `task/${failed.id}`],
  ['task-success', rich && `task/${rich.id}`],
  ['task-parent', parent && `task/${parent.id}`],
  ['workers', 'workers'],
  ['worker', online && `worker/${encodeURIComponent(online.name)}`],
  ['worker-offline', dead && `worker/${encodeURIComponent(dead.name)}`],
  ['missing', 'task/00000000-dead-4bad-8bad-000000000000'],
];

const only = process.env.ONLY?.split(',');
const looks = (process.env.LOOKS ?? 'light-desktop,dark-desktop,light-phone,dark-phone').split(',');
const browser = await launch();
for (const look of looks) {
  const [scheme, size] = look.split('-');
  const { page, context, problems } = await open(browser, { scheme, viewport: size === 'phone' ? PHONE : DESKTOP, scale: size === 'phone' ? 2 : 1, prefs: process.env.COMPACT ? { density: 'compact' } : undefined });
  for (const [name, path] of pages) {
    if (!path && path !== '') continue;
    if (only && !only.includes(name)) continue;
    await page.goto(base + path);
    await page.waitForSelector('main h1');
    await page.waitForTimeout(name === 'overview' || name === 'workers' ? 2600 : 900);
    await page.screenshot({ path: `${folder}/${name}-${look}.png`, fullPage: process.env.FULL === '1' });
  }
  if (problems.length) console.log(look, [...new Set(problems)]);
  await context.close();
}
await browser.close();
mock?.close();
