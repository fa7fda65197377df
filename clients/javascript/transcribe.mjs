#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * Sends a recording to Starling and prints its text, line by line as it is final. For Node; the client itself is in
 * starling-client.mjs.
 */

import { createReadStream } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { Session, StarlingError } from './starling-client.mjs';

const USAGE = `Usage: node transcribe.mjs [--url ws://HOST:PORT]... [--key KEY] [--model NAME] [--realtime] [--rate HZ] FILE.wav|-

  --url       a server; may be given several times (ws://127.0.0.1:8080)
  --key       the key, where the servers ask for one
  --model     a model by name; the server's default otherwise
  --realtime  send at the pace of speech
  --rate      samples a second, where the input is raw 16-bit mono samples and no WAV (16000)`;

/** Reads from a stream by numbers of bytes. */
class Reader {
  #pieces;
  #held = Buffer.alloc(0);

  constructor(stream) {
    this.#pieces = stream[Symbol.asyncIterator]();
  }

  /** So many bytes, fewer at the end. */
  async read(count) {
    while (this.#held.length < count) {
      const { value, done } = await this.#pieces.next();
      if (done) break;
      this.#held = Buffer.concat([this.#held, value]);
    }
    const taken = this.#held.subarray(0, count);
    this.#held = this.#held.subarray(taken.length);
    return taken;
  }
}

/** What the format codes of a WAV file with their bits are to the server. */
const KINDS = {
  '1/8': 'pcm_u8',
  '1/16': 'pcm_s16le',
  '1/24': 'pcm_s24le',
  '1/32': 'pcm_s32le',
  '3/32': 'pcm_f32le',
  '3/64': 'pcm_f64le',
  '6/8': 'alaw',
  '7/8': 'mulaw',
};

/** Reads a WAV file up to its samples, also from a pipe; what has no head is taken for raw samples. */
async function readHead(reader, rawRate) {
  const riff = await reader.read(12);
  if (!['RIFF', 'RF64', 'BW64'].includes(riff.toString('latin1', 0, 4)) || riff.toString('latin1', 8) !== 'WAVE') {
    return { encoding: 'pcm_s16le', sampleRate: rawRate, channels: 1, bits: 16, begun: riff, bytes: Infinity };
  }
  let sound = null;
  // Bytes of samples, where there may be more than 32 bits can say.
  let long = 0;
  for (;;) {
    const head = await reader.read(8);
    if (head.length < 8) throw new Error('the WAV file has no samples');
    const name = head.toString('latin1', 0, 4);
    const size = head.readUInt32LE(4);
    if (name === 'data' && sound) {
      const bytes = size === 0xffffffff ? long : size;
      // A recording that is still being made can't say how long it will be.
      return { ...sound, bytes: bytes > 0 && bytes <= Number.MAX_SAFE_INTEGER ? bytes : Infinity };
    }
    const body = await reader.read(size + (size % 2));
    if (name === 'ds64' && body.length >= 16) long = Number(body.readBigUInt64LE(8));
    if (name !== 'fmt ' || body.length < 16) continue;
    const bits = body.readUInt16LE(14);
    const tag = body.readUInt16LE(0) === 0xfffe && body.length >= 26 ? body.readUInt16LE(24) : body.readUInt16LE(0);
    const encoding = KINDS[`${tag}/${bits}`];
    if (!encoding) throw new Error(`samples of kind ${tag} with ${bits} bits are not taken; convert them to 16-bit PCM`);
    sound = { encoding, sampleRate: body.readUInt32LE(4), channels: body.readUInt16LE(2), bits, begun: Buffer.alloc(0) };
  }
}

/** Sends the recording in pieces of 100 ms, and no faster than it was spoken if that is wanted. */
async function speak(session, reader, sound, realtime) {
  const frameBytes = (sound.bits / 8) * sound.channels;
  const began = performance.now();
  let [frames, kept, left] = [0, sound.begun, sound.bytes];
  for (;;) {
    const piece = await reader.read(Math.min(left, Math.max(1, Math.floor(sound.sampleRate / 10)) * frameBytes));
    left -= piece.length;
    const audio = Buffer.concat([kept, piece]);
    const whole = audio.length - (audio.length % frameBytes);
    kept = audio.subarray(whole);
    await session.send(audio.subarray(0, whole));
    if (piece.length === 0) return session.finish();
    frames += whole / frameBytes;
    if (realtime) await sleep(Math.max(0, began + (frames * 1_000) / sound.sampleRate - performance.now()));
  }
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      url: { type: 'string', multiple: true, default: ['ws://127.0.0.1:8080'] },
      key: { type: 'string' },
      model: { type: 'string' },
      realtime: { type: 'boolean', default: false },
      rate: { type: 'string', default: '16000' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help || positionals.length !== 1) {
    console.error(USAGE);
    return values.help ? 0 : 64;
  }
  const [recording] = positionals;
  const reader = new Reader(recording === '-' ? process.stdin : createReadStream(recording));
  const { encoding, sampleRate, channels, ...rest } = await readHead(reader, Number(values.rate));
  const shows = process.stderr.isTTY;
  const options = { partials: Boolean(shows), batch: !values.realtime && recording !== '-' };
  const session = new Session(values.url, { ...values, encoding, sampleRate, channels, options });
  await session.open();
  // Why sending failed, the events say.
  speak(session, reader, { encoding, sampleRate, channels, ...rest }, values.realtime).catch((error) => {
    if (!(error instanceof StarlingError)) throw error;
  });
  let whole = true;
  for await (const event of session) {
    if (shows && ['partial', 'final', 'gap'].includes(event.type)) process.stderr.write('\r\x1b[K');
    if (event.type === 'partial' && shows) process.stderr.write(event.text);
    if (event.type === 'final') {
      whole &&= event.error === null;
      if (event.text) console.log(event.text);
    }
    if (event.type === 'gap') {
      whole = false;
      const [from, to] = [event.from, event.to].map((frame) => (frame / sampleRate).toFixed(1));
      console.error(`the servers lost what was said from ${from} s to ${to} s`);
    }
    if (event.type === 'reconnected') {
      console.error(`the connection was lost and replaced after ${event.seconds.toFixed(1)} s`);
    }
    if (event.type === 'notice') console.error(`the server says: ${event.message}`);
  }
  return whole ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
