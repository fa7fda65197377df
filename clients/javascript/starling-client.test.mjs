// SPDX-License-Identifier: Apache-2.0
/**
 * The client against servers in this process that drop it, forget it, and send it away, at places that a seed decides.
 *
 * Run it with: node --test starling-client.test.mjs
 */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { decode, encode } from '@msgpack/msgpack';
import { WebSocket, WebSocketServer } from 'ws';

import { Session, StarlingError } from './starling-client.mjs';

const RATE = 8_000;
const QUICK = { openDeadline: 10_000, giveUp: 10_000, attempt: 400, liveness: 5_000, backoffFirst: 5, backoffMost: 50 };

/** Numbers from zero to one that follow from a seed (mulberry32). */
function chances(seed) {
  let state = seed + 1;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function noise(seed, frames) {
  const chance = chances(seed);
  return Buffer.from(Array.from({ length: 2 * frames }, () => Math.floor(chance() * 256)));
}

/** Where the segment that begins at a frame ends, from its audio alone; null while it is open. */
function cut(audio, start, ended) {
  const frames = audio.length / 2;
  for (let end = start + 500; end <= Math.min(start + 3_000, frames); end += 1) {
    if (end === start + 3_000 || audio[2 * end - 1] === 7) return end;
  }
  return ended && frames > start ? frames : null;
}

function textOf(audio, from, to) {
  return createHash('sha1').update(audio.subarray(2 * from, 2 * to)).digest('hex');
}

/** What has to come of some audio. */
function segmentsOf(audio) {
  const found = [];
  for (let [from, to] = [0, cut(audio, 0, true)]; to !== null; [from, to] = [to, cut(audio, to, true)]) {
    found.push({ from, to, text: textOf(audio, from, to) });
  }
  return found;
}

/** Servers that share their sessions. `faults` are chances by kind, for each message. */
class Servers {
  sessions = new Map();
  happened = {};
  confirmed = new Map();
  acks = true;
  view = null;
  refuse = null;
  /** The audio of each session that was done, as it was then. */
  done = [];
  #listening = [];
  #chance;
  #faults;

  constructor(seed = 0, faults = {}) {
    this.#chance = chances(seed);
    this.#faults = faults;
  }

  async start() {
    this.#listening = [0, 1, 2].map(() => new WebSocketServer({ host: '127.0.0.1', port: 0 }));
    this.#listening.forEach((server) => server.on('connection', (link) => this.#serve(link)));
    await Promise.all(this.#listening.map((server) => once(server, 'listening')));
    this.addresses = this.#listening.map((server) => `127.0.0.1:${server.address().port}`);
    this.urls = this.addresses.map((address) => `ws://${address}`);
    return this;
  }

  stop() {
    for (const server of this.#listening) {
      server.clients.forEach((link) => link.terminate());
      server.close();
    }
  }

  #strikes(fault) {
    const struck = this.#chance() < (this.#faults[fault] ?? 0);
    this.happened[fault] = (this.happened[fault] ?? 0) + struck;
    return struck;
  }

  #serve(link) {
    let [kept, known, name] = [null, 0, null];
    const say = (message) => link.send(JSON.stringify(message));
    const tell = () => {
      for (; known < kept.finals.length; known += 1) say(kept.finals[known]);
    };
    link.on('error', () => {});
    link.on('message', (data, isBinary) => {
      const message = isBinary ? data : JSON.parse(data);
      if (message.type === 'hello') {
        name = message.session;
        if (this.refuse) return say({ type: 'error', ...this.refuse });
        if (this.#strikes('deaf')) return link.terminate();
        kept = this.#takeOn(link, say, message);
        if (kept === null || this.#strikes('mute')) return;
        known = (message.resume?.last_final ?? -1) + 1;
        const place = { have_until: kept.audio.length / 2, next_segment: known, resumed: Boolean(message.resume) };
        say({ type: 'ready', session: name, epoch: kept.epoch, token: name, model: 'm', ...place, durable: false, linger_ms: 1 });
        if (this.view) say({ type: 'view', view: 1, token: name, ...this.view });
        return tell();
      }
      if (kept?.owner !== link) return;
      if (this.#strikes('forget')) {
        this.sessions.clear();
        kept.owner = null;
        return link.terminate();
      }
      if (this.#strikes('dropUnheard')) {
        kept.owner = null;
        return link.terminate();
      }
      if (isBinary) {
        kept.audio = Buffer.concat([kept.audio, data]);
        if (this.acks) say({ type: 'ack', until: kept.audio.length / 2 });
        this.#commit(kept);
      } else if (message.type === 'confirm') {
        this.confirmed.set(name, message.segment);
      } else if (message.type === 'finalize') {
        this.#add(kept, kept.audio.length / 2, 'finalize');
      } else if (message.type === 'end') {
        kept.ended = true;
        this.#commit(kept);
      }
      if (this.#strikes('dropHeard')) {
        kept.owner = null;
        return link.terminate();
      }
      tell();
      if (kept.ended) {
        this.done.push(kept.audio);
        say({ type: 'done', segments: kept.finals.length, frames: kept.audio.length / 2 });
      } else if (this.#strikes('sendAway')) {
        say({ type: 'go_away', deadline_ms: 300 });
      }
    });
  }

  /** The session that a hello is about, or null where it was refused. */
  #takeOn(link, say, { session: name, epoch = 1, resume }) {
    let kept = this.sessions.get(name);
    let code = null;
    if (!resume) {
      // Which another node may have heard before.
      if (kept && epoch <= kept.epoch) code = 'superseded';
      kept ??= { audio: Buffer.alloc(0), finals: [], epoch: 1, owner: null, ended: false };
      kept.epoch = Math.max(kept.epoch, epoch);
      this.sessions.set(name, kept);
    } else if (!kept) code = 'unknown_session';
    else if (resume.epoch <= kept.epoch) code = 'superseded';
    else if (resume.have_from > kept.audio.length / 2) code = 'gap';
    if (code) {
      say({ type: 'error', code, message: code });
      return null;
    }
    kept.owner?.send(JSON.stringify({ type: 'error', code: 'superseded', message: 'a later connection speaks' }));
    kept.owner = link;
    if (resume) {
      kept.epoch = resume.epoch;
      if (this.#strikes('beBehind')) {
        // Another copy is asked, which lacks some of the audio and has none of the finals that the client lacks.
        const least = Math.max(resume.have_from, resume.final_to ?? 0);
        const until = least + Math.floor(this.#chance() * (kept.audio.length / 2 - least + 1));
        kept.audio = kept.audio.subarray(0, 2 * until);
        kept.finals.length = (resume.last_final ?? -1) + 1;
        kept.ended = false;
        this.#commit(kept);
      }
    }
    return kept;
  }

  #commit(kept) {
    for (let to; (to = cut(kept.audio, kept.finals.at(-1)?.to ?? 0, kept.ended)) !== null; ) this.#add(kept, to, 'endpoint');
  }

  #add(kept, to, cause) {
    const from = kept.finals.at(-1)?.to ?? 0;
    const times = { start: from / RATE, end: to / RATE };
    const place = { type: 'final', segment: kept.finals.length, from, to, cause };
    kept.finals.push({ ...place, ...times, text: textOf(kept.audio, from, to), words: [{ word: 'w', ...times }] });
  }
}

