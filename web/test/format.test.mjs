// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { clock, clockTenths, moment, span } from '../page/format.mjs';
import { STATES, stateOf } from '../page/sessions.mjs';

test('times are as a player shows them, also to the tenth', () => {
  assert.deepEqual([0, 62.9, 3_723].map(clock), ['0:00', '1:02', '1:02:03']);
  assert.deepEqual([0, 3.24, 59.96, 3_723.1].map(clockTenths), ['0:00.0', '0:03.2', '1:00.0', '1:02:03.1']);
  assert.deepEqual([0.04, 0.4, 5, 59, 200, 1_800, 7_260].map(span), ['0.04 s', '0.4 s', '5.0 s', '59 s', '3 min 20 s', '30 min', '2 h 1 min']);
});

test('a moment has its date unless that is today', () => {
  const at = (...parts) => new Date(...parts).getTime();
  assert.equal(moment(at(2026, 10, 30, 9, 5, 7), at(2026, 10, 30, 23, 0)), '09:05:07');
  assert.equal(moment(at(2026, 10, 29, 23, 59, 59), at(2026, 10, 30, 0, 0, 1)), '2026-11-29 23:59');
});

test('however a node says that a session ended, it is told in words', () => {
  const source = readFileSync(new URL('../../actors/src/observe.rs', import.meta.url), 'utf8');
  const [, list] = /SESSION_OUTCOMES: \[&str; \d+\] = \[([^\]]+)\]/.exec(source);
  const outcomes = [...list.matchAll(/"(\w+)"/g)].map(([, name]) => name);
  assert.ok(outcomes.includes('slow_reader') && list.includes('OWNER_LOST') && list.includes('CRASHED'), list);
  assert.deepEqual(Object.keys(STATES).sort(), [...outcomes, 'owner_lost', 'crashed', 'live', 'away'].sort());
  for (const [tone, words] of Object.values(STATES)) assert.ok(['good', 'warn', 'bad', 'calm'].includes(tone) && !words.includes('_'), words);
  assert.deepEqual(stateOf('quite_new'), ['calm', 'quite new']);
});
