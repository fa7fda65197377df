// SPDX-License-Identifier: Apache-2.0
/** How loud it was, drawn: while somebody speaks the last seconds, and afterwards all of it with the place that is played. */

import { Component, createRef } from './vendor/preact.mjs';
import { clock, decibels } from './format.mjs';
import { html } from './ui.mjs';

/** Seconds that are seen while somebody speaks. */
const WINDOW = 8;
/** A bar and the room beside it, in pixels. */
const BAR = 3;
const GAP = 2;

export class Waveform extends Component {
  #canvas = createRef();
  #frame = 0;
  #observer = null;

  componentDidMount() {
    this.#observer = new ResizeObserver(() => this.#draw());
    this.#observer.observe(this.#canvas.current);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', this.#again);
    this.#draw();
  }

  componentWillUnmount() {
    this.#observer.disconnect();
    matchMedia('(prefers-color-scheme: dark)').removeEventListener('change', this.#again);
    cancelAnimationFrame(this.#frame);
  }

  componentDidUpdate() {
    this.#again();
  }

  #again = () => {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#draw());
  };

  #draw() {
    const canvas = this.#canvas.current;
    if (!canvas) return;
    const { recording, live, playing } = this.props;
    const scale = devicePixelRatio;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    const paint = canvas.getContext('2d');
    paint.setTransform(scale, 0, 0, scale, 0, 0);
    paint.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    const [from, to] = live ? [recording.seconds - WINDOW, recording.seconds] : [recording.fromSeconds, Math.max(recording.seconds, 0.1)];
    const count = Math.max(1, Math.floor(width / (BAR + GAP)));
    const peaks = recording.peaks(from, to, count);
    const colours = paint.createLinearGradient(0, 0, width, 0);
    colours.addColorStop(0, style.getPropertyValue('--plumage-a'));
    colours.addColorStop(1, style.getPropertyValue('--plumage-b'));
    const quiet = style.getPropertyValue('--line-strong');
    peaks.forEach((peak, index) => {
      // Speech is soft most of the time: a root makes it seen.
      const size = Math.max(BAR, Math.sqrt(peak) * (height - 4));
      const at = from + ((index + 0.5) / count) * (to - from);
      const past = live ? at >= 0 : playing === null || at <= playing;
      paint.fillStyle = peak > 0.004 && past ? colours : quiet;
      paint.beginPath();
      paint.roundRect(index * (BAR + GAP), (height - size) / 2, BAR, size, BAR / 2);
      paint.fill();
    });
  }

  render({ recording, live, playing, onSeek }) {
    const { seconds, fromSeconds } = recording;
    const at = playing ?? fromSeconds;
    const level = live ? `level ${decibels(recording.level)} dB`.replace('-', '−') : playing === null ? 'recorded' : `playing from ${clock(playing)}`;
    const seekable = !live && seconds > 0;
    return html`<div class="wave">
      <canvas ref=${this.#canvas} class="wave-canvas" aria-hidden="true"></canvas>
      ${seekable &&
      html`<input type="range" class="wave-seek" aria-label="Play from" min=${fromSeconds.toFixed(1)} max=${seconds.toFixed(1)} step="0.1"
        value=${at} aria-valuetext=${`${clock(at)} of ${clock(seconds)}`}
        onChange=${(event) => onSeek(Number(event.target.value))} />`}
      <p class="wave-text"><b>${clock(playing ?? seconds)}</b> <span>${seconds > 0 || live ? level : ''}</span></p>
    </div>`;
  }
}
