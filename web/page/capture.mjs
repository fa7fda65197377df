// SPDX-License-Identifier: Apache-2.0
/** In the browser's audio thread: samples of a microphone, as whole pieces of 16-bit mono. */

/** A piece is so long: what clients send at once. */
const PIECE_SECONDS = 0.1;

class Capture extends AudioWorkletProcessor {
  #piece = new Int16Array(Math.round(sampleRate * PIECE_SECONDS));
  #filled = 0;

  process([channels]) {
    const length = channels[0]?.length ?? 0;
    for (let at = 0; at < length; at += 1) {
      let sum = 0;
      for (const channel of channels) sum += channel[at];
      const sample = Math.max(-1, Math.min(1, sum / channels.length));
      this.#piece[this.#filled] = Math.max(-32_768, Math.min(32_767, Math.round(sample * 32_768)));
      this.#filled += 1;
      if (this.#filled === this.#piece.length) this.#send();
    }
    return true;
  }

  #send() {
    const piece = this.#piece;
    this.#piece = new Int16Array(piece.length);
    this.#filled = 0;
    this.port.postMessage(piece, [piece.buffer]);
  }
}

registerProcessor('capture', Capture);
