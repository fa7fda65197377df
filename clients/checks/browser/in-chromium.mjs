/**
 * Our own client in a page of Chromium, over WebSocket, or over WebTransport to an address that begins with https://.
 *
 * Usage: node in-chromium.mjs [--certificate-hash HEX] [--pace 2] [--loss] URL... FILE.wav
 *
 *   --certificate-hash  SHA-256 of a self-signed certificate, for WebTransport
 *   --pace              times as fast as the recording was spoken
 *   --loss              a connection will be lost: the last third is said once another has replaced it, however slow the machine
 */

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

import { opened, within } from './chromium.mjs';

/** Longer than a recording takes on a machine that is busy. */
const PATIENCE_MS = 80_000;

/** The page with what it needs, under an origin of this machine's, which nodes admit. */
async function served(recording) {
  const here = (path) => new URL(path, import.meta.url);
  const files = {
    '/': ['text/html', here('page.html')],
    '/starling-client.mjs': ['text/javascript', here('../../javascript/starling-client.mjs')],
    '/speech.wav': ['audio/wav', recording],
  };
  const server = createServer(({ url }, answer) => {
    const [type, path] = files[url] ?? [];
    answer.writeHead(type ? 200 : 404, { 'content-type': type ?? 'text/plain' }).end(path && readFileSync(path));
  });
  await new Promise((resolve) => server.listen(0, 'localhost', resolve));
  return server;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    'certificate-hash': { type: 'string' },
    pace: { type: 'string', default: '2' },
    loss: { type: 'boolean', default: false },
  },
});
const urls = positionals.slice(0, -1);
const server = await served(positionals.at(-1));
const browser = await opened();
try {
  const page = await browser.newPage();
  page.on('pageerror', (error) => console.error(`the page: ${error.stack ?? error.message}`));
  page.on('console', (message) => console.error(`the page: ${message.text()}`));
  await page.goto(`http://localhost:${server.address().port}/`);
  await page.waitForFunction(() => window.transcribe);
  const how = { urls, certificateHash: values['certificate-hash'], pace: Number(values.pace), lossAwaited: values.loss };
  const told = await within(PATIENCE_MS, page.evaluate((how) => window.transcribe(how), how));
  console.log(JSON.stringify({ text: told.finals.join(' '), ...told }, null, 2));
} finally {
  await browser.close();
  server.close();
}