/** WebTransport to the servers above, with somebody else's MessagePack; what comes is cut anywhere. */
class Framed {
  static chance = chances(0);
  #socket;

  constructor(url) {
    this.#socket = new WebSocket(url.replace('https:', 'ws:'));
    this.#socket.on('error', () => {});
    this.ready = once(this.#socket, 'open');
    this.closed = new Promise((resolve) => this.#socket.on('close', resolve));
  }

  async createBidirectionalStream() {
    const socket = this.#socket;
    const start = (controller) => {
      socket.on('message', (data) => {
        const body = encode(JSON.parse(data));
        const head = Buffer.from([0, 0, 0, 0, 1]);
        head.writeUInt32BE(body.length + 1);
        const frame = Buffer.concat([head, body]);
        const at = Math.floor(Framed.chance() * frame.length);
        for (const piece of [frame.subarray(0, at), frame.subarray(at)]) controller.enqueue(new Uint8Array(piece));
      });
      socket.on('close', () => controller.close());
    };
    const write = (frame) => {
      const body = Buffer.from(frame).subarray(5);
      assert.equal(Buffer.from(frame).readUInt32BE(0), body.length + 1);
      socket.send(frame[4] === 1 ? JSON.stringify(decode(body)) : body);
    };
    return { readable: new ReadableStream({ start }), writable: new WritableStream({ write, close: () => socket.close() }) };
  }

  close() {
    this.#socket.terminate();
  }
}

async function speak(session, audio, seed, finalizeAt = []) {
  const chance = chances(seed);
  for (let at = 0; at < audio.length; ) {
    const until = at + 2 * Math.floor(1 + chance() * 600);
    const stops = finalizeAt.map((stop) => 2 * stop).filter((stop) => at < stop && stop < until);
    const next = Math.min(until, ...stops);
    await session.send(audio.subarray(at, next));
    at = next;
    if (finalizeAt.includes(at / 2)) session.finalize();
    // Lets messages come in, as the pace of speech does.
    await sleep(1);
  }
  session.finish();
}

/** All events of a session that speaks some audio. */
async function heard(servers, audio, { seed = 0, finalizeAt, ...how } = {}) {
  const timing = { ...QUICK, ...how.timing };
  const session = new Session(how.urls ?? servers.urls, { sampleRate: RATE, ...how, timing });
  await session.open();
  const speaking = speak(session, audio, seed, finalizeAt);
  const events = [];
  for await (const event of session) events.push(event);
  await speaking;
  return events;
}

const finalsOf = (events) => events.filter(({ type }) => type === 'final');

async function disturbed(seed, faults, { transports = ['ws', 'ws', 'ws'], ...how } = {}) {
  const audio = noise(seed, 20_000);
  const servers = await new Servers(seed, faults).start();
  const urls = servers.addresses.map((address, index) => `${transports[index]}://${address}`);
  const events = await heard(servers, audio, { seed, urls, ...how });
  servers.stop();
  const finals = finalsOf(events);
  assert.deepEqual(finals.map(({ from, to, text }) => ({ from, to, text })), segmentsOf(audio), `seed ${seed}`);
  assert.deepEqual(finals.map(({ segment }) => segment), [...finals.keys()]);
  for (const { start, from, to, words } of finals) {
    assert.ok(Math.abs(start - from / RATE) < 1e-6 && Math.abs(words[0].end - to / RATE) < 1e-6);
  }
  assert.deepEqual(events.at(-1), { type: 'done', segments: finals.length, frames: 20_000 });
  assert.ok(!events.some(({ type }) => type === 'gap'));
  // What was heard by the server session that was done is the audio's end, each sample once.
  const isEnd = (heard) => audio.subarray(audio.length - heard.length).equals(heard);
  assert.ok(servers.done.length > 0 && servers.done.every(isEnd), `seed ${seed}`);
  return { happened: servers.happened, events };
}

test('every final comes once, whatever is cut', async () => {
  const faults = { dropUnheard: 0.03, dropHeard: 0.03, beBehind: 0.4, sendAway: 0.02, deaf: 0.1, mute: 0.1 };
  const total = Object.fromEntries(Object.keys(faults).map((fault) => [fault, 0]));
  let replaced = 0;
  for (let seed = 0; seed < 25; seed += 1) {
    const { happened, events } = await disturbed(seed, faults);
    for (const fault of Object.keys(total)) total[fault] += happened[fault] ?? 0;
    replaced += events.filter(({ type }) => type === 'reconnected').length;
  }
  assert.ok(Object.values(total).every((count) => count > 0), JSON.stringify(total));
  assert.ok(replaced > 25, `${replaced}`);
});

test('the same over WebTransport, and from one transport to the other', async () => {
  const faults = { dropUnheard: 0.03, dropHeard: 0.03, beBehind: 0.4, sendAway: 0.02, deaf: 0.1, mute: 0.1 };
  let replaced = 0;
  for (const transports of [['https', 'https', 'https'], ['https', 'ws', 'https']]) {
    for (let seed = 0; seed < 5; seed += 1) {
      const { events } = await disturbed(seed, faults, { transports, WebTransport: Framed });
      replaced += events.filter(({ type }) => type === 'reconnected').length;
    }
  }
  assert.ok(replaced > 10, `${replaced}`);
});

test('what hello says arrives over WebTransport as it was, with the key', async () => {
  const options = { words: true, alternatives: 3, phrases: ['naïve', 'x'.repeat(300)], odd: [-1.5, -3, 2 ** 40, null, {}] };
  const said = [];
  class Noted extends Framed {
    async createBidirectionalStream() {
      const stream = await super.createBidirectionalStream();
      const writer = stream.writable.getWriter();
      const write = (frame) => {
        if (frame[4] === 1) said.push(decode(frame.subarray(5)));
        return writer.write(frame);
      };
      return { ...stream, writable: new WritableStream({ write, close: () => writer.close() }) };
    }
  }
  const servers = await new Servers().start();
  const urls = servers.addresses.map((address) => `https://${address}`);
  const events = await heard(servers, noise(5, 2_000), { urls, key: 'k', options, WebTransport: Noted });
  servers.stop();
  assert.equal(events.at(-1).type, 'done');
  const { type, options: told, api_key: key } = said[0];
  assert.deepEqual([type, told, key], ['hello', options, 'k']);
  assert.deepEqual(said.at(-1).type, 'confirm');
});

test('a session that every server lost begins anew at its last final', async () => {
  let restarts = 0;
  for (let seed = 0; seed < 10; seed += 1) {
    const { events } = await disturbed(seed, { forget: 0.01, dropHeard: 0.01 });
    restarts += events.filter(({ restarted }) => restarted).length;
  }
  assert.ok(restarts > 3, `${restarts}`);
});

test('what nobody has any more is a gap between finals', async () => {
  const audio = noise(1, 20_000);
  let gaps = 0;
  for (let seed = 0; seed < 5; seed += 1) {
    const servers = await new Servers(seed, { forget: 0.02 }).start();
    const events = await heard(servers, audio, { seed, timing: { ring: 50 } });
    servers.stop();
    let at = 0;
    for (const event of events.filter(({ type }) => type === 'final' || type === 'gap')) {
      assert.equal(event.from, at);
      at = event.to;
      if (event.type === 'gap') gaps += 1;
      else assert.equal(event.text, textOf(audio, event.from, at));
    }
    assert.equal(at, 20_000);
  }
  assert.ok(gaps > 0);
});

test('a finalize is answered across connections', async () => {
  const finalizeAt = [700, 2_345, 6_000];
  for (let seed = 0; seed < 8; seed += 1) {
    const servers = await new Servers(seed, { dropUnheard: 0.05, dropHeard: 0.05 }).start();
    const ends = finalsOf(await heard(servers, noise(seed, 8_000), { seed, finalizeAt })).map(({ to }) => to);
    servers.stop();
    assert.ok(finalizeAt.every((place) => ends.includes(place)), `seed ${seed}: ${ends}`);
  }
});

test('a node that is named is asked to go on', async () => {
  const audio = noise(3, 20_000);
  const servers = await new Servers(3, { dropHeard: 0.05 }).start();
  servers.view = { durable: true, resume_at: [servers.addresses[1], 'no address', 'x:0'] };
  const asked = [];
  class Noted extends WebSocket {
    constructor(url, ...rest) {
      super(url, ...rest);
      asked.push(url);
    }
  }
  const events = await heard({ urls: servers.urls.slice(0, 1) }, audio, { seed: 3, WebSocket: Noted });
  servers.stop();
  assert.deepEqual(finalsOf(events).map(({ text }) => text), segmentsOf(audio).map(({ text }) => text));
  assert.ok(events.some(({ type, durable }) => type === 'durable' && durable));
  assert.ok(asked.includes(`ws://${servers.addresses[1]}/v1/stream`), `${asked}`);
});

test('finals are confirmed when they were taken', async () => {
  const servers = await new Servers().start();
  const finals = finalsOf(await heard(servers, noise(4, 5_000)));
  for (let tries = 0; tries < 100 && [...servers.confirmed.values()][0] !== finals.length - 1; tries += 1) await sleep(20);
  servers.stop();
  assert.deepEqual([...servers.confirmed.values()], [finals.length - 1]);
});

test('sending waits while the ring is full', async () => {
  const servers = await new Servers().start();
  servers.acks = false;
  const session = new Session(servers.urls, { sampleRate: RATE, timing: { ...QUICK, ring: 50 } });
  await session.open();
  await session.send(new Int16Array(400));
  const waiting = session.send(new Int16Array(1)).then(() => 'sent', () => 'failed');
  assert.equal(await Promise.race([waiting, sleep(300, 'waits')]), 'waits');
  session.close();
  assert.equal(await waiting, 'failed');
  servers.stop();
});

test('a refusal is thrown with its code', async () => {
  const servers = await new Servers().start();
  for (const code of ['unknown_model', 'busy']) {
    servers.refuse = { code, message: `${code}, it says`, retry_after_ms: 1 };
    const opening = new Session(servers.urls, { timing: QUICK }).open();
    await assert.rejects(opening, (error) => error instanceof StarlingError && error.code === code && /it says/.test(error.message));
  }
  servers.stop();
});

test('it gives up at the deadline and says what it met', async () => {
  const timing = { ...QUICK, openDeadline: 200, giveUp: 200 };
  await assert.rejects(new Session(['ws://127.0.0.1:9'], { timing }).open(), /no server answered .*ECONNREFUSED/);
  const servers = await new Servers().start();
  const session = new Session(servers.urls, { sampleRate: RATE, timing });
  await session.open();
  servers.stop();
  await assert.rejects(async () => {
    for await (const event of session) assert.notEqual(event.type, 'done');
  }, /no server went on/);
});

test('what cannot be used is named', () => {
  for (const url of ['', 'localhost:8080', 'http://a', 'ws://']) assert.throws(() => new Session([url]), /ws:\/\/HOST:PORT/);
  assert.throws(() => new Session(['https://a'], { WebTransport: undefined }), /no WebTransport here/);
  assert.throws(() => new Session(['https://a'], { WebTransport: Framed, certificateHash: 'ab:cd' }), /certificateHash is 'ab:cd'/);
});
