// SPDX-License-Identifier: Apache-2.0
/** What was said, kept to be played and drawn: the last so many minutes of it. Pure. */

/** Loudest samples are kept for steps of this many seconds: a pixel of a waveform is seldom less. */
const STEP = 0.02;

export class Recording {
  #pieces = [];
  #most;
  #step;
  #peaks = [];
  #peak = 0;
  #inStep = 0;

  /**
   * @param {number} rate frames a second
   * @param {number} seconds how much is kept; at 16 kHz a minute takes 2 MB
   */
  constructor(rate, seconds = 1_800) {
    this.rate = rate;
    this.#most = rate * seconds;
    this.#step = Math.max(1, Math.round(rate * STEP));
    /** The first frame that is kept, and the end. */
    this.from = 0;
    this.to = 0;
  }

  get seconds() {
    return this.to / this.rate;
  }

  /** Where what is kept begins, in seconds: 0 until more was said than is kept. */
  get fromSeconds() {
    return this.from / this.rate;
  }

  /** @param {Int16Array} samples */
  push(samples) {
    this.#pieces.push(samples);
    this.to += samples.length;
    for (const sample of samples) {
      this.#peak = Math.max(this.#peak, Math.abs(sample));
      this.#inStep += 1;
      if (this.#inStep === this.#step) {
        this.#peaks.push(this.#peak / 32_768);
        [this.#peak, this.#inStep] = [0, 0];
      }
    }
    while (this.to - this.from - this.#pieces[0].length >= this.#most) this.from += this.#pieces.shift().length;
  }

  /** Frames from one place to another, as far as they are kept. */
  samples(from = this.from, to = this.to) {
    const [start, end] = [Math.max(this.from, Math.floor(from)), Math.min(this.to, Math.floor(to))];
    const found = new Int16Array(Math.max(0, end - start));
    let at = this.from;
    for (const piece of this.#pieces) {
      const [begin, stop] = [Math.max(start, at), Math.min(end, at + piece.length)];
      if (begin < stop) found.set(piece.subarray(begin - at, stop - at), begin - start);
      at += piece.length;
    }
    return found;
  }

  /** The loudest of each of `count` equal parts between two times, 0 to 1; 0 where there is nothing. */
  peaks(fromSeconds, toSeconds, count) {
    const [from, width] = [fromSeconds / STEP, (toSeconds - fromSeconds) / STEP / count];
    return Array.from({ length: count }, (_, index) => {
      const [begin, end] = [Math.floor(from + index * width), Math.ceil(from + (index + 1) * width)];
      let loudest = 0;
      for (let at = Math.max(0, begin); at < Math.min(end, this.#peaks.length); at += 1) {
        loudest = Math.max(loudest, this.#peaks[at]);
      }
      return loudest;
    });
  }

  /** How loud it was just now, 0 to 1. */
  get level() {
    return Math.max(0, ...this.#peaks.slice(-5));
  }
}
