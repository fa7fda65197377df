// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { cues, stamp, wav, written } from '../page/export.mjs';

const segment = (number, start, end, text, words = []) => ({ segment: number, start, end, text, words, error: null });
const plain = { segments: [segment(0, 0.5, 2.25, 'It was the best of times.'), segment(1, 2.25, 3, ''), segment(2, 61, 62.0004, 'a < b & c')], gaps: [] };

test('text is a line for each segment in which something was said', () => {
  assert.equal(written('txt', plain), 'It was the best of times.\na < b & c\n');
});

test('SRT counts its cues from one and has a comma in its times', () => {
  const expected = '1\n00:00:00,500 --> 00:00:02,250\nIt was the best of times.\n\n2\n00:01:01,000 --> 00:01:02,000\na < b & c\n';
  assert.equal(written('srt', plain), expected);
});

test('WebVTT has its head, and its own markup is escaped', () => {
  const vtt = written('vtt', plain);
  assert.ok(vtt.startsWith('WEBVTT\n\n00:00:00.500 --> 00:00:02.250\nIt was the best of times.\n'), vtt);
  assert.ok(vtt.includes('a &lt; b &amp; c'), vtt);
});

test('JSON has the facts, the whole text and the segments', () => {
  const json = JSON.parse(written('json', plain, { model: 'm' }));
  assert.deepEqual([json.model, json.text, json.segments.length], ['m', 'It was the best of times. a < b & c', 2]);
});

test('a long segment with word times becomes cues of two lines, each with its own times', () => {
  const words = Array.from({ length: 40 }, (_, at) => ({ word: `word${at}`, start: at, end: at + 0.5 }));
  const found = cues({ segments: [segment(0, 0, 40, words.map(({ word }) => word).join(' '), words)] });
  assert.ok(found.length > 2);
  for (const { text } of found) {
    const lines = text.split('\n');
    assert.ok(lines.length <= 2 && lines.every((line) => line.length <= 42), text);
  }
  assert.equal(found.map(({ text }) => text.replaceAll('\n', ' ')).join(' '), words.map(({ word }) => word).join(' '));
  found.slice(1).forEach((cue, at) => assert.ok(cue.start >= found[at].end));
});

test('times are rounded once, so that none has a thousand milliseconds', () => {
  assert.deepEqual([0, 59.9996, 3599.9999, 3600.5].map((at) => stamp(at, ',')), ['00:00:00,000', '00:01:00,000', '01:00:00,000', '01:00:00,500']);
});

test('WAV has the samples as they were', () => {
  const bytes = wav(Int16Array.of(1, -2, 32_767), 16_000);
  const view = new DataView(bytes.buffer);
  assert.deepEqual([bytes.length, view.getUint32(24, true), view.getUint32(40, true)], [50, 16_000, 6]);
  assert.deepEqual([44, 46, 48].map((at) => view.getInt16(at, true)), [1, -2, 32_767]);
});
