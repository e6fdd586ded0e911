// Every page by the Tab key alone: whatever can be used is reached, shows that it has the focus, and lets it go again.

import { startMock } from '../mock/server.mjs';
import { check, ensure, until } from './check.mjs';
import { open } from './browser.mjs';

const MOST = 700;

export async function keyboard(browser, visit) {
  const mock = await startMock({ rate: 1, history: 120 });
  const base = mock.url;
  const { page, context } = await open(browser);
  const task = (await (await fetch(`${base}api/v2/tasks?limit=1&state=FAILURE`)).json()).items[0] ?? (await (await fetch(`${base}api/v2/tasks?limit=1`)).json()).items[0];
  const worker = `worker/${encodeURIComponent('celery@worker-1')}`;
  const paths = ['', 'tasks', `task/${task.id}`, 'failures', 'workers', worker, ...['held', 'pool', 'queues', 'tasks', 'conf'].map((tab) => `${worker}?tab=${tab}`), 'queues?dead=payments.dead', 'schedules', 'alerts', 'audit', 'about'];

  for (const path of paths) {
    await check(`by Tab alone: ${path || 'overview'}`, async () => {
      await visit(page, path, base);
      // Rows that come and go while one walks make no fair walk.
      if (path === 'tasks') await page.keyboard.press('p');
      await page.evaluate(() => (document.activeElement)?.blur());
      const reached = new Set();
      let around = false;
      for (let i = 0; i < MOST && !around; i++) {
        await page.keyboard.press('Tab');
        const here = await page.evaluate(() => {
          const e = document.activeElement;
          if (!e || e === document.body) return null;
          const named = [e, e.closest('label'), e.closest('.node')?.querySelector('.box'), ...(e.matches('.open') ? [e.closest('.row')] : [])].filter(Boolean);
          const shown = named.some((x) => { const s = getComputedStyle(x); const after = getComputedStyle(x, '::after'); return (s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0) || (after.outlineStyle !== 'none' && parseFloat(after.outlineWidth) > 0) || s.boxShadow !== 'none' || parseFloat(s.strokeWidth) >= 2; });
          e.dataset.walked ??= String(Math.random());
          return { key: e.dataset.walked, shown, what: e.outerHTML.slice(0, 120), skip: e.classList.contains('skip') };
        });
        if (here === null || (here.skip && reached.size > 0)) around = true;
        else {
          ensure(here.shown, `nothing shows the focus on ${here.what}`);
          reached.add(here.key);
        }
      }
      ensure(around, `after ${MOST} steps still somewhere in the page`);
      const left = await page.evaluate(() => [...document.querySelectorAll('main a[href], main button, main input, main select, main textarea, main [tabindex="0"]')].filter((e) => e.tabIndex >= 0 && !e.disabled && e.checkVisibility() && e.type !== 'radio' && !e.dataset.walked).map((e) => e.outerHTML.slice(0, 120)));
      // What came while walking was not there to be reached.
      ensure(left.length <= 6, `never reached: ${left.slice(0, 4).join('\n')}`);
    });
  }

  await check('the help lists the keys, and g leads everywhere it says', async () => {
    await visit(page, '', base);
    for (const [key, heading] of [['f', 'Failures'], ['q', 'Queues'], ['s', 'Schedules'], ['a', 'Alerts'], ['w', 'Workers'], ['t', 'Tasks'], ['o', 'Overview']]) {
      await page.keyboard.press('g');
      await page.keyboard.press(key);
      await until(`focus on ${heading}`, async () => (await page.evaluate(() => document.activeElement?.textContent?.trim())) === heading);
    }
    await page.keyboard.press('?');
    ensure((await page.locator('dialog[open]').innerText()).includes('Schedules'), 'the help lacks pages');
    await page.keyboard.press('Escape');
  });

  await context.close();
  mock.close();
}
