// SPDX-License-Identifier: Apache-2.0
/** Speaking, with a browser that asks its user first and a server on the other end, both played. */

import assert from 'node:assert/strict';
import { register } from 'node:module';
import { beforeEach, test } from 'node:test';

// A node serves the client beside the page's own modules.
const client = new URL('../../clients/javascript/starling-client.mjs', import.meta.url).href;
const hook = `export const resolve = (name, context, next) =>
  name === './starling-client.mjs' ? { url: ${JSON.stringify(client)}, shortCircuit: true } : next(name, context);`;
register(`data:text/javascript,${encodeURIComponent(hook)}`);
const { Talk } = await import('../page/talk.mjs');

/** What the browser was asked for, in order: microphones by how each is granted, what listens, sockets. */
let asked, contexts, ears, sockets;

class Microphone {
  tracks = [{ stopped: false, stop() { this.stopped = true; } }];
  getTracks = () => this.tracks;
  getAudioTracks = () => this.tracks;
  get open() {
    return !this.tracks[0].stopped;
  }
}

globalThis.AudioContext = class {
  sampleRate = 16_000;
  state = 'running';
  audioWorklet = { addModule: async () => {} };
  constructor() {
    contexts.push(this);
  }
  createMediaStreamSource = () => ({ connect() {}, disconnect() {} });
  async resume() {}
  async close() {
    this.state = 'closed';
  }
};

globalThis.AudioWorkletNode = class {
  port = {};
  constructor() {
    ears.push(this);
  }
};

/** Takes every session, and counts what it is sent. */
globalThis.WebSocket = class {
  readyState = 0;
  frames = 0;
  constructor() {
    sockets.push(this);
    setTimeout(() => {
      if (this.readyState === 3) return;
      this.readyState = 1;
      this.onopen();
    });
  }
  send(what) {
    if (typeof what !== 'string') return void (this.frames += what.byteLength / 2);
    const { type, session } = JSON.parse(what);
    const more = { resumed: false, durable: false, linger_ms: 60_000, node: 'node-1', epoch: 1, token: 't' };
    if (type === 'hello') this.#say({ type: 'ready', session, model: 'm', have_until: 0, next_segment: 0, ...more });
    if (type === 'end') this.#say({ type: 'done', segments: 0, frames: this.frames });
  }
  close() {
    this.readyState = 3;
  }
  #say(message) {
    setTimeout(() => this.onmessage({ data: JSON.stringify(message) }));
  }
};

beforeEach(() => {
  [asked, contexts, ears, sockets] = [[], [], [], []];
  const getUserMedia = () => new Promise((grant, refuse) => {
    const microphone = new Microphone();
    asked.push({ microphone, grant: () => grant(microphone), refuse });
  });
  Object.defineProperty(globalThis, 'navigator', { value: { mediaDevices: { getUserMedia } }, configurable: true });
});

const OPTIONS = { model: 'm', words: false, transport: 'websocket' };
const nodes = (servers = async () => ({ urls: ['ws://node-1'], how: {} })) => ({ servers, key: '' });
const turn = () => new Promise((resolve) => setTimeout(resolve));
const until = async (holds) => {
  while (!holds()) await turn();
};
const listening = () => asked.filter(({ microphone }) => microphone.open).length;

/** The microphone hears a tenth of a second; every ear that is there is told. */
const sound = () => ears.forEach(({ port }) => port.onmessage({ data: new Int16Array(1_600) }));

test('what is said is sent, and at the end the microphone is let go', async () => {
  const talk = new Talk(nodes(), () => {});
  const began = talk.speak(OPTIONS);
  asked[0].grant();
  await began;
  assert.equal(talk.phase, 'live');
  sound();
  await talk.stop();
  await until(() => talk.phase === 'done');
  assert.deepEqual([sockets[0].frames, talk.recording.to], [1_600, 1_600]);
  assert.deepEqual([listening(), contexts.map(({ state }) => state)], [0, ['closed']]);
});

test('a microphone that is granted after Stop is let go at once', async () => {
  const talk = new Talk(nodes(), () => {});
  const began = talk.speak(OPTIONS);
  await turn();
  await talk.stop();
  assert.equal(talk.phase, 'idle');
  asked[0].grant();
  await began;
  await turn();
  assert.deepEqual([talk.phase, listening(), ears.length, sockets.length], ['idle', 0, 0, 0]);
  assert.ok(contexts.every(({ state }) => state === 'closed'));
});

test('Talk, Stop and Talk is one session, heard by one microphone', async () => {
  const talk = new Talk(nodes(), () => {});
  const first = talk.speak(OPTIONS);
  await talk.stop();
  const second = talk.speak(OPTIONS);
  asked.forEach(({ grant }) => grant());
  await Promise.all([first, second]);
  assert.deepEqual([talk.phase, listening(), ears.length, sockets.length], ['live', 1, 1, 1]);
  sound();
  await talk.stop();
  await until(() => talk.phase === 'done');
  assert.deepEqual([sockets[0].frames, talk.recording.to, listening()], [1_600, 1_600, 0]);
});

test('Stop while the session is opened lets go of all of it', async () => {
  const talk = new Talk(nodes(), () => {});
  const began = talk.speak(OPTIONS);
  asked[0].grant();
  await until(() => sockets.length);
  await talk.stop();
  await began;
  await turn();
  assert.deepEqual([talk.phase, talk.problem, listening(), ears.length], ['idle', null, 0, 0]);
  assert.equal(sockets[0].readyState, 3);
});

test('a microphone that is granted after the attempt has failed is let go at once', async () => {
  const talk = new Talk(nodes(async () => { throw new Error('no node answers'); }), () => {});
  await talk.speak(OPTIONS);
  assert.deepEqual([talk.phase, talk.problem], ['failed', 'No node answers.']);
  asked[0].grant();
  await turn();
  assert.deepEqual([talk.phase, listening(), ears.length], ['failed', 0, 0]);
});

test('who refuses the microphone after Stop is told nothing, and before it why', async () => {
  const talk = new Talk(nodes(), () => {});
  const refused = Object.assign(new Error('denied'), { name: 'NotAllowedError' });
  const first = talk.speak(OPTIONS);
  await talk.stop();
  asked[0].refuse(refused);
  await first;
  assert.deepEqual([talk.phase, talk.problem], ['idle', null]);
  const second = talk.speak(OPTIONS);
  asked[1].refuse(refused);
  await second;
  assert.equal(talk.phase, 'failed');
  assert.match(talk.problem, /not allowed to use the microphone/);
});
