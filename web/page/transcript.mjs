// SPDX-License-Identifier: Apache-2.0
/**
 * What a session has said so far, out of its events. Pure: a state and an event give the next state.
 *
 * Must never lose a final, or show as certain what is not.
 */

/** Notices that are kept to be read. */
const MAX_NOTES = 50;

/** A word with less confidence than this is shown as one to be looked at. */
export const UNSURE_BELOW = 0.6;

/** Before the first event. */
export const EMPTY = Object.freeze({
  segments: [],
  gaps: [],
  partial: null,
  node: null,
  notes: [],
  /** Connections that were lost and replaced. */
  survived: 0,
  lost: null,
  durable: false,
  done: false,
});

/**
 * @param {object} state
 * @param {object} event one of the client's
 * @param {{rate: number, at: number}} how frames a second, and when it came (milliseconds)
 */
export function heard(state, event, { rate, at }) {
  switch (event.type) {
    case 'opened':
      return { ...state, node: event.node, durable: event.durable };
    case 'partial':
      return { ...state, partial: { text: event.text, start: event.from / rate, end: event.until / rate } };
    case 'final': {
      const { segment, start, end, text, words, confidence, cause, error } = event;
      const said = { segment, start, end, text, words: words ?? [], confidence, cause, error };
      return { ...state, segments: [...state.segments, said], partial: null };
    }
    case 'gap': {
      const gap = { start: event.from / rate, end: event.to / rate };
      const seconds = gap.end - gap.start;
      const lost = state.lost && { ...state.lost, missing: (state.lost.missing ?? 0) + seconds };
      return noted({ ...state, gaps: [...state.gaps, gap], lost }, { kind: 'gap', at, seconds });
    }
    case 'durable':
      return { ...state, durable: event.durable };
    case 'lost':
      return { ...state, lost: { from: event.node ?? state.node, at } };
    case 'reconnected': {
      const from = state.lost?.from ?? state.node;
      const { seconds, restarted } = event;
      const note = { kind: 'replaced', at, from, to: event.node, seconds, restarted, missing: state.lost?.missing ?? 0 };
      return noted({ ...state, node: event.node, lost: null, survived: state.survived + 1 }, note);
    }
    case 'moved':
      return noted({ ...state, node: event.node }, { kind: 'moved', at, from: state.node, to: event.node });
    case 'decoder':
      return noted(state, { kind: 'decoder', at, ...event });
    case 'notice':
      return noted(state, { kind: 'notice', at, message: event.message });
    case 'done':
      return { ...state, partial: null, done: true };
    default:
      return state;
  }
}

function noted(state, note) {
  return { ...state, notes: [...state.notes, note].slice(-MAX_NOTES) };
}

/** Those segments in which something was said, or should have been. */
export function spoken(state) {
  return state.segments.filter(({ text, error }) => text || error);
}

/** All that was said. */
export function textOf(state) {
  return spoken(state)
    .map(({ text }) => text)
    .filter(Boolean)
    .join(' ');
}

/** What a note says, in a sentence. */
export function noteText(note) {
  const node = (name) => name ?? 'the node';
  switch (note.kind) {
    case 'replaced': {
      const again = note.restarted ? ', from what this page had kept' : '';
      const missing = note.missing ? `${note.missing.toFixed(1)} s of speech missing` : 'nothing missing';
      if (note.from && note.from === note.to) return `Connection to ${note.to} lost and back${again}, ${missing}`;
      return `${node(note.from)} lost, continuing on ${note.to ?? 'another'}${again}, ${missing}`;
    }
    case 'moved':
      return `${node(note.from)} is stopping, continuing on ${note.to ?? 'another'}, nothing missing`;
    case 'decoder':
      return decoderText(note);
    case 'gap':
      return `${note.seconds.toFixed(1)} s of speech are missing: every node had lost them`;
    default:
      return note.message;
  }
}

function decoderText({ node, cause, caughtUp }) {
  const lost = `Decoder on ${node ?? 'a node'} lost (${cause})`;
  return caughtUp ? `${lost}, ${caughtUp.node ?? 'another'} has caught up, nothing missing` : `${lost}, another takes over`;
}

/** What a place of `wordAt` stands for, as `{word, start, end, confidence}`: a word, or all of a segment that has none; else null. */
export function saidAt(state, place) {
  const [segment, index] = place.split('/').map(Number);
  const found = state.segments.find((one) => one.segment === segment);
  if (!found) return null;
  return found.words.length ? (found.words[index] ?? null) : { ...found, word: found.text };
}

/** The segment and word that are spoken at a time, as `segment/word`; null in between. */
export function wordAt(state, seconds) {
  for (const { segment, start, end, words } of state.segments) {
    if (seconds < start || seconds > end) continue;
    const index = words.findIndex((word) => seconds >= word.start && seconds <= word.end);
    return `${segment}/${index}`;
  }
  return null;
}
