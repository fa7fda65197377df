/**
 * OpenAI's library, unmodified, with a Starling node as its address: a recording in three of its formats.
 *
 * Usage: node openai-recordings.mjs http://HOST:PORT FILE.wav (where keys are asked for, with one in OPENAI_API_KEY)
 */

import { createReadStream } from 'node:fs';

import OpenAI from 'openai';

const [base, path] = process.argv.slice(2);
const apiKey = process.env.OPENAI_API_KEY ?? 'none';
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey, timeout: 60_000, maxRetries: 0 });
const transcribe = (how) => client.audio.transcriptions.create({ model: 'whisper-1', file: createReadStream(path), ...how });

const verbose = await transcribe({ response_format: 'verbose_json' });
const events = [];
for await (const event of await transcribe({ stream: true })) events.push(event);

const models = [];
for await (const model of client.models.list()) models.push((await client.models.retrieve(model.id)).id);

const told = {
  models,
  json: (await transcribe()).text,
  verbose_json: verbose.text,
  segments: verbose.segments.map(({ text }) => text),
  duration: verbose.duration,
  language: verbose.language,
  stream: events.at(-1).text,
  deltas: events.map(({ delta }) => delta ?? '').join(''),
};
console.log(JSON.stringify(told, null, 2));
