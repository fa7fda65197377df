/**
 * Deepgram's library, unmodified, with a Starling node as its address: a recording, and the same spoken live.
 *
 * Usage: node deepgram-listen.mjs HOST:PORT FILE.wav (where keys are asked for, with one in DEEPGRAM_API_KEY)
 */

import { createReadStream, readFileSync } from 'node:fs';

import { DeepgramClient } from '@deepgram/sdk';

const [address, path] = process.argv.slice(2);
const [http, ws] = [`http://${address}`, `ws://${address}`];
const client = new DeepgramClient({
  apiKey: process.env.DEEPGRAM_API_KEY ?? 'none',
  environment: { base: http, production: ws, agent: ws, agentRest: http },
});

const recorded = await client.listen.v1.media.transcribeFile(createReadStream(path), { model: 'nova-3' });

/** 16 kHz mono behind the shortest head that a WAV file can have. */
const pcm = readFileSync(path).subarray(44);
const connection = await client.listen.v1.connect({
  model: 'nova-3',
  encoding: 'linear16',
  sample_rate: 16_000,
  interim_results: 'true',
});
const [finals, kinds] = [[], []];
const closed = new Promise((resolve) => connection.on('close', resolve));
connection.on('message', (message) => {
  kinds.push(message.type);
  if (message.type === 'Results' && message.is_final) finals.push(message.channel.alternatives[0].transcript);
});
connection.on('error', (error) => console.error(`error: ${error.message}`));
connection.connect();
await connection.waitForOpen();
for (let at = 0; at < pcm.length; at += 3_200) connection.sendMedia(pcm.subarray(at, at + 3_200));
connection.sendCloseStream({ type: 'CloseStream' });
await closed;

const told = {
  recording: recorded.results.channels[0].alternatives[0].transcript,
  live: finals.filter(Boolean).join(' '),
  last: kinds.slice(-1),
};
console.log(JSON.stringify(told, null, 2));
