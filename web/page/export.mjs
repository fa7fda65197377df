// SPDX-License-Identifier: Apache-2.0
/** A transcript as files: text, subtitles, JSON, and the audio as WAV. Pure. */

import { spoken, textOf } from './transcript.mjs';

/** A cue's text is broken into lines of about this many characters, as players show them. */
const LINE = 42;
/** Two lines are what a viewer reads at once. */
const LINES = 2;

/** Kinds of files, with what browsers call them. */
export const KINDS = {
  txt: { label: 'Text', type: 'text/plain' },
  srt: { label: 'SRT', type: 'application/x-subrip' },
  vtt: { label: 'WebVTT', type: 'text/vtt' },
  json: { label: 'JSON', type: 'application/json' },
};

/** The file's content. */
export function written(kind, transcript, facts = {}) {
  return { txt, srt, vtt, json }[kind](transcript, facts);
}

function txt(transcript) {
  return spoken(transcript)
    .filter(({ text }) => text)
    .map(({ text }) => `${text}\n`)
    .join('');
}

function srt(transcript) {
  const blocks = cues(transcript).map(({ start, end, text }, index) => {
    return `${index + 1}\n${stamp(start, ',')} --> ${stamp(end, ',')}\n${text}\n`;
  });
  return blocks.join('\n');
}

function vtt(transcript) {
  const blocks = cues(transcript).map(({ start, end, text }) => {
    // WebVTT has markup of its own (4.2.2).
    const escaped = text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
    return `\n${stamp(start, '.')} --> ${stamp(end, '.')}\n${escaped}\n`;
  });
  return `WEBVTT\n${blocks.join('')}`;
}

function json(transcript, facts) {
  const { segments, gaps } = transcript;
  return `${JSON.stringify({ ...facts, text: textOf(transcript), segments: spoken({ segments }), gaps }, null, 2)}\n`;
}

/** Segments as cues of two lines at most; where words have times, each cue has its own. */
export function cues(transcript) {
  return spoken(transcript)
    .filter(({ text }) => text)
    .flatMap((segment) => (segment.words.length ? timed(segment) : [whole(segment)]));
}

function whole({ start, end, text }) {
  return { start, end, text: lines(text.split(' ')).join('\n') };
}

function timed({ words }) {
  const found = [];
  let held = [];
  const close = () => {
    if (!held.length) return;
    found.push({ start: held[0].start, end: held.at(-1).end, text: lines(held.map(({ word }) => word)).join('\n') });
    held = [];
  };
  for (const word of words) {
    if (lines([...held, word].map((one) => one.word)).length > LINES) close();
    held.push(word);
  }
  close();
  return found;
}

function lines(words) {
  const found = [];
  for (const word of words) {
    const last = found.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= LINE) found[found.length - 1] = `${last} ${word}`;
    else found.push(word);
  }
  return found;
}

/** `00:00:01,250`. */
export function stamp(seconds, point) {
  const ms = Math.max(0, Math.round(seconds * 1000));
  const two = (number) => String(number).padStart(2, '0');
  const parts = [Math.floor(ms / 3_600_000), Math.floor(ms / 60_000) % 60, Math.floor(ms / 1000) % 60].map(two);
  return `${parts.join(':')}${point}${String(ms % 1000).padStart(3, '0')}`;
}

/** Mono samples of 16 bits as a WAV file. */
export function wav(samples, rate) {
  const bytes = new Uint8Array(44 + samples.length * 2);
  const view = new DataView(bytes.buffer);
  const letters = (at, text) => [...text].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  letters(0, 'RIFF');
  view.setUint32(4, 36 + samples.length * 2, true);
  letters(8, 'WAVEfmt ');
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  letters(36, 'data');
  view.setUint32(40, samples.length * 2, true);
  samples.forEach((sample, index) => view.setInt16(44 + index * 2, sample, true));
  return bytes;
}
