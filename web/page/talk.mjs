// SPDX-License-Identifier: Apache-2.0
/**
 * Somebody speaks, or a file does: the audio, the session, and what comes of it.
 *
 * Owns the microphone while it is open, the session, the recording and its playing. Must never go on listening when nothing is
 * sent any more.
 */

import { Recording } from './recording.mjs';
import { Session } from './starling-client.mjs';
import { EMPTY, heard } from './transcript.mjs';

/** What models hear; a browser that can't give it gives its own, and the node converts. */
const RATE = 16_000;
/** A piece of a file, as a microphone would give it. */
const PIECE_SECONDS = 0.1;
/** The last of what a microphone heard when it is closed: its pieces are on their way. */
const LAST_PIECE_MS = 150;

/** One session, from the wish for it to its end, and what was opened for it. */
class Attempt {
  /** Nobody waits any more for what comes of it. */
  over = false;
  /** Nothing more is to be heard. */
  deaf = false;
  session = null;
  sending = Promise.resolve();
  #closings = [];

  /** How something is closed that hears: at once, if nothing is to be heard by now. */
  closeBy(close) {
    if (this.deaf) close();
    else this.#closings.push(close);
  }

  /** Lets the microphone go: the browser shows that nobody listens. */
  hush() {
    this.deaf = true;
    this.#closings.splice(0).forEach((close) => close());
  }

  end() {
    this.over = true;
    this.hush();
    this.session?.close();
  }
}

export class Talk {
  /** `idle`, `opening`, `live`, `ending`, `done` or `failed`. */
  phase = 'idle';
  transcript = EMPTY;
  recording = new Recording(RATE);
  problem = null;
  /** What is spoken: `microphone`, or a file's name. */
  source = null;
  model = null;
  transport = null;
  sessionId = null;
  /** Seconds, while it is played. */
  playing = null;

  #nodes;
  #changed;
  /** The one that was begun last; another takes its place only once it is over. */
  #attempt = null;
  #player = null;

  constructor(nodes, changed) {
    this.#nodes = nodes;
    this.#changed = changed;
  }

  get live() {
    return ['opening', 'live', 'ending'].includes(this.phase);
  }

  /** Seconds of audio that no node has acknowledged. */
  get behind() {
    return this.#attempt?.session?.behind ?? 0;
  }

