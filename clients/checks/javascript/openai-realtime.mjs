/**
 * OpenAI's library, unmodified, speaks to a Starling node live: `OpenAIRealtimeWS` over TLS (NODE_EXTRA_CA_CERTS names a certificate
 * of one's own), and the class for browsers without.
 *
 * Usage: node openai-realtime.mjs http://HOST:PORT https://HOST:PORT FILE.wav (16-bit mono; OpenAI itself takes 24 kHz alone)
 */

import { readFileSync } from 'node:fs';

import OpenAI from 'openai';
import { OpenAIRealtimeWebSocket } from 'openai/realtime/websocket';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { WebSocket } from 'ws';

// Node before 22 has none.
globalThis.WebSocket ??= WebSocket;

const [http, https, path] = process.argv.slice(2);
const wav = readFileSync(path);
const rate = wav.readUInt32LE(24);
// Behind the shortest head that a WAV file can have.
const pcm = wav.subarray(44);

/** Speaks once `session.update` is answered, commits, and gives the item's transcript. */
function spoken(realtime) {
  const told = new Promise((resolve, reject) => {
    realtime.on('error', reject);
    realtime.on('conversation.item.input_audio_transcription.completed', ({ transcript }) => resolve(transcript));
    realtime.on('session.created', () => {
      const audio = { format: { type: 'audio/pcm', rate }, turn_detection: null };
      realtime.send({ type: 'session.update', session: { type: 'transcription', audio: { input: audio } } });
    });
    realtime.on('session.updated', () => {
      for (let at = 0; at < pcm.length; at += rate / 5) {
        realtime.send({ type: 'input_audio_buffer.append', audio: pcm.toString('base64', at, at + rate / 5) });
      }
      realtime.send({ type: 'input_audio_buffer.commit' });
    });
  });
  return told.finally(() => realtime.close());
}

const client = (base) => new OpenAI({ baseURL: `${base}/v1`, apiKey: 'none', dangerouslyAllowBrowser: true });
const model = 'gpt-4o-transcribe';
// The class for browsers asks for TLS, too; this takes it back.
const onURL = (url) => (url.protocol = 'ws:');
const told = {
  OpenAIRealtimeWS: await spoken(new OpenAIRealtimeWS({ model }, client(https))),
  OpenAIRealtimeWebSocket: await spoken(new OpenAIRealtimeWebSocket({ model, dangerouslyAllowBrowser: true, onURL }, client(http))),
};
console.log(JSON.stringify(told, null, 2));
