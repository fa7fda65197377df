// SPDX-License-Identifier: Apache-2.0
/** The cluster as it is seen live, out of what a node tells. Pure. */

/** Events that can be scrolled through. */
const MAX_EVENTS = 200;
/** Squares that a node's card has room for. */
const MAX_SQUARES = 16;

/** `survived` counts the failovers that were seen. */
export const UNSEEN = Object.freeze({ report: null, events: [], survived: 0, connected: false, from: null, error: null });

/** Takes in a server-sent event of `/v1/cluster/events`. */
export function seen(state, { type, data }) {
  if (type === 'cluster') return { ...state, report: JSON.parse(data) };
  if (type !== 'happened') return state;
  const event = JSON.parse(data);
  const key = keyOf(event);
  // Another node tells the same again.
  if (state.events.some((known) => known.key === key)) return state;
  // It may be one that was let go before.
  if (state.events.length === MAX_EVENTS && event.at_ms <= state.events[0].at_ms) return state;
  const events = [...state.events, { ...event, key }].sort((one, other) => one.at_ms - other.at_ms);
  // What comes before the first report had happened before anybody looked.
  const survived = state.survived + (state.report && event.kind === 'caught_up' ? 1 : 0);
  return { ...state, survived, events: events.slice(-MAX_EVENTS) };
}

function keyOf({ node, sequence, kind, at_ms: at, session }) {
  // What nodes tell of themselves is counted; who comes and goes each sees for itself, at about the same time.
  return sequence ? `${node}/${sequence}/${at}` : `${node}/${kind}/${session ?? ''}/${Math.round(at / 5_000)}`;
}

/** What an event says: how grave it is, and in words. */
export function told(event) {
  const { kind, node, model, session, decoder, cause, took_ms: took, before } = event;
  const name = session ? session.slice(0, 8) : '';
  const ms = (value) => (value < 1000 ? `${value} ms` : `${(value / 1000).toFixed(1)} s`);
  switch (kind) {
    case 'node_joined':
      return ['good', `${node} joined`];
    case 'node_back':
      return ['good', `${node} is back`];
    case 'node_draining':
      return ['warn', `${node} is draining: its callers move to others`];
    case 'node_suspected':
      return ['warn', `${node} is silent`];
    case 'node_down':
      return ['bad', `${node} is down`];
    case 'node_left':
      return ['calm', `${node} has left`];
    case 'session_began':
      return ['calm', `${name} began on ${node}`];
    case 'session_ended':
      return cause === 'superseded' ? ['calm', `${name} left ${node}`] : ['calm', `${name} ended on ${node} (${cause})`];
    case 'taken_over':
      return ['good', `${name} goes on at ${node}${before ? `, it was on ${before}` : ''}`];
    case 'decoder_lost':
      return ['bad', `${name} lost its decoder${decoder ? ` on ${decoder}` : ''} (${cause})`];
    case 'caught_up':
      return ['good', `${name} has caught up${decoder ? ` on ${decoder}` : ''} after ${ms(took)}, nothing missing`];
    case 'host_ready':
      return ['good', `${node} has a new decoder process of ${model}`];
    case 'host_gone':
      return [cause === 'stopped' ? 'calm' : 'bad', `${node} lost a decoder process of ${model} (${cause})`];
    default:
      return ['calm', `${node}: ${kind}`];
  }
}

/** What stands at the top. */
export function figures({ report, survived }) {
  const nodes = report?.nodes ?? [];
  const slots = (report?.models ?? []).map((model) => model.slots);
  const sum = (of) => slots.reduce((all, one) => all + of(one), 0);
  return {
    nodes: nodes.filter(({ state }) => state === 'alive').length,
    nodesKnown: nodes.filter(({ state }) => state !== 'left').length,
    sessions: report?.sessions.length ?? 0,
    busy: sum((one) => one.busy),
    total: sum((one) => one.total),
    survived,
  };
}

/** Decoders as squares: of many each square stands for several, and neither a busy one nor a free one is rounded away. */
export function squares({ total, busy }) {
  if (total <= MAX_SQUARES) return { shown: total, busy };
  const share = Math.round((busy / total) * MAX_SQUARES);
  return { shown: MAX_SQUARES, busy: Math.min(Math.max(share, Math.min(busy, 1)), busy < total ? MAX_SQUARES - 1 : MAX_SQUARES) };
}

/** Nodes that are there, or were a moment ago. */
export function shownNodes(report) {
  return (report?.nodes ?? []).filter(({ state }) => state !== 'left');
}
