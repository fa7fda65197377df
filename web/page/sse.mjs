// SPDX-License-Identifier: Apache-2.0
/** Server-sent events (HTML, 9.2.6) out of text that comes in pieces. Pure; a browser's own reader can't show a key. */

/** More than this without an end is no event of a node's. */
const MAX_BUFFERED = 4 << 20;

export class EventParser {
  #rest = '';
  #type = '';
  #data = [];

  /** Takes a piece of text; gives the events that are whole, as `{type, data}`. */
  push(text) {
    this.#rest += text;
    if (this.#rest.length > MAX_BUFFERED) throw new Error('an event does not end');
    const lines = this.#rest.split(/\r\n|\n|\r/);
    // A CR at the very end may be half of a CR LF.
    if (this.#rest.endsWith('\r')) lines.splice(-2, 2, `${lines.at(-2)}\r`);
    this.#rest = lines.pop();
    return lines.flatMap((line) => this.#line(line));
  }

  #line(line) {
    if (line === '') {
      const event = { type: this.#type || 'message', data: this.#data.join('\n') };
      const whole = this.#data.length > 0;
      [this.#type, this.#data] = ['', []];
      return whole ? [event] : [];
    }
    const at = line.indexOf(':');
    const [field, value] = at < 0 ? [line, ''] : [line.slice(0, at), line.slice(at + 1).replace(/^ /, '')];
    if (field === 'event') this.#type = value;
    if (field === 'data') this.#data.push(value);
    return [];
  }
}
