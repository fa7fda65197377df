// SPDX-License-Identifier: Apache-2.0
/** What becomes of sessions, in words. Pure. */

/** Every state in which a node lists a session: how grave it is, and what it is called here. */
export const STATES = {
  live: ['good', 'live'],
  away: ['warn', 'away'],
  done: ['calm', 'done'],
  abandoned: ['warn', 'hung up'],
  lingered_out: ['warn', 'never came back'],
  superseded: ['calm', 'went on elsewhere'],
  slow_reader: ['warn', 'read too slowly'],
  idle_timeout: ['warn', 'fell silent'],
  options_refused: ['warn', 'options refused'],
  shut_down: ['warn', 'ended with its node'],
  failed: ['bad', 'failed'],
  crashed: ['bad', 'crashed'],
  owner_lost: ['bad', 'lost with its node'],
};

/** A state's tone and words; of one that a newer node has, its own name. */
export function stateOf(name) {
  return STATES[name] ?? ['calm', name.replaceAll('_', ' ')];
}
