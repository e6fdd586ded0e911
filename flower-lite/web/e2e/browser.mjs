// Starts the system's Chromium for the browser tests. No download, no traffic but to the page under test.

import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

const CANDIDATES = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

export async function launch() {
  const executablePath = CANDIDATES.find((path) => path && existsSync(path));
  if (!executablePath) throw new Error('No Chromium found: install the Debian package chromium, or set CHROMIUM to its path');
  return chromium.launch({
    executablePath,
    args: ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])],
  });
}

export const DESKTOP = { width: 1360, height: 860 };
export const PHONE = { width: 360, height: 740 };

/** A fresh page in the given looks; `problems` collects console errors, failed requests and policy violations. */
export async function open(browser, { scheme = 'light', viewport = DESKTOP, scale = 1, prefs } = {}) {
  const context = await browser.newContext({ colorScheme: scheme, viewport, deviceScaleFactor: scale, reducedMotion: 'no-preference', timezoneId: 'UTC', locale: 'en-GB' });
  await context.grantPermissions(['clipboard-read', 'clipboard-write']).catch(() => undefined);
  const page = await context.newPage();
  if (prefs) await page.addInitScript((value) => localStorage.setItem('flower-lite', JSON.stringify(value)), prefs);
  const problems = [];
  page.on('console', (message) => message.type() === 'error' && problems.push(`console: ${message.text()} (${message.location().url})`));
  page.on('pageerror', (error) => problems.push(`exception: ${error.message}`));
  page.on('dialog', (dialog) => {
    problems.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on('request', (request) => {
    const to = new URL(request.url());
    if (!['127.0.0.1', 'localhost', '[::1]'].includes(to.hostname)) problems.push(`request to another host: ${request.url()}`);
  });
  return { context, page, problems };
}
