// SPDX-License-Identifier: Apache-2.0
/** Which server is asked first, with a WebTransport that answers as it is told to. */

import assert from 'node:assert/strict';
import { beforeEach, mock, test } from 'node:test';

globalThis.location = { origin: 'https://node-1:8443', protocol: 'https:', hostname: 'node-1' };
globalThis.sessionStorage = { getItem: () => null };
const { Nodes } = await import('../page/node.mjs');

/** How each attempt ends: `ready`, `refused` or `silent`; and what was trusted. */
let answers, attempts;

globalThis.WebTransport = class {
  closed = new Promise(() => {});
  constructor(url, { serverCertificateHashes: hashes }) {
    const answer = answers[attempts.length] ?? 'unexpected';
    attempts.push(hashes ? 'hash' : 'authorities');
    this.ready = new Promise((resolve, reject) => ({ ready: resolve, refused: reject, silent() {} })[answer](new Error(answer)));
  }
  close() {}
};

beforeEach(() => {
  [answers, attempts] = [[], []];
  mock.timers.reset();
});

function nodes() {
  const all = new Nodes();
  all.facts = { webtransport: { port: 4433, certificate_hash: 'ab12' } };
  return all;
}

const SOCKETS = ['wss://node-1:8443'];
const WEBTRANSPORT = ['https://node-1:4433', ...SOCKETS];

test('where nothing answers by UDP, that is waited for once, for one and a half seconds', async () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  answers = ['silent'];
  const all = nodes();
  const first = all.servers('automatic');
  mock.timers.tick(1_500);
  assert.deepEqual((await first).urls, SOCKETS);
  assert.deepEqual((await all.servers('automatic')).urls, SOCKETS);
  assert.deepEqual(attempts, ['authorities']);
});

test('a certificate that nobody signed is trusted by its hash, and the next time at once', async () => {
  answers = ['refused', 'ready', 'ready'];
  const all = nodes();
  for (let time = 0; time < 2; time += 1) {
    assert.deepEqual(await all.servers('automatic'), { urls: WEBTRANSPORT, how: { certificateHash: 'ab12' } });
  }
  assert.deepEqual(attempts, ['authorities', 'hash', 'hash']);
});

test('one that is signed needs no hash, and what refuses both is asked by WebSocket and tried again', async () => {
  answers = ['ready', 'refused', 'refused', 'ready'];
  const all = nodes();
  assert.deepEqual(await all.servers('automatic'), { urls: WEBTRANSPORT, how: {} });
  assert.deepEqual(await all.servers('automatic'), { urls: SOCKETS, how: {} });
  assert.deepEqual(await all.servers('automatic'), { urls: WEBTRANSPORT, how: {} });
  assert.deepEqual(attempts, ['authorities', 'authorities', 'hash', 'authorities']);
});
