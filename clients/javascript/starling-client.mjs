// SPDX-License-Identifier: Apache-2.0
/**
 * A client of Starling in one file, to be copied: speech in, text out, whatever happens to the connection. For browsers and for
 * Node; there it takes `ws` from npm where Node has no WebSocket of its own (before version 22). To servers at `https://` it speaks
 * WebTransport, which browsers have.
 *
 * Owns the audio that may have to be sent again, the connection, and its replacement by another when it is lost. Every final is
 * given out once, in order, adjoining the last; what no server has any more is a `gap`, never silence. What is said on the wire
 * is in docs/protocol.md of Starling.
 *
 *     const session = new Session(['ws://a:8080', 'ws://b:8080'], { sampleRate: 16000 });
 *     await session.open();
 *     speak(session);                       // await session.send(pcm) ... session.finish()
 *     for await (const event of session) {
 *       if (event.type === 'final') console.log(event.text);
 *     }
 *
 * Events are objects with a `type`. Frames count what was sent, `start` and `end` are seconds:
 *   partial      segment, from, until, text      the text so far; those overtaken before they were read are left out
 *   final        segment, from, to, start, end, cause, text, words, confidence, alternatives, error
 *   gap          from, to                        audio that will have no text: every server lost it, and it is not held here
 *   durable      durable                         whether the servers hold acknowledged audio twice has changed
 *   notice       code, message                   the server has something to say; the session goes on
 *   lost         server, node, message           the connection is gone, and another is looked for; `node` is the server's name
 *   reconnected  seconds, restarted, server, node   a lost connection was replaced; restarted: servers had lost the session
 *   moved        server, node                    the server stops, and another goes on: nothing was lost on the way
 *   done         segments, frames                every final has come; nothing follows
 */

const STREAM_PATH = '/v1/stream';
const FRAME_BYTES = { pcm_u8: 1, mulaw: 1, alaw: 1, pcm_s16le: 2, pcm_s24le: 3, pcm_s32le: 4, pcm_f32le: 4, pcm_f64le: 8 };
/** Half a second of 16 kHz speech: far below the server's limit of 1 MiB. */
const MAX_WRITE_BYTES = 16 << 10;
/** A server stops at 256 finals that were not taken, and partials overtake each other: more is a consumer that is gone. */
const MAX_WAITING_EVENTS = 1_024;
/** Nodes that a server names: more than there are copies, few enough to ask in a row. */
const MAX_SUGGESTED = 8;
/** An unheard attempt of our own speaks for the session once; more often it is another client. */
const MAX_SUPERSEDED = 4;
/** A server that loses the same audio this often loses it for a reason. */
const MAX_RESTARTS = 3;
/** A node that could not be asked may have what is otherwise lost, and be back within so many rounds. */
const ROUNDS_BEFORE_A_GAP = 3;
/** A server that takes connections only to drop them must not reset the backoff. */
const HEALTHY_AFTER_MS = 1_000;
/** How long before a finalize its final may end: what the server's resampler has not heard out. */
const UNHEARD_MS = 10;
/** How long a server may take for the closing handshake, a courtesy that nobody waits for. */
const CLOSE_MS = 1_000;
/** Bytes before a frame's body on a stream: how many follow, and of what kind they are. */
const FRAME_HEAD_BYTES = 5;
const [MESSAGE, AUDIO] = [1, 2];
/** The longest that a frame may say to be: 1 MiB and its kind. */
const MAX_FRAME_BYTES = (1 << 20) + 1;

/** What a server means that takes no WebSocket; only Node is told. */
const REFUSED = {
  401: { code: 'unauthorized', message: 'the key is missing or not known there' },
  403: { code: 'forbidden', message: 'the key is not good for that' },
};

/** How long to try, in milliseconds. The defaults are those of the Rust SDK. */
export const TIMING = Object.freeze({
  openDeadline: 5_000, // Until a session that no server takes is given up; zero asks each server once.
  giveUp: 60_000, // The same for one that was open: as long as a server keeps it.
  attempt: 5_000, // From the first packet to `ready`.
  liveness: 15_000, // A connection that is owed an answer and on which nothing is heard for so long is lost.
  backoffFirst: 100, // Delays are drawn from zero to an upper end, which doubles from this one ...
  backoffMost: 3_000, // ... to this one.
  ring: 60_000, // Audio that is kept to be sent again.
});

/** The session could not be opened, or is over before its end. `code` is the server's word for why, if it gave one. */
export class StarlingError extends Error {
  constructor(message, code = null) {
    super(message);
    this.name = 'StarlingError';
    this.code = code;
  }
}

/** A connection, or the attempt at one, is gone. */
class Lost extends Error {}

/** A server answered with an error. */
class Refused extends Error {
  constructor(body) {
    super(String(body.message ?? body.code));
    this.body = body;
    this.code = String(body.code);
  }
}

/** One stream of speech. Send to it and iterate over its events at the same time. */
export class Session {
  #urls;
  #key;
  #rate;
  #frame;
  #first;
  #timing;
  #waitWhenBusy;
  #WebSocket;
  #WebTransport;
  #trust;

  #link = null;
  #leaving = null;
  #leaveUntil = 0;
  #asking = false;
  #failure = null;
  #opened = false;
  #over = false;
  #events = [];
  #waiting = new Set();

