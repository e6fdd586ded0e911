// Puts a .br and a .gz beside every built file that gets smaller by it, so that the server never compresses; and adds up
// what the heaviest page needs when nothing is cached: the first files, its own, and the chart library.

import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const OUT = fileURLToPath(new URL('../dist/', import.meta.url));
const DIST = join(OUT, 'assets/');
const MANIFEST = join(OUT, '.vite/manifest.json');
const BUDGET = 120_000;

const sizes = new Map([['index.html', gzipSync(readFileSync(join(OUT, 'index.html')), { level: 9 }).length]]);
for (const name of readdirSync(DIST)) {
  if (/\.(br|gz|map)$/.test(name)) continue;
  const path = join(DIST, name);
  const body = readFileSync(path);
  const br = brotliCompressSync(body, { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: body.length } });
  const gz = gzipSync(body, { level: 9 });
  if (br.length < body.length) writeFileSync(`${path}.br`, br);
  if (gz.length < body.length) writeFileSync(`${path}.gz`, gz);
  sizes.set(name, Math.min(gz.length, body.length));
}

if (!existsSync(MANIFEST)) throw new Error('vite wrote no manifest: build.manifest must be on');
const manifest = JSON.parse(readFileSync(MANIFEST, 'utf8'));
rmSync(join(OUT, '.vite'), { recursive: true }); // for this sum only

/** The files of an entry and of all that it needs at once. */
function files(key, seen = new Set()) {
  const entry = manifest[key];
  if (!entry || seen.has(key)) return [];
  seen.add(key);
  return [entry.file, ...(entry.css ?? []), ...(entry.assets ?? []), ...(entry.imports ?? []).flatMap((other) => files(other, seen))].map((file) => basename(file));
}

const weigh = (names) => [...new Set(names)].reduce((sum, name) => sum + (sizes.get(name) ?? 0), 0);
const first = ['index.html', ...files('index.html')];
const charts = Object.keys(manifest).filter((key) => key.includes('uplot')).flatMap((key) => files(key));
const pages = Object.keys(manifest).filter((key) => key.startsWith('src/pages/'));
const loads = [['first page', weigh([...first, ...charts])], ...pages.map((key) => [basename(key, '.svelte'), weigh([...first, ...charts, ...files(key)])])].sort((a, b) => b[1] - a[1]);
const [heaviest, bytes] = loads[0];
console.log(`${loads.map(([name, n]) => `${name} ${(n / 1000).toFixed(1)}`).join(', ')} kB with gzip, charts included`);
console.log(`heaviest cold page: ${heaviest}, ${(bytes / 1000).toFixed(1)} kB (budget ${BUDGET / 1000} kB); all files together ${(weigh([...sizes.keys()]) / 1000).toFixed(1)} kB`);
if (bytes > BUDGET) {
  console.error('over the budget for a first load');
  process.exit(1);
}
