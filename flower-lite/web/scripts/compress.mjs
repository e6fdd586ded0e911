// Puts a .br and a .gz beside every built file that gets smaller by it, so that the server never compresses.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const DIST = fileURLToPath(new URL('../dist/assets/', import.meta.url));
const BUDGET = 120_000;

let firstLoad = 0;
for (const name of readdirSync(DIST)) {
  if (/\.(br|gz|map)$/.test(name)) continue;
  const path = join(DIST, name);
  const body = readFileSync(path);
  const br = brotliCompressSync(body, { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: body.length } });
  const gz = gzipSync(body, { level: 9 });
  if (br.length < body.length) writeFileSync(`${path}.br`, br);
  if (gz.length < body.length) writeFileSync(`${path}.gz`, gz);
  firstLoad += Math.min(gz.length, body.length);
}

console.log(`all assets together: ${(firstLoad / 1000).toFixed(1)} kB with gzip (budget ${BUDGET / 1000} kB)`);
if (firstLoad > BUDGET) {
  console.error('over the budget for a first load');
  process.exit(1);
}