  // Whom to ask: the server of the last connection, the configured one that was live last, those that a view named.
  #home;
  #homeStops = false;
  #rotation = 0;
  #suggested = [];
  #attempts = 0;
  #superseded = 0;
  #restarts = 0;
  #restarted = false;
  #tryingSince = null;
  #lostAt = null;
  #liveSince = 0;

  // The server's session: our frames and segments are its own, and these added.
  #token = null;
  #epoch = 0;
  #liveEpoch = 0;
  #baseFrame = 0;
  #baseSegment = 0;

  // Frames, start <= acked <= sent <= written while a connection is live; the ring holds start to written. An attempt has
  // promised to have what begins at `promised`.
  #ring = new Ring();
  #start = 0;
  #acked = 0;
  #sent = 0;
  #written = 0;
  #promised = Infinity;
  // Where finals were asked for that have not come; the first `marksSent` are on this connection.
  #marks = [];
  #marksSent = 0;
  #ended = false;
  #endSent = false;
  #finalTo = 0;
  #nextSegment = 0;
  #delivered = 0;
  #confirmed = 0;

  /**
   * @param {string[]} urls servers, asked in this order: `ws://HOST:PORT`, `wss://`, or `https://` for WebTransport
   * @param {object} [how] `key`; `model`; `sampleRate` (16000), `channels` (1), `encoding` (pcm_s16le); `options` of `hello`;
   *   `waitWhenBusy`; `timing`, what differs from TIMING; `certificateHash`, the SHA-256 in hex of a self-signed certificate that
   *   WebTransport is to trust; `WebSocket` and `WebTransport`, classes to be used in place of the global ones
   */
  constructor(urls, how = {}) {
    const { sampleRate = 16_000, channels = 1, encoding = 'pcm_s16le', options = {}, model, key = null } = how;
    if (!urls?.length) throw new TypeError('urls is empty; it must name at least one server, such as ws://127.0.0.1:8080');
    if (!Object.hasOwn(FRAME_BYTES, encoding)) {
      throw new TypeError(`encoding is ${encoding}; it must be one of ${Object.keys(FRAME_BYTES).join(', ')}`);
    }
    this.#urls = urls.map(streamUrl);
    this.#home = this.#urls[0];
    this.#key = key;
    this.#rate = sampleRate;
    this.#frame = FRAME_BYTES[encoding] * channels;
    this.#first = { type: 'hello', session: uuid(), format: { encoding, sample_rate: sampleRate, channels }, options };
    if (model) this.#first.model = model;
    this.#timing = { ...TIMING, ...how.timing };
    this.#waitWhenBusy = how.waitWhenBusy ?? false;
    this.#WebSocket = how.WebSocket ?? globalThis.WebSocket;
    this.#WebTransport = how.WebTransport ?? globalThis.WebTransport;
    if (!this.#WebTransport && this.#urls.some(isWebTransport)) {
      throw new TypeError('there is no WebTransport here, which servers at https:// are asked by; ask them at wss://');
    }
    this.#trust = how.certificateHash ? { serverCertificateHashes: [hashOf(how.certificateHash)] } : {};
    /** The model that the server chose. */
    this.model = null;
    /** Whether acknowledged audio is in two copies. */
    this.durable = false;
    /** The server that the session is on, and the name that its node has. */
    this.server = this.node = null;
  }

  /** The session's id, as servers know it. */
  get id() {
    return this.#first.session;
  }

