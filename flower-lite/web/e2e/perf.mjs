// How much the tasks page costs: script time per live update, and the longest task while scrolling and filtering.
//
//   node e2e/perf.mjs [base url]      without one, the mock with 100,000 tasks and RATE (200) more a second

import { startMock } from '../mock/server.mjs';
import { launch, open } from './browser.mjs';

const given = process.argv[2]?.replace(/\/?$/, '/');
const mock = given ? null : await startMock({ rate: Number(process.env.RATE ?? 200), history: 104_000 / Number(process.env.RATE ?? 200) });
const base = given ?? mock.url;
const browser = await launch();
const { page, context } = await open(browser);
const cdp = await context.newCDPSession(page);
// The time of this thread, not of the clock on the wall: a busy machine doesn't make the page slower than it is.
await cdp.send('Performance.enable', { timeDomain: 'threadTicks' });
const metrics = async () => Object.fromEntries((await cdp.send('Performance.getMetrics')).metrics.map((m) => [m.name, m.value]));
const ms = (n) => `${n.toFixed(1)} ms`;

const cold = await (async () => {
  await page.goto(`${base}tasks`);
  await page.waitForSelector('.row');
  return page.evaluate(() => ({
    paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0,
    bytes: performance.getEntriesByType('resource').filter((e) => e.name.includes('/assets/')).reduce((n, e) => n + e.encodedBodySize, 0),
  }));
})();
console.log(`first contentful paint ${ms(cold.paint)}; assets ${(cold.bytes / 1000).toFixed(0)} kB as sent`);

await page.waitForTimeout(2000);
let before = await metrics();
await page.waitForTimeout(10_000);
let after = await metrics();
const updates = 40;
const per = (name) => ((after[name] - before[name]) * 1000) / updates;
console.log(`live at the top, per 4 Hz update: script ${ms(per('ScriptDuration'))}, style ${ms(per('RecalcStyleDuration'))}, layout ${ms(per('LayoutDuration'))}`);

/** The longest piece of work of the page's thread while `run` goes on, in time of that thread. */
async function longest(run) {
  await browser.startTracing(page, { categories: ['toplevel', '__metadata'] });
  await run();
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  const mains = new Set(traceEvents.filter((e) => e.name === 'thread_name' && e.args.name === 'CrRendererMain').map((e) => `${e.pid} ${e.tid}`));
  return Math.max(0, ...traceEvents.filter((e) => mains.has(`${e.pid} ${e.tid}`) && e.tdur).map((e) => e.tdur)) / 1000;
}

const scrolled = await longest(async () => {
  for (let i = 0; i < 60; i++) {
    await page.mouse.wheel(0, 900);
    await page.waitForTimeout(50);
  }
});
console.log(`scrolling 54,000 px while live: longest task ${ms(scrolled)}; rows in the document ${await page.locator('.row').count()}`);

await page.evaluate(() => scrollTo(0, 0));
const filtered = await longest(async () => {
  await page.locator('.chip', { hasText: 'Failure' }).click();
  await page.waitForTimeout(1500);
  await page.locator('#query').fill('timed');
  await page.waitForTimeout(1500);
});
console.log(`filtering: longest task ${ms(filtered)}`);

await page.goto(base);
await page.waitForSelector('.uplot');
await page.waitForTimeout(2000);
before = await metrics();
await page.waitForTimeout(10_000);
after = await metrics();
console.log(`overview, per 4 Hz update: script ${ms(per('ScriptDuration'))}, style ${ms(per('RecalcStyleDuration'))}, layout ${ms(per('LayoutDuration'))}`);
console.log(`heap ${((await metrics()).JSHeapUsedSize / 1e6).toFixed(1)} MB`);

await browser.close();
mock?.close();
