// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { UNSEEN, figures, seen, squares, told } from '../page/cluster.mjs';
import { links, path, placed } from '../page/layout.mjs';
import { EventParser } from '../page/sse.mjs';

const model = { name: 'm', slots: { total: 8, busy: 3, idle: 5 }, hosts: { ready: 1, total: 1 }, real_time_factor: null };
const node = (name, state = 'alive') => ({ name, state, zone: '', models: [model] });
const session = (owner, decoder, copies) => ({ session: `of ${owner}`, owner, decoder, standby: null, copies, connected: true });
const happened = (event) => ({ type: 'happened', data: JSON.stringify(event) });

test('events are read however they are cut', () => {
  const text = ': beat\n\nevent: cluster\ndata: {"a":1}\n\nevent: happened\r\ndata: one\r\ndata: two\r\n\r\ndata: x\n\n';
  const expected = [{ type: 'cluster', data: '{"a":1}' }, { type: 'happened', data: 'one\ntwo' }, { type: 'message', data: 'x' }];
  for (let size = 1; size <= text.length; size += 1) {
    const parser = new EventParser();
    const found = [];
    for (let at = 0; at < text.length; at += size) found.push(...parser.push(text.slice(at, at + size)));
    assert.deepEqual(found, expected, `in pieces of ${size}`);
  }
});

test('an event without an end is not gathered for ever', () => {
  const parser = new EventParser();
  assert.throws(() => Array.from({ length: 6 }, () => parser.push('x'.repeat(1 << 20))), /does not end/);
});

test('an event is taken in once, whichever node tells it', () => {
  let state = seen(UNSEEN, happened({ id: 1, sequence: 4, node: 'a', kind: 'caught_up', at_ms: 20, took_ms: 210 }));
  state = seen(state, happened({ id: 9, sequence: 4, node: 'a', kind: 'caught_up', at_ms: 20, took_ms: 210 }));
  state = seen(state, happened({ id: 2, sequence: 3, node: 'a', kind: 'decoder_lost', at_ms: 10, cause: 'killed' }));
  assert.deepEqual(state.events.map(({ kind }) => kind), ['decoder_lost', 'caught_up']);
});

test('failovers are counted from the first look on, once, and never fewer', () => {
  const caughtUp = (sequence) => happened({ id: sequence, sequence, node: 'a', kind: 'caught_up', at_ms: sequence });
  let state = seen(UNSEEN, caughtUp(1));
  assert.equal(figures(state).survived, 0, 'nobody looked yet');
  state = seen(state, { type: 'cluster', data: JSON.stringify({ nodes: [], models: [], sessions: [] }) });
  for (let sequence = 2; sequence <= 302; sequence += 1) {
    state = seen(state, caughtUp(sequence));
    assert.equal(figures(state).survived, sequence - 1);
  }
  assert.equal(state.events.length, 200);
  // Another node tells what was let go here.
  for (let sequence = 90; sequence <= 302; sequence += 1) state = seen(state, caughtUp(sequence));
  assert.equal(figures(state).survived, 301);
});

test('squares show a share of many decoders, and neither the only busy one nor the only free one is lost', () => {
  const busy = (total, busy) => squares({ total, busy });
  assert.deepEqual(busy(8, 3), { shown: 8, busy: 3 });
  assert.deepEqual(busy(16, 16), { shown: 16, busy: 16 });
  assert.deepEqual([0, 1, 20, 32, 63, 64].map((some) => busy(64, some).busy), [0, 1, 5, 8, 15, 16]);
  assert.deepEqual(busy(64, 20).shown, 16);
});

test('figures are of those that are there', () => {
  const report = { nodes: [node('a'), node('b', 'down'), node('c', 'left')], models: [model, model], sessions: [session('a', 'a', [])] };
  assert.deepEqual(figures({ ...UNSEEN, report }), { nodes: 1, nodesKnown: 2, sessions: 1, busy: 6, total: 16, survived: 0 });
});

test('whatever happens is told in words', () => {
  for (const kind of ['node_joined', 'node_down', 'session_began', 'session_ended', 'taken_over', 'decoder_lost', 'caught_up', 'host_ready', 'host_gone', 'unknown']) {
    const [tone, text] = told({ kind, node: 'a', session: '0123456789', model: 'm', cause: 'killed', took_ms: 210, before: 'b', decoder: 'c' });
    assert.ok(['good', 'warn', 'bad', 'calm'].includes(tone) && text && !text.includes('undefined'), `${kind}: ${text}`);
  }
});

test('cards do not lie on each other, and none is outside', () => {
  for (const count of [1, 2, 3, 4, 5, 6, 7, 12, 30]) {
    for (const width of [300, 640, 800, 1_180]) {
      const { cards, height } = placed(Array.from({ length: count }, (_, at) => node(`n${at}`)), width);
      const all = [...cards.values()];
      for (const [at, one] of all.entries()) {
        assert.ok(one.x >= 0 && one.y >= 0 && one.x + one.width <= width && one.y + one.height <= height, `${count} at ${width}: ${JSON.stringify(one)}`);
        for (const other of all.slice(at + 1)) {
          const apart = one.x + one.width <= other.x || other.x + other.width <= one.x || one.y + one.height <= other.y || other.y + other.height <= one.y;
          assert.ok(apart, `${count} at ${width}: ${JSON.stringify([one, other])}`);
        }
      }
    }
  }
});

test('links are gathered by where they go, and none goes to itself', () => {
  const found = links([session('a', 'a', ['b']), session('a', 'b', ['b', 'c']), session('b', null, [])]);
  assert.deepEqual(found.map(({ kind, from, to, sessions }) => [kind, from, to, sessions.length]), [['copy', 'a', 'b', 2], ['decoder', 'a', 'b', 1], ['copy', 'a', 'c', 1]]);
  const place = placed([node('a'), node('b')], 900);
  assert.match(path(place, found[0]), /^M [\d.-]+ [\d.-]+ Q /);
  assert.equal(path(place, { kind: 'copy', from: 'a', to: 'nobody' }), null);
});
