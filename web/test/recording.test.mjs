// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Recording } from '../page/recording.mjs';

const counting = (from, length) => Int16Array.from({ length }, (_, at) => from + at);

test('what was kept is given back, across pieces', () => {
  const recording = new Recording(100, 10);
  [0, 7, 9].forEach((from, at) => recording.push(counting(from, [7, 2, 11][at])));
  assert.deepEqual([...recording.samples(5, 12)], [5, 6, 7, 8, 9, 10, 11]);
  assert.equal(recording.samples().length, 20);
  assert.equal(recording.samples(50, 60).length, 0);
});

test('no more is kept than may be, and what is left stays at its place', () => {
  const recording = new Recording(100, 1);
  for (let at = 0; at < 25; at += 1) recording.push(counting(at * 10, 10));
  assert.deepEqual([recording.from, recording.to, recording.fromSeconds, recording.seconds], [150, 250, 1.5, 2.5]);
  assert.deepEqual([...recording.samples(0, 152)], [150, 151]);
});

test('peaks are the loudest of each part, and nothing is where nothing was', () => {
  const recording = new Recording(1_000, 10);
  recording.push(new Int16Array(1_000));
  recording.push(new Int16Array(1_000).fill(-16_384));
  assert.deepEqual(recording.peaks(0, 4, 4), [0, 0.5, 0, 0]);
  assert.deepEqual(recording.peaks(-2, 2, 4), [0, 0, 0, 0.5]);
  assert.equal(recording.level, 0.5);
});
