// SPDX-License-Identifier: Apache-2.0
/** Where nodes and their links stand on the map. Pure. */

/** Below this there is one column. */
const NARROW = 640;
const CARD = { width: 264, base: 64, pool: 46, sessions: 26 };
/** Room beside the one column, for links. */
const MARGIN = 56;
/** What a card is higher by where its buttons are for fingers. */
const FOR_FINGERS = 10;
/** Sessions of a node that are drawn one by one. */
export const MAX_SHOWN = 12;

/** Height of a node's card. */
export function heightOf(node) {
  return CARD.base + CARD.pool * Math.max(1, node.models.length) + CARD.sessions;
}

/** Places of all nodes' cards in so much width, as `{width, height, cards: Map(name, {x, y, width, height})}`. */
export function placed(nodes, width) {
  const cards = new Map();
  if (width < NARROW) {
    let y = 0;
    for (const node of nodes) {
      const height = heightOf(node) + FOR_FINGERS;
      cards.set(node.name, { x: 0, y, width: width - MARGIN, height });
      y += height + 20;
    }
    return { width, height: Math.max(0, y - 20), cards, narrow: true };
  }
  const tallest = Math.max(0, ...nodes.map(heightOf));
  if (nodes.length > 6) return grid(nodes, width, tallest);
  // Around an ellipse, the first at the top: every link is seen.
  const height = nodes.length < 2 ? tallest : nodes.length === 2 ? tallest + 60 : 2 * tallest + 110;
  const reach = { x: Math.min(width - CARD.width, 780) / 2, y: (height - tallest) / 2 };
  nodes.forEach((node, index) => {
    const turn = nodes.length === 2 ? Math.PI * (1 - index) : -Math.PI / 2 + (2 * Math.PI * index) / nodes.length;
    const lone = nodes.length === 1;
    const x = width / 2 + (lone ? 0 : stretched(Math.cos(turn)) * reach.x) - CARD.width / 2;
    const y = height / 2 + (lone ? 0 : spread(turn, nodes.length) * reach.y) - heightOf(node) / 2;
    cards.set(node.name, { x: Math.round(x), y: Math.round(y), width: CARD.width, height: heightOf(node) });
  });
  return areApart([...cards.values()]) ? { width, height, cards, narrow: false } : grid(nodes, width, tallest);
}

function areApart(cards) {
  const apart = (one, other) => Math.abs(one.x - other.x) >= CARD.width + 16 || Math.abs(one.y - other.y) >= one.height + 8;
  return cards.every((one, at) => cards.slice(at + 1).every((other) => apart(one, other)));
}

/** Cards are wide: towards the sides they need more room than a circle gives. */
function stretched(cosine) {
  return Math.sign(cosine) * Math.min(1, Math.abs(cosine) * 1.15);
}

/** Three or more reach from the top to the bottom. */
function spread(turn, count) {
  if (count === 2) return 0;
  if (count === 3) return turn < -1 ? -1 : 1;
  return Math.sin(turn);
}

function grid(nodes, width, tallest) {
  const columns = Math.max(1, Math.floor((width + 40) / (CARD.width + 40)));
  const gap = columns > 1 ? (width - columns * CARD.width) / (columns - 1) : 0;
  const cards = new Map();
  nodes.forEach((node, index) => {
    const x = Math.round((index % columns) * (CARD.width + gap));
    const y = Math.floor(index / columns) * (tallest + 40);
    cards.set(node.name, { x, y, width: CARD.width, height: heightOf(node) });
  });
  return { width, height: Math.ceil(nodes.length / columns) * (tallest + 40) - 40, cards, narrow: false };
}

/** Links between nodes, each with how many sessions it carries: `{kind, from, to, sessions}`. A node's links to itself are left out. */
export function links(sessions) {
  const found = new Map();
  const add = (kind, from, to, session) => {
    if (!from || !to || from === to) return;
    const key = `${kind} ${from} ${to}`;
    const link = found.get(key) ?? { kind, from, to, sessions: [] };
    link.sessions.push(session);
    found.set(key, link);
  };
  for (const { session, owner, decoder, standby, copies } of sessions) {
    add('decoder', owner, decoder, session);
    add('standby', owner, standby, session);
    copies.forEach((copy) => add('copy', owner, copy, session));
  }
  return [...found.values()];
}

/** The line of a link on the map, from the edge of one card to the edge of another; links of two kinds do not lie on each other. */
export function path({ cards, narrow }, { kind, from, to }) {
  const [one, other] = [cards.get(from), cards.get(to)];
  if (!one || !other) return null;
  const shift = { decoder: -10, copy: 10, standby: 0 }[kind] ?? 0;
  if (narrow) {
    const [x, top, bottom] = [one.x + one.width, one.y + one.height / 2 + shift, other.y + other.height / 2 + shift];
    const bow = Math.min(50, 18 + Math.abs(top - bottom) / 12) + shift / 2;
    return `M ${x} ${top} C ${x + bow} ${top}, ${x + bow} ${bottom}, ${x} ${bottom}`;
  }
  const centre = ({ x, y, width, height }) => [x + width / 2, y + height / 2];
  const [[ax, ay], [bx, by]] = [centre(one), centre(other)];
  const length = Math.hypot(bx - ax, by - ay) || 1;
  // To the left of where it goes, so that there and back are two lines.
  const aside = [(-(by - ay) / length) * (18 + shift), ((bx - ax) / length) * (18 + shift)];
  const [sx, sy] = edge(one, [bx + aside[0] - ax, by + aside[1] - ay]);
  const [ex, ey] = edge(other, [ax + aside[0] - bx, ay + aside[1] - by]);
  const middle = [(sx + ex) / 2 + aside[0] * 1.5, (sy + ey) / 2 + aside[1] * 1.5];
  return `M ${round(sx)} ${round(sy)} Q ${round(middle[0])} ${round(middle[1])} ${round(ex)} ${round(ey)}`;
}

/** Where a line from a card's middle leaves it. */
function edge({ x, y, width, height }, [dx, dy]) {
  const scale = Math.min(Math.abs(width / 2 / (dx || 1e-9)), Math.abs(height / 2 / (dy || 1e-9)));
  return [x + width / 2 + dx * scale, y + height / 2 + dy * scale];
}

function round(number) {
  return Math.round(number * 10) / 10;
}
