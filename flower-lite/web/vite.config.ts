// Build and test settings. The output is plain files that work under any prefix (`base: './'`) and under a
// Content-Security-Policy without `unsafe-inline`, `unsafe-eval` or `data:`.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

const mock = process.env.FLOWER_URL ?? 'http://127.0.0.1:5556';

export default defineConfig({
  base: './',
  plugins: [svelte()],
  build: {
    target: 'es2022',
    assetsInlineLimit: 0, // no data: addresses, the policy forbids them
    modulePreload: { polyfill: false },
    manifest: true, // read and removed by scripts/compress.mjs
    chunkSizeWarningLimit: 200,
  },
  server: {
    host: '127.0.0.1',
    port: 5173,
    proxy: { '/api': { target: mock, changeOrigin: true } },
  },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
});
