// SPDX-License-Identifier: Apache-2.0
/** Run with: node --test web/test/ */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { EMPTY, heard, noteText, saidAt, spoken, textOf, wordAt } from '../page/transcript.mjs';

const RATE = 16_000;
const final = (segment, start, text, more = {}) => ({
  type: 'final', segment, from: start * RATE, to: (start + 1) * RATE, start, end: start + 1, cause: 'endpoint', text,
  words: [], confidence: null, error: null, ...more,
});
const partial = (text) => ({ type: 'partial', segment: 0, from: 0, until: RATE, text });
const after = (events, state = EMPTY) => events.reduce((now, event) => heard(now, event, { rate: RATE, at: 1 }), state);

test('a partial is replaced, by the next and by the final', () => {
  let state = after([partial('it'), partial('it was')]);
  assert.deepEqual(state.partial, { text: 'it was', start: 0, end: 1 });
  state = after([final(0, 0, 'It was.')], state);
  assert.equal(state.partial, null);
  assert.equal(textOf(state), 'It was.');
});

test('what was silence is no line, and what went wrong is one', () => {
  const state = after([final(0, 0, 'One.'), final(1, 1, ''), final(2, 2, '', { error: 'given up' }), final(3, 3, 'Two.')]);
  assert.deepEqual(spoken(state).map(({ segment }) => segment), [0, 2, 3]);
  assert.equal(textOf(state), 'One. Two.');
  assert.equal(state.segments.length, 4);
});

test('a node that is lost and replaced is told with both names', () => {
  const opened = after([{ type: 'opened', node: 'node-2', durable: true }]);
  const lost = after([{ type: 'lost', node: 'node-2', message: 'gone' }], opened);
  assert.equal(lost.lost.from, 'node-2');
  const back = after([{ type: 'reconnected', node: 'node-3', seconds: 0.4, restarted: false }], lost);
  assert.deepEqual([back.lost, back.node, back.survived], [null, 'node-3', 1]);
  assert.equal(noteText(back.notes[0]), 'node-2 lost, continuing on node-3, nothing missing');
});

test('what is missing is never called nothing', () => {
  const lost = [{ type: 'lost', node: 'a' }, { type: 'gap', from: RATE, to: 3 * RATE }];
  const state = after([...lost, { type: 'reconnected', node: 'b', seconds: 1, restarted: true }]);
  assert.deepEqual(state.gaps, [{ start: 1, end: 3 }]);
  assert.equal(noteText(state.notes[0]), '2.0 s of speech are missing: every node had lost them');
  assert.equal(noteText(state.notes[1]), 'a lost, continuing on b, from what this page had kept, 2.0 s of speech missing');
});

test('each note is a sentence', () => {
  const said = [
    [{ kind: 'replaced', from: 'a', to: 'a' }, 'Connection to a lost and back, nothing missing'],
    [{ kind: 'replaced', from: null, to: null }, 'the node lost, continuing on another, nothing missing'],
    [{ kind: 'moved', from: 'a', to: 'b' }, 'a is stopping, continuing on b, nothing missing'],
    [{ kind: 'decoder', node: 'a', cause: 'killed', caughtUp: { node: 'b' } }, 'Decoder on a lost (killed), b has caught up, nothing missing'],
    [{ kind: 'notice', message: 'Too loud.' }, 'Too loud.'],
  ];
  said.forEach(([note, text]) => assert.equal(noteText(note), text));
});

test('the word that is heard is found, and none between words', () => {
  const words = [{ word: 'It', start: 0.1, end: 0.2 }, { word: 'was', start: 0.4, end: 0.6 }];
  const state = after([final(0, 0, 'It was', { words }), final(1, 2, 'whole')]);
  assert.deepEqual([0.15, 0.3, 0.5, 1.5, 2.5].map((at) => wordAt(state, at)), ['0/0', '0/-1', '0/1', null, '1/-1']);
  assert.deepEqual(['0/1', '0/-1', '5/0'].map((place) => saidAt(state, place)), [words[1], null, null]);
  const { word, start, end } = saidAt(state, '1/-1');
  assert.deepEqual([word, start, end], ['whole', 2, 3]);
});