  /** Listens to the microphone until stopped. */
  async speak(options) {
    let [stream, context] = [null, null];
    const attempt = await this.#begin('microphone', options, async (begun) => {
      const constraints = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true };
      if (!navigator.mediaDevices) {
        throw new Error('this browser gives the microphone to pages over https:// and of this machine only');
      }
      // Whoever is asked may take minutes, and may have changed their mind.
      stream = await navigator.mediaDevices.getUserMedia({ audio: constraints });
      begun.closeBy(() => stream.getTracks().forEach((track) => track.stop()));
      if (begun.over) return null;
      context = await contextFor(stream);
      begun.closeBy(() => context.close());
      if (begun.over) return null;
      await context.audioWorklet.addModule(new URL('./capture.mjs', import.meta.url));
      return context.sampleRate;
    });
    if (!attempt || attempt.deaf) return;
    const capture = new AudioWorkletNode(context, 'capture', { numberOfOutputs: 0 });
    capture.port.onmessage = ({ data }) => this.#hear(attempt, data);
    context.createMediaStreamSource(stream).connect(capture);
    stream.getAudioTracks()[0].onended = () => attempt === this.#attempt && this.stop();
  }

  /** Has a file transcribed as fast as it was spoken. */
  async play(file, options) {
    let samples;
    const attempt = await this.#begin(file.name, options, async () => {
      samples = await decoded(file);
      return RATE;
    });
    if (!attempt) return;
    const piece = RATE * PIECE_SECONDS;
    const began = performance.now();
    for (let at = 0; at < samples.length && !attempt.deaf; at += piece) {
      this.#hear(attempt, samples.slice(at, at + piece));
      const due = began + ((at + piece) / RATE) * 1_000;
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
    }
    this.#finish(attempt);
  }

  /** Speaks no more; what was said is still written. */
  async stop() {
    if (this.phase === 'opening') return this.#over('idle');
    if (this.phase !== 'live') return;
    const attempt = this.#attempt;
    if (this.source === 'microphone') await new Promise((resolve) => setTimeout(resolve, LAST_PIECE_MS));
    this.#finish(attempt);
  }

  /** Forgets all that was said. */
  clear() {
    this.pause();
    this.#over('idle');
    [this.transcript, this.source, this.problem] = [EMPTY, null, null];
    this.recording = new Recording(RATE);
    this.#changed();
  }

  /** Something that is known of the session from elsewhere. */
  tell(event) {
    this.#take(event);
  }

  /** The attempt, once it is live; `null` when nothing comes of it, or nobody waits for it any more. */
  async #begin(source, { model, words, transport }, prepare) {
    if (this.live) return null;
    this.clear();
    const attempt = (this.#attempt = new Attempt());
    [this.phase, this.source] = ['opening', source];
    this.#changed();
    try {
      // Both take their time, and neither needs the other.
      const [rate, { urls, how }] = await Promise.all([prepare(attempt), this.#nodes.servers(transport)]);
      if (attempt.over) return null;
      this.recording = new Recording(rate);
      const options = { words, partials: true };
      const session = new Session(urls, { ...how, key: this.#nodes.key || null, model, sampleRate: rate, options });
      attempt.session = session;
      await session.open();
      if (attempt.over) return null;
      [this.phase, this.model, this.sessionId] = ['live', session.model, session.id];
      this.transport = session.server.startsWith('https:') ? 'WebTransport' : 'WebSocket';
      this.#take({ type: 'opened', node: session.node, durable: session.durable });
      this.#listen(attempt);
      return attempt;
    } catch (error) {
      if (!attempt.over) this.#fail(error);
      return null;
    }
  }

  async #listen(attempt) {
    const { session } = attempt;
    try {
      for await (const event of session) {
        if (attempt.over) return;
        this.sessionId = session.id;
        this.#take(event);
      }
      if (!attempt.over) this.#over('done');
    } catch (error) {
      if (!attempt.over) this.#fail(error);
    }
  }

  #take(event) {
    this.transcript = heard(this.transcript, event, { rate: this.recording.rate, at: Date.now() });
    this.#changed();
  }

  #hear(attempt, samples) {
    if (attempt.deaf) return;
    this.recording.push(samples);
    // It waits for room while no node can be reached, and what is said meanwhile waits behind it. Why it fails, the events say.
    const { session } = attempt;
    attempt.sending = attempt.sending.then(() => session.send(samples)).catch(() => {});
    this.#changed();
  }

  #finish(attempt) {
    if (attempt.deaf) return;
    this.phase = 'ending';
    attempt.hush();
    attempt.sending.then(() => attempt.session.finish());
    this.#changed();
  }

  #fail(error) {
    this.problem = explained(error);
    this.#over('failed');
  }

  #over(phase) {
    this.phase = phase;
    this.#attempt?.end();
    this.#attempt = null;
    this.#changed();
  }

  /** Plays what was said, from a time in seconds on. */
  playFrom(seconds) {
    this.pause();
    const { recording } = this;
    const from = Math.max(recording.from, Math.min(seconds * recording.rate, recording.to));
    const samples = recording.samples(from);
    if (!samples.length) return;
    const context = new AudioContext();
    const buffer = context.createBuffer(1, samples.length, recording.rate);
    buffer.copyToChannel(Float32Array.from(samples, (sample) => sample / 32_768), 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(context.destination);
    const began = context.currentTime;
    const at = from / recording.rate;
    const timer = setInterval(() => {
      this.playing = at + context.currentTime - began;
      this.#changed();
    }, 60);
    this.#player = () => {
      clearInterval(timer);
      source.onended = null;
      context.close();
    };
    source.onended = () => this.pause();
    this.playing = at;
    source.start();
    this.#changed();
  }

  pause() {
    this.#player?.();
    this.#player = this.playing = null;
    this.#changed();
  }
}

/** An audio context at the models' rate, or at the browser's own where it can't bring the microphone to that. */
async function contextFor(stream) {
  const fitting = new AudioContext({ sampleRate: RATE });
  try {
    fitting.createMediaStreamSource(stream).disconnect();
    await fitting.resume();
    return fitting;
  } catch {
    await fitting.close();
    const own = new AudioContext();
    await own.resume();
    return own;
  }
}

/** A file's audio as 16-bit mono. */
async function decoded(file) {
  const context = new OfflineAudioContext(1, 1, RATE);
  let buffer;
  try {
    buffer = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`the file ${file.name} is no audio that this browser can read`);
  }
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, index) => buffer.getChannelData(index));
  return Int16Array.from({ length: buffer.length }, (_, at) => {
    const sum = channels.reduce((all, channel) => all + channel[at], 0);
    return Math.max(-32_768, Math.min(32_767, Math.round((sum / channels.length) * 32_768)));
  });
}

function explained(error) {
  if (error.name === 'NotAllowedError') return 'The browser was not allowed to use the microphone. Allow it for this page, then try again.';
  if (error.name === 'NotFoundError') return 'There is no microphone.';
  const text = error.message || String(error);
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}`;
}
