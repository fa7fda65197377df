// SPDX-License-Identifier: Apache-2.0
/** The nodes that the page may ask: the one that it came from, and the others of the cluster once that one is gone. */

import { EventParser } from './sse.mjs';

/** How long an answer may take. */
const ANSWER_MS = 5_000;
/** A stream of events says something every five seconds. */
const SILENCE_MS = 12_000;
/** Between attempts at a stream that broke. */
const RETRY_MS = [200, 500, 1_000, 2_000, 4_000];
/** Over UDP that something swallows there is no answer: WebSocket is asked instead after this. */
const PROBE_MS = 1_500;
const KEY = 'starling.key';

/** What a node answered that it does not want. */
export class Refusal extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `the node answered ${status}`);
    this.status = status;
    this.code = body?.error?.code ?? null;
  }
}

export class Nodes {
  /** Origins, that of the page first; once another has answered, that one. */
  #origins = [location.origin];
  #names = new Map();
  /** What asking by WebTransport has shown, as long as the page is open: that nothing answers, and how its certificate was trusted. */
  #probed = { silent: false, byHash: false };
  facts = null;

  get key() {
    return sessionStorage.getItem(KEY) ?? '';
  }

  set key(key) {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  }

  /** Asks what there is to know, and of which other nodes. */
  async learn() {
    const facts = await this.ask('/v1/page');
    this.facts = facts;
    this.note(facts.nodes);
    return facts;
  }

  /** Takes note of nodes, as `{name, address}`. Over TLS nodes' own addresses are in clear, and no place for a key. */
  note(nodes) {
    if (location.protocol !== 'http:') return;
    for (const { name, address } of nodes) {
      const origin = `http://${address}`;
      this.#names.set(address, name);
      if (!this.#origins.includes(origin) && name !== this.facts?.node) this.#origins.push(origin);
    }
  }

  /** A node's answer as JSON, of the first that has one. */
  async ask(path, { method = 'GET' } = {}) {
    let problem;
    for (const origin of [...this.#origins]) {
      try {
        const answer = await this.#fetch(`${origin}${path}`, { method, signal: AbortSignal.timeout(ANSWER_MS) });
        this.#prefer(origin);
        const text = await answer.text();
        const body = parsed(text);
        if (!answer.ok) throw new Refusal(answer.status, body);
        return body ?? text;
      } catch (error) {
        if (error instanceof Refusal) throw error;
        problem = error;
        // What changes something is not asked twice.
        if (method !== 'GET') break;
      }
    }
    throw new Error(`no node answers (${problem.message})`);
  }

  /** Follows a stream of events from whichever node has one, until told to stop. */
  async follow(path, { signal, onEvent, onState }) {
    for (let failures = 0; !signal.aborted; ) {
      const [origin] = this.#origins;
      try {
        await this.#read(`${origin}${path}`, signal, (event) => {
          failures = 0;
          onState({ connected: true, from: this.nameOf(origin), error: null });
          onEvent(event);
        });
      } catch (error) {
        if (signal.aborted) return;
        onState({ connected: false, from: this.nameOf(origin), error });
        if (error instanceof Refusal && error.status !== 503) return;
      }
      this.#origins.push(this.#origins.shift());
      await pause(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)], signal);
      failures += 1;
    }
  }

  async #read(url, signal, onEvent) {
    const silence = new AbortController();
    const stop = () => silence.abort();
    signal.addEventListener('abort', stop);
    let timer = setTimeout(stop, SILENCE_MS);
    try {
      const answer = await this.#fetch(url, { signal: silence.signal, cache: 'no-store' });
      if (!answer.ok) throw new Refusal(answer.status, parsed(await answer.text()));
      const [reader, decoder, parser] = [answer.body.getReader(), new TextDecoder(), new EventParser()];
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new Error('the stream ended');
        clearTimeout(timer);
        timer = setTimeout(stop, SILENCE_MS);
        parser.push(decoder.decode(value, { stream: true })).forEach(onEvent);
      }
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
      silence.abort();
    }
  }

  #fetch(url, options) {
    const headers = this.key ? { authorization: `Bearer ${this.key}` } : {};
    return fetch(url, { ...options, headers, credentials: 'omit', referrerPolicy: 'no-referrer' });
  }

  #prefer(origin) {
    if (this.#origins[0] === origin) return;
    this.#origins = [origin, ...this.#origins.filter((other) => other !== origin)];
  }

  nameOf(origin) {
    const { host } = new URL(origin);
    return this.#names.get(host) ?? (origin === location.origin ? this.facts?.node : null) ?? host;
  }

  /**
   * Where a session is opened, the best first: WebTransport where the browser and the node have it, then WebSocket, here and at the
   * other nodes. `how` is what the client needs besides. UDP that something swallows is waited for once.
   */
  async servers(transport) {
    const sockets = this.#origins.map((origin) => origin.replace(/^http/, 'ws'));
    const offered = this.facts?.webtransport;
    if (transport === 'websocket' || !offered || !globalThis.WebTransport) return { urls: sockets, how: {} };
    const url = `https://${location.hostname}:${offered.port}`;
    // One that somebody signed is trusted by itself; one that nobody did, by its hash.
    const trusts = [{}, { certificateHash: offered.certificate_hash }];
    if (this.#probed.byHash) trusts.reverse();
    for (const how of this.#probed.silent ? [] : trusts) {
      const answer = await probed(`${url}/v1/stream`, how, this.key);
      this.#probed = { silent: answer === 'silent', byHash: answer === 'ready' ? Boolean(how.certificateHash) : this.#probed.byHash };
      if (answer === 'ready') return { urls: [url, ...sockets], how };
      if (answer === 'silent') break;
    }
    if (transport === 'webtransport') throw new Error(`${url} does not answer by WebTransport`);
    return { urls: sockets, how: {} };
  }
}

/** Whether there is WebTransport at an address: `ready`, `refused`, or `silent`. */
async function probed(url, { certificateHash }, key) {
  const bytes = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
  const trust = certificateHash ? { serverCertificateHashes: [{ algorithm: 'sha-256', value: bytes(certificateHash) }] } : {};
  let [transport, timer] = [null, null];
  try {
    transport = new WebTransport(key ? `${url}?token=${encodeURIComponent(key)}` : url, trust);
    transport.closed.catch(() => {});
    const late = new Promise((resolve) => (timer = setTimeout(resolve, PROBE_MS, 'silent')));
    return await Promise.race([transport.ready.then(() => 'ready'), late]);
  } catch {
    return 'refused';
  } finally {
    clearTimeout(timer);
    try {
      transport?.close();
    } catch {
      // It was never open.
    }
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
  });
}