  /** Seconds of audio that no server has acknowledged. */
  get behind() {
    return (this.#written - this.#acked) / this.#rate;
  }

  /** Opens the session; throws a StarlingError when no server takes it. */
  async open() {
    if (!this.#urls.every(isWebTransport)) this.#WebSocket ??= (await import('ws')).WebSocket;
    this.#tryingSince = now();
    this.#run();
    await this.#until(() => this.#opened || this.#over);
    if (!this.#opened) throw this.#failure ?? new StarlingError('the session is over');
  }

  /**
   * Hands in whole frames. Waits while the ring is full, so that what can't be kept is not taken.
   * @param {ArrayBuffer | ArrayBufferView} pcm
   */
  async send(pcm) {
    const bytes = ArrayBuffer.isView(pcm) ? new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength) : new Uint8Array(pcm);
    if (bytes.length % this.#frame) throw new TypeError(`${bytes.length} bytes are no whole frames of ${this.#frame} bytes`);
    if (this.#ended) throw new TypeError('audio after finish()');
    for (let at = 0; at < bytes.length; ) {
      await this.#until(() => this.#over || this.#room() > 0);
      if (this.#over) throw this.#failure ?? new StarlingError('the session is over');
      const piece = bytes.subarray(at, at + this.#room() * this.#frame);
      at += piece.length;
      this.#ring.push(piece);
      this.#written += piece.length / this.#frame;
      this.#trim();
      this.#wake();
    }
  }

  /** Asks for the open segment's final here and now. */
  finalize() {
    if (this.#marks.at(-1) !== this.#written) this.#marks.push(this.#written);
    this.#wake();
  }

  /** Says that no more audio will come; the remaining finals and `done` follow. */
  finish() {
    this.#ended = true;
    this.#wake();
  }

  /** Lets the session go, whatever has come of it. */
  close() {
    this.#over = true;
    this.#link?.drop();
    this.#link = null;
    this.#wake();
  }

  async *[Symbol.asyncIterator]() {
    for (;;) {
      await this.#until(() => this.#events.length > 0 || this.#over);
      const event = this.#events.shift();
      if (!event) {
        if (this.#failure) throw this.#failure;
        return;
      }
      if (event.type === 'final') this.#delivered = event.segment + 1;
      this.#wake();
      yield event;
    }
  }

  // The session's course: one connection after the other.

  async #run() {
    try {
      let link = await this.#reach(null);
      while (link && !this.#over) link = await this.#converse(link);
    } catch (error) {
      // Anything else comes of a message that is not what the protocol says.
      const broken = () => new StarlingError(`the server broke the protocol: ${error.message}`);
      if (!this.#over) this.#failure = error instanceof StarlingError ? error : broken();
    }
    this.close();
  }

  /** Speaks on a live connection until it is lost, left or done with; gives the next, or none after the end. */
  async #converse(link) {
    let cause;
    try {
      while (this.#link === link) {
        const message = await this.#hear(link);
        // Whatever comes after another connection was made speaks for nothing any more.
        if (this.#link === link) this.#take(message);
      }
    } catch (error) {
      if (this.#link === link && !(error instanceof Lost)) throw error;
      cause = error;
    }
    if (this.#link !== link) return this.#link;
    link.drop();
    this.#link = null;
    // In the normal order of things: the node that takes a session over tells the one before so.
    const inOrder = this.#leaving && this.#asking;
    if (!inOrder) this.#noteLost(cause);
    if (now() - this.#liveSince >= HEALTHY_AFTER_MS) this.#healthy();
    if (this.#leaving) {
      this.#leaveUntil = this.#asking ? 0 : -1;
      this.#wake();
      await this.#leaving;
      if (this.#link || this.#over) return this.#link;
      this.#noteLost(cause);
    }
    this.#tryingSince ??= now();
    return this.#reach(cause);
  }

  /** The next message. A browser can't ping, so silence counts where an answer is owed: to audio, or to the end. */
  async #hear(link) {
    for (let quiet = 0; ; ) {
      const half = this.#timing.liveness / 2;
      if (await this.#until(() => link.inbox.length > 0 || link.lost, half)) break;
      const owed = this.#sent > this.#acked || this.#marksSent > 0 || this.#endSent;
      quiet = owed ? quiet + 1 : 0;
      if (quiet === 2) throw new Lost(`nothing was heard for ${this.#timing.liveness} ms`);
    }
    return link.next();
  }

  /** Writes whatever there is; what was not heard comes again on the next connection. */
  #pump() {
    while (this.#link?.isOpen()) {
      const message = this.#nextWrite();
      if (message === null) return;
      this.#link.send(message);
    }
  }

  #nextWrite() {
    if (this.#delivered > Math.max(this.#confirmed, this.#baseSegment)) {
      this.#confirmed = this.#delivered;
      return { type: 'confirm', segment: this.#delivered - 1 - this.#baseSegment };
    }
    const mark = this.#marks[this.#marksSent] ?? null;
    if (mark !== null && mark <= this.#sent) {
      this.#marksSent += 1;
      return { type: 'finalize' };
    }
    const most = this.#sent + Math.max(1, Math.floor(MAX_WRITE_BYTES / this.#frame));
    const until = Math.min(mark ?? this.#written, most);
    if (this.#sent < until) {
      const piece = this.#ring.read((this.#sent - this.#start) * this.#frame, (until - this.#start) * this.#frame);
      this.#sent = until;
      return piece;
    }
    if (this.#ended && !this.#endSent) {
      this.#endSent = true;
      return { type: 'end' };
    }
    return null;
  }

  /** Takes a message of the live connection. Unknown ones are passed over. */
  #take(message) {
    switch (message.type) {
      case 'ack': {
        const until = this.#baseFrame + whole(message, 'until');
        if (until > this.#sent) throw new StarlingError(`the server acknowledged frame ${until}, of ${this.#sent} sent`);
        this.#acked = Math.max(this.#acked, until);
        this.#healthy();
        break;
      }
      case 'partial': {
        const { segment, text } = message;
        const [from, until] = ['from', 'until'].map((end) => this.#baseFrame + whole(message, end));
        if (this.#baseSegment + segment === this.#nextSegment) {
          this.#deliver({ type: 'partial', segment: this.#nextSegment, from, until, text });
        }
        break;
      }
      case 'final':
        this.#final(message);
        break;
      case 'view':
        this.#token = message.token;
        this.#suggest(message.resume_at ?? []);
        this.#noteDurable(message.durable);
        break;
      case 'warning':
        this.#deliver({ type: 'notice', code: message.code, message: message.message });
        break;
      case 'go_away':
        this.#homeStops = true;
        this.#leaveUntil = now() + whole(message, 'deadline_ms');
        this.#leaving ??= this.#leave().finally(() => (this.#leaving = null));
        break;
      case 'done': {
        const segments = this.#baseSegment + whole(message, 'segments');
        const frames = this.#baseFrame + whole(message, 'frames');
        if (!this.#ended || segments !== this.#nextSegment || frames !== this.#written) {
          const here = `${this.#nextSegment} segments had come, of ${this.#written} frames`;
          throw new StarlingError(`the server was done after ${segments} segments and ${frames} frames; ${here}`);
        }
        this.#finish();
        break;
      }
      case 'error':
        this.#error(message);
        break;
      default:
    }
    this.#wake();
  }

  #final(message) {
    const segment = this.#baseSegment + whole(message, 'segment');
    const [from, to] = ['from', 'to'].map((end) => this.#baseFrame + whole(message, end));
    if (segment < this.#nextSegment) return;
    if (segment > this.#nextSegment || from !== this.#finalTo || to < from || to > this.#sent) {
      const due = `segment ${this.#nextSegment} from frame ${this.#finalTo} was due`;
      throw new StarlingError(`a final is missing: ${due}, segment ${segment} from ${from} to ${to} came`);
    }
    const shift = this.#baseFrame / this.#rate;
    const { cause, text, confidence = null, error = null } = message;
    this.#nextSegment = segment + 1;
    this.#finalTo = to;
    this.#acked = Math.max(this.#acked, to);
    this.#restarts = 0;
    this.#answerMarks(cause);
    this.#trim();
    this.#healthy();
    this.#deliver({
      type: 'final',
      segment,
      from,
      to,
      start: message.start + shift,
      end: message.end + shift,
      cause,
      text,
      words: shifted(message.words, shift),
      confidence,
      alternatives: (message.alternatives ?? []).map((other) => ({ ...other, words: shifted(other.words, shift) })),
      error,
    });
  }

  /** Forgets the requests that a final answers: those it passed, and the one it was made for. */
  #answerMarks(cause) {
    const unheard = (this.#rate * UNHEARD_MS) / 1_000;
    const asked = cause === 'finalize' && this.#marks[0] <= this.#finalTo + unheard ? 1 : 0;
    const passed = this.#marks.filter((mark) => mark < this.#finalTo).length;
    const answered = Math.min(Math.max(passed, asked), this.#marksSent);
    this.#marks.splice(0, answered);
    this.#marksSent -= answered;
  }

  /** An error on the live connection: the session ends, goes on elsewhere, or goes on here. */
  #error({ code, message }) {
    const outrun = code === 'superseded' && this.#epoch > this.#liveEpoch;
    const elsewhere = ['unknown_session', 'bad_token', 'gap', 'busy', 'over_quota', 'internal', 'shutting_down'];
    if (code === 'bad_message') {
      this.#deliver({ type: 'notice', code, message });
    } else if (outrun || elsewhere.includes(code)) {
      this.#homeStops ||= code === 'shutting_down';
      throw new Lost(message);
    } else {
      throw new StarlingError(`the server ended the session: ${message}`, code);
    }
  }

  // Connections: whom to ask, and what a refusal means.

  /** Asks servers in turn until one opens the session or goes on with it; null when all was said before. */
  async #reach(lost) {
    let left = this.#known();
    let [cause, unknown, busy, there, unsure, rounds] = [lost, null, null, null, false, 0];
    if (lost) {
      if (this.#attempts > 0) moveToEnd(left, this.#home);
      await this.#pause(0, cause);
    }
    while (!this.#over) {
      const server = left.shift();
      try {
        return await this.#ask(server);
      } catch (error) {
        const resuming = this.#token !== null;
        cause = error;
        if (error instanceof Lost) {
          unsure = true;
        } else if (!(error instanceof Refused)) {
          throw error;
        } else if (['busy', 'over_quota'].includes(error.code)) {
          [busy, unsure] = [error, true];
        } else if (['internal', 'shutting_down'].includes(error.code)) {
          unsure = true;
        } else if (error.code === 'superseded' && resuming && this.#superseded < MAX_SUPERSEDED) {
          this.#superseded += 1;
          left.unshift(server);
        } else if (['unknown_session', 'bad_token', 'gap'].includes(error.code) && resuming) {
          unknown = error;
          there = this.#urls.includes(server) ? server : there;
        } else {
          throw new StarlingError(`the server refused the session: ${error.message}`, error.code);
        }
      }
      let wait = 0;
      if (left.length === 0) {
        rounds += 1;
        const patient = this.#start > this.#finalTo && unsure && rounds < ROUNDS_BEFORE_A_GAP;
        const anew = unknown && !patient;
        if (anew && this.#beginAnew(unknown, there)) return null;
        if (!anew && busy && !this.#opened && !this.#waitWhenBusy) {
          throw new StarlingError(`every server is busy: ${busy.message}`, busy.code);
        }
        wait = Number(busy?.body.retry_after_ms ?? 0);
        const atOnce = anew && there;
        left = this.#known();
        [unknown, busy, there, unsure] = [null, null, null, false];
        if (atOnce) continue;
      }
      await this.#pause(wait, cause);
    }
    return null;
  }

  /** Waits before the next attempt, or gives up. There is one attempt at the deadline itself. */
  async #pause(wait, cause) {
    this.#attempts += 1;
    const patience = this.#opened ? this.#timing.giveUp : this.#timing.openDeadline;
    const since = this.#tryingSince ?? now();
    const left = since + patience - now();
    if (left <= 0 && this.#attempts >= this.#known().length) {
      const lost = 'the connection was lost and no server went on with the session';
      const seconds = ((now() - since) / 1_000).toFixed(1);
      throw new StarlingError(`${this.#opened ? lost : 'no server answered'} in ${seconds} s: ${cause.message}`);
    }
    await this.#until(() => this.#over, Math.max(0, Math.min(wait + this.#jitter(this.#attempts), left)));
  }

  /** One attempt: connects, says hello, and takes the connection that `ready` came on for the present one. */
  async #ask(server) {
    for (;;) {
      this.#trim();
      const hello = this.#hello();
      const told = this.#nextSegment;
      const link = this.#connect(server, hello);
      this.#promised = this.#start;
      this.#asking = true;
      let adopted = false;
      try {
        const ready = await this.#greeting(link);
        const have = this.#baseFrame + whole(ready, 'have_until');
        if (ready.session !== this.#first.session || whole(ready, 'epoch') < this.#epoch || have > this.#written) {
          throw new StarlingError(`the server broke the protocol: its ready is ${JSON.stringify(ready)}`);
        }
        if (have < this.#start) throw new Refused({ code: 'gap', message: `the server has audio until ${ready.have_until} only` });
        if (told === this.#nextSegment && !this.#over) {
          adopted = true;
          this.#adopt(server, link, ready, have);
          return link;
        }
        if (this.#over) throw new Lost('the session was let go');
        // Finals came on the connection before; this server does not know of them and must be told in another hello.
        this.#epoch = ready.epoch;
        this.#token = ready.token;
      } finally {
        this.#promised = Infinity;
        this.#asking = false;
        if (!adopted) link.drop();
      }
    }
  }

  #connect(server, hello) {
    const wake = () => this.#wake();
    if (!isWebTransport(server)) return new Link(this.#WebSocket, server, this.#key, hello, wake);
    const keyed = this.#key ? { ...hello, api_key: this.#key } : hello;
    return new Stream(this.#WebTransport, server, this.#trust, keyed, wake);
  }

  async #greeting(link) {
    const due = now() + this.#timing.attempt;
    for (;;) {
      const came = () => link.inbox.length > 0 || link.lost || this.#over;
      if (!(await this.#until(came, due - now()))) throw new Lost(`no answer in ${this.#timing.attempt} ms`);
      if (this.#over) throw new Lost('the session was let go');
      const message = link.next();
      if (message.type === 'ready') return message;
      if (message.type === 'error') throw new Refused(message);
    }
  }

  #hello() {
    // One that got no answer may have been heard all the same, and by another node.
    this.#epoch += 1;
    if (this.#token === null) return this.#epoch > 1 ? { ...this.#first, epoch: this.#epoch } : { ...this.#first };
    const resume = { token: this.#token, epoch: this.#epoch, have_from: this.#start - this.#baseFrame };
    const last = this.#nextSegment - this.#baseSegment - 1;
    if (last >= 0) Object.assign(resume, { last_final: last, final_to: this.#finalTo - this.#baseFrame });
    return { ...this.#first, resume };
  }

  /** From now on this connection speaks for the session; audio goes on where the server says. */
  #adopt(server, link, ready, have) {
    const before = this.#link;
    this.#link = link;
    before?.drop();
    if (this.#urls.includes(server)) this.#rotation = this.#urls.indexOf(server);
    this.#home = server;
    this.#homeStops = false;
    const moved = this.server !== null && this.server !== server;
    this.server = server;
    this.node = ready.node || null;
    this.#liveSince = now();
    this.#epoch = this.#liveEpoch = ready.epoch;
    this.#token = ready.token;
    this.#sent = have;
    // An earlier server's word for what this one does not have is worth nothing any more.
    this.#acked = Math.min(this.#acked, have);
    // A request at this very place may or may not have been heard; asked twice it costs an empty final.
    this.#marksSent = this.#marks.filter((mark) => mark < have).length;
    this.#endSent = false;
    this.#confirmed = 0;
    if (!this.#opened) {
      this.#opened = true;
      this.model = ready.model;
      this.durable = ready.durable;
    }
    this.#noteDurable(ready.durable);
    if (this.#lostAt !== null) {
      const seconds = (now() - this.#lostAt) / 1_000;
      this.#deliver({ type: 'reconnected', seconds, restarted: this.#restarted, server: this.server, node: this.node });
      this.#lostAt = null;
      this.#restarted = false;
    } else if (moved) {
      this.#deliver({ type: 'moved', server: this.server, node: this.node });
    }
    this.#trim();
    this.#wake();
  }

  /** The server is about to stop: makes the next connection elsewhere before this one is broken. */
  async #leave() {
    let left = [];
    for (let attempts = 1; ; attempts += 1) {
      // A crowd of clients that is told to go must not arrive in step, so the first attempt waits too.
      const [wait, remaining] = [this.#jitter(attempts), this.#leaveUntil - now()];
      if (left.length === 0) left = this.#known().filter((server) => server !== this.#home);
      if (left.length === 0 || (attempts > 1 && wait > remaining)) return;
      await this.#until(() => this.#over || this.#leaveUntil < 0, Math.max(0, Math.min(wait, remaining)));
      if (this.#over || this.#leaveUntil < 0) return;
      try {
        await this.#ask(left.shift());
        return;
      } catch {
        // The present connection is still there.
      }
    }
  }

  /** Begins a new server session with the audio after the last final, or what there is of it; whether all was said. */
  #beginAnew(refused, there) {
    if (!this.#isComplete() && this.#restarts >= MAX_RESTARTS) {
      throw new StarlingError(`the server ended the session: ${refused.message}`, refused.code);
    }
    if (!this.#isComplete() && this.#start > this.#finalTo) {
      this.#deliver({ type: 'gap', from: this.#finalTo, to: this.#start });
      this.#finalTo = this.#start;
      this.#marks = this.#marks.filter((mark) => mark >= this.#start);
    }
    if (this.#isComplete()) {
      this.#finish(); // Only the server's `done` was lost.
      return true;
    }
    this.#restarts += 1;
    this.#restarted = true;
    this.#first.session = uuid();
    this.#token = null;
    this.#suggested = [];
    this.#epoch = 0;
    this.#marksSent = 0;
    this.#ring.drop((this.#finalTo - this.#start) * this.#frame);
    this.#start = this.#baseFrame = this.#acked = this.#finalTo;
    this.#baseSegment = this.#nextSegment;
    this.#home = there ?? this.#urls[this.#rotation];
    this.#homeStops = false;
    return false;
  }

  /** Every server that may be asked now, once: those with a copy, the last one, then our own in rotation. */
  #known() {
    const first = this.#urls.includes(this.#home) ? this.#urls.indexOf(this.#home) : this.#rotation;
    const own = [...this.#urls.slice(first), ...this.#urls.slice(0, first)];
    const known = [...new Set(this.#token === null ? own : [...this.#suggested, this.#home, ...own])];
    if (this.#homeStops) moveToEnd(known, this.#home);
    return known;
  }

  /** Takes the nodes of a view. They are reached without TLS: whoever was told to use it does not go there. */
  #suggest(addresses) {
    if (this.#urls.some((url) => !url.startsWith('ws:'))) return;
    const good = addresses.filter((text) => /^([\w.-]+|\[[0-9a-fA-F:.]+\]):[1-9]\d{0,4}$/.test(text)).slice(0, MAX_SUGGESTED);
    const ours = new Map(this.#urls.map((url) => [new URL(url).host, url]));
    this.#suggested = good.map((text) => ours.get(text) ?? `ws://${text}${STREAM_PATH}`);
  }

  // Small things.

  /** Frames that may be appended now. */
  #room() {
    return this.#ringFrames() - (this.#written - this.#spare());
  }

  #ringFrames() {
    return Math.max(1, Math.floor((this.#timing.ring * this.#rate) / 1_000));
  }

  /** The first frame that can't be done without: not held by a server, promised to one, or still to be sent. */
  #spare() {
    const held = Math.min(Math.max(this.#acked, this.#finalTo), this.#promised, this.#link ? this.#sent : Infinity);
    return Math.max(this.#start, held);
  }

  /** Lets go what finals cover, and what was acknowledged only as far as the ring is full. */
  #trim() {
    const oldest = this.#written - this.#ringFrames();
    const start = Math.max(this.#start, Math.min(this.#spare(), Math.max(oldest, this.#finalTo)));
    this.#ring.drop((start - this.#start) * this.#frame);
    this.#start = start;
  }

  #isComplete() {
    return this.#ended && this.#marks.length === 0 && this.#finalTo === this.#written;
  }

  /** All is said: the server is told that nothing need be kept. */
  #finish() {
    const last = this.#nextSegment - this.#baseSegment - 1;
    if (last >= 0 && this.#link?.isOpen()) this.#link.send({ type: 'confirm', segment: last });
    this.#link?.drop();
    this.#link = null;
    this.#deliver({ type: 'done', segments: this.#nextSegment, frames: this.#finalTo });
  }

  #healthy() {
    this.#attempts = this.#superseded = 0;
    this.#tryingSince = null;
  }

  #noteLost(cause) {
    if (this.#lostAt !== null) return;
    this.#lostAt = now();
    this.#deliver({ type: 'lost', server: this.server, node: this.node, message: cause.message });
  }

  #noteDurable(durable) {
    if (durable === this.durable) return;
    this.durable = durable;
    this.#deliver({ type: 'durable', durable });
  }

  #deliver(event) {
    const overtakes = ['partial', 'final', 'gap'].includes(event.type);
    if (overtakes && this.#events.at(-1)?.type === 'partial') this.#events.pop();
    if (this.#events.length >= MAX_WAITING_EVENTS) throw new StarlingError('nobody takes the events');
    this.#events.push(event);
    this.#wake();
  }

  #jitter(attempts) {
    return Math.random() * Math.min(this.#timing.backoffFirst * 2 ** Math.min(attempts - 1, 16), this.#timing.backoffMost);
  }

  #wake() {
    this.#pump();
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    waiting.forEach((resume) => resume());
  }

  /** Waits until something is so, for some milliseconds at most; whether it is. */
  async #until(ready, ms = Infinity) {
    const due = now() + ms;
    while (!ready()) {
      const left = due - now();
      if (left <= 0) return false;
      await new Promise((resolve) => {
        const timer = left < Infinity ? setTimeout(() => resume(), left) : null;
        const resume = () => {
          clearTimeout(timer);
          this.#waiting.delete(resume);
          resolve();
        };
        this.#waiting.add(resume);
      });
    }
    return true;
  }
}

/** One WebSocket: what came on it, and whether it is gone. */
class Link {
  inbox = [];
  lost = null;
  #socket;

  constructor(WebSocket, server, key, hello, wake) {
    // A browser can send no header: the key goes where the server looks besides.
    this.#socket = key ? new WebSocket(server, ['token', key]) : new WebSocket(server);
    this.#socket.binaryType = 'arraybuffer';
    this.#socket.onopen = () => this.send(hello);
    this.#socket.onmessage = ({ data }) => {
      if (typeof data === 'string' && !this.lost) this.inbox.push(data);
      wake();
    };
    let cause = 'the connection could not be made';
    this.#socket.onerror = ({ message }) => (cause = message || cause);
    this.#socket.onclose = ({ code, reason }) => {
      const status = /\b(401|403)\b/.exec(cause)?.[0];
      const refused = REFUSED[status];
      const lost = () => new Lost(code === 1006 ? cause : `the connection was closed (${code} ${reason})`);
      this.lost ??= refused ? new Refused(refused) : lost();
      wake();
    };
  }

  isOpen() {
    return !this.lost && this.#socket.readyState === 1;
  }

  /** Sends audio, or a message. */
  send(what) {
    this.#socket.send(ArrayBuffer.isView(what) ? what : JSON.stringify(what));
  }

  /** The next message; what a server said before it was lost is read first. */
  next() {
    if (this.inbox.length === 0) throw this.lost;
    return JSON.parse(this.inbox.shift());
  }

  drop() {
    this.lost ??= new Lost('the connection was let go');
    this.inbox.length = 0;
    this.#socket.close();
    // Only Node's sockets know how to end at once, and only there do they hold the process up.
    setTimeout(() => this.#socket.terminate?.(), CLOSE_MS).unref?.();
  }
}

/** The same as Link on a stream of WebTransport: all is in frames, and messages are in MessagePack. */
class Stream {
  inbox = [];
  lost = null;
  #transport;
  #writer = null;

  constructor(WebTransport, server, trust, hello, wake) {
    this.#transport = new WebTransport(server, trust);
    // What ends it ends the stream too, and is told there.
    this.#transport.closed.catch(() => {});
    const over = (error) => {
      this.lost ??= error instanceof StarlingError ? error : new Lost(error?.message || 'the stream ended');
      wake();
    };
    this.#talk(hello, wake).then(over, over);
  }

  /** Says hello and reads until nothing more comes. */
  async #talk(hello, wake) {
    await this.#transport.ready;
    const { readable, writable } = await this.#transport.createBidirectionalStream();
    if (this.lost) return;
    this.#writer = writable.getWriter();
    this.#writer.closed.catch(() => {});
    this.send(hello);
    const reader = readable.getReader();
    for (let held = new Uint8Array(0); ; ) {
      const { value, done } = await reader.read();
      if (done || this.lost) return;
      const bytes = new Uint8Array(held.length + value.length);
      bytes.set(held);
      bytes.set(value, held.length);
      held = this.#frames(bytes);
      wake();
    }
  }

  /** Takes the whole frames off; what is left is the beginning of one. */
  #frames(bytes) {
    let at = 0;
    while (bytes.length - at >= FRAME_HEAD_BYTES) {
      const length = new DataView(bytes.buffer, at).getUint32(0);
      if (length < 1 || length > MAX_FRAME_BYTES) {
        throw new StarlingError(`the server broke the protocol: a frame has ${length} bytes`);
      }
      const end = at + FRAME_HEAD_BYTES - 1 + length;
      if (end > bytes.length) break;
      if (bytes[at + FRAME_HEAD_BYTES - 1] === MESSAGE) this.inbox.push(bytes.subarray(at + FRAME_HEAD_BYTES, end));
      at = end;
    }
    return bytes.subarray(at);
  }

  isOpen() {
    return !this.lost && this.#writer !== null;
  }

  send(what) {
    const [kind, body] = ArrayBuffer.isView(what) ? [AUDIO, what] : [MESSAGE, packed(what)];
    const frame = new Uint8Array(FRAME_HEAD_BYTES + body.length);
    new DataView(frame.buffer).setUint32(0, body.length + 1);
    frame[FRAME_HEAD_BYTES - 1] = kind;
    frame.set(body, FRAME_HEAD_BYTES);
    // A server that reads no more has said why, or the stream is gone: both are read.
    this.#writer.write(frame).catch(() => {});
  }

  next() {
    if (this.inbox.length === 0) throw this.lost;
    return unpacked(this.inbox.shift());
  }

  drop() {
    this.lost ??= new Lost('the connection was let go');
    this.inbox.length = 0;
    this.#writer?.close().catch(() => {});
    // What was written last is to arrive; what is not connected is not to be.
    setTimeout(() => this.#transport.close(), this.#writer ? CLOSE_MS : 0);
  }
}

/** The MessagePack of what JSON can say, in its longer forms: a client's messages are few. */
function packed(value) {
  const head = (kind, count) => [kind, count >>> 24, (count >>> 16) & 0xff, (count >>> 8) & 0xff, count & 0xff];
  if (value === null) return [0xc0];
  if (typeof value === 'boolean') return [value ? 0xc3 : 0xc2];
  if (typeof value === 'number') {
    const view = new DataView(new ArrayBuffer(9));
    const isWhole = Number.isSafeInteger(value);
    view.setUint8(0, isWhole ? 0xd3 : 0xcb);
    if (isWhole) view.setBigInt64(1, BigInt(value));
    else view.setFloat64(1, value);
    return [...new Uint8Array(view.buffer)];
  }
  if (typeof value === 'string') {
    const bytes = new TextEncoder().encode(value);
    return [...head(0xdb, bytes.length), ...bytes];
  }
  if (Array.isArray(value)) return [...head(0xdd, value.length), ...value.flatMap((item) => packed(item))];
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  return [...head(0xdf, entries.length), ...entries.flatMap(([name, item]) => [...packed(name), ...packed(item)])];
}

/** Reads MessagePack, in any of its forms, of what JSON can say. */
function unpacked(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const skip = (count) => {
    at += count;
    if (at > bytes.length) throw new RangeError('a message ends early');
    return at - count;
  };
  const number = (read, count) => Number(view[read](skip(count)));
  const text = (length) => new TextDecoder().decode(bytes.subarray(skip(length), at));
  const list = (count, item) => {
    const items = [];
    for (let index = 0; index < count; index += 1) items.push(item());
    return items;
  };
  const map = (count) => Object.fromEntries(list(count, () => [value(), value()]));
  const read = {
    0xc0: () => null,
    0xc2: () => false,
    0xc3: () => true,
    0xca: () => number('getFloat32', 4),
    0xcb: () => number('getFloat64', 8),
    0xcc: () => number('getUint8', 1),
    0xcd: () => number('getUint16', 2),
    0xce: () => number('getUint32', 4),
    0xcf: () => number('getBigUint64', 8),
    0xd0: () => number('getInt8', 1),
    0xd1: () => number('getInt16', 2),
    0xd2: () => number('getInt32', 4),
    0xd3: () => number('getBigInt64', 8),
    0xd9: () => text(number('getUint8', 1)),
    0xda: () => text(number('getUint16', 2)),
    0xdb: () => text(number('getUint32', 4)),
    0xdc: () => list(number('getUint16', 2), value),
    0xdd: () => list(number('getUint32', 4), value),
    0xde: () => map(number('getUint16', 2)),
    0xdf: () => map(number('getUint32', 4)),
  };
  function value() {
    const kind = view.getUint8(skip(1));
    if (kind < 0x80) return kind;
    if (kind < 0x90) return map(kind & 0x0f);
    if (kind < 0xa0) return list(kind & 0x0f, value);
    if (kind < 0xc0) return text(kind & 0x1f);
    if (kind >= 0xe0) return kind - 0x100;
    if (!read[kind]) throw new RangeError(`0x${kind.toString(16)} begins nothing that a message may have`);
    return read[kind]();
  }
  return value();
}

/** Bytes that are appended at one end and dropped at the other. */
class Ring {
  #bytes = new Uint8Array(1 << 16);
  #head = 0;
  #tail = 0;

  push(piece) {
    if (this.#tail + piece.length > this.#bytes.length) {
      const kept = this.#bytes.subarray(this.#head, this.#tail);
      const roomy = new Uint8Array(Math.max(2 * (kept.length + piece.length), 1 << 16));
      roomy.set(kept);
      [this.#bytes, this.#head, this.#tail] = [roomy, 0, kept.length];
    }
    this.#bytes.set(piece, this.#tail);
    this.#tail += piece.length;
  }

  drop(count) {
    this.#head += count;
  }

  read(from, to) {
    return this.#bytes.slice(this.#head + from, this.#head + to);
  }
}

function streamUrl(text) {
  let url = null;
  try {
    url = new URL(text);
  } catch {
    // Said below.
  }
  if (!['ws:', 'wss:', 'https:'].includes(url?.protocol)) {
    throw new TypeError(`the server '${text}' can't be used; it must be ws://HOST:PORT, wss://HOST:PORT or https://HOST:PORT`);
  }
  return url.pathname === '/' ? `${url.protocol}//${url.host}${STREAM_PATH}${url.search}` : url.href;
}

function isWebTransport(url) {
  return url.startsWith('https:');
}

/** A certificate's SHA-256, as `starling cert self-signed` prints it, in WebTransport's words. */
function hashOf(hex) {
  if (!/^[0-9a-f]{64}$/i.test(hex)) throw new TypeError(`certificateHash is '${hex}'; it must be 64 hexadecimal digits`);
  return { algorithm: 'sha-256', value: Uint8Array.from(hex.match(/../g), (byte) => parseInt(byte, 16)) };
}

/** A number of a message, which is not believed to be one. */
function whole(message, field) {
  const value = message[field];
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new StarlingError(`the server broke the protocol: ${field} is ${value} in ${message.type}`);
  }
  return value;
}

function shifted(words, seconds) {
  return (words ?? []).map((word) => ({ ...word, start: word.start + seconds, end: word.end + seconds }));
}

function moveToEnd(list, item) {
  const at = list.indexOf(item);
  if (at >= 0) list.push(...list.splice(at, 1));
}

/** A version 4 UUID. `crypto.randomUUID` is not there on pages that came without TLS. */
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

function now() {
  return performance.now();
}
