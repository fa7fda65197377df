// SPDX-License-Identifier: Apache-2.0
/** What all views are made of. */

import htm from './vendor/htm.mjs';
import { h } from './vendor/preact.mjs';

export const html = htm.bind(h);

/** Icons are drawn on 24 by 24, in lines. */
const ICONS = {
  mic: 'M12 3a3 3 0 0 1 3 3v6a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3zM5.5 11.5a6.5 6.5 0 0 0 13 0M12 18v3M8.5 21h7',
  stop: 'M7 7h10v10H7z',
  play: 'M8 5.5v13l11-6.5z',
  pause: 'M8 5v14M16 5v14',
  file: 'M12 16V4M7 9l5-5 5 5M4 15v4a1 1 0 0 0 1 1h14a1 1 0 0 0 1-1v-4',
  save: 'M12 4v11M7 10.5l5 5 5-5M4 16v3a1 1 0 0 0 1 1h14a1 1 0 0 0 1-1v-3',
  trash: 'M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7M10.3 10.5v5.5M13.7 10.5v5.5',
  key: 'M14.5 9.5a4.5 4.5 0 1 0-4.2 4.5L12 12.3h2v-2h1.7M14 6.8h.01M11 13l7.5 7.5H21V18l-7-7',
  map: 'M6.5 8.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5zM17.5 10.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5zM11 20.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5zM9 6.4l6 1.2M7.4 8.4l2.8 7.3M16.3 10.2l-4.2 5.7',
  table: 'M4 5h16v14H4zM4 10h16M4 14.5h16M10 10v9',
  list: 'M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01',
  bolt: 'M13 3 5 13.5h6L10 21l8-10.5h-6z',
  exit: 'M14 4h4a1.5 1.5 0 0 1 1.5 1.5v13A1.5 1.5 0 0 1 18 20h-4M10 16l-4-4 4-4M6 12h9.5',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  warn: 'M12 4 2.8 19.5h18.4zM12 10v4.5M12 17.2h.01',
  link: 'M9 15l6-6M10.5 6.5l1.6-1.6a4 4 0 0 1 5.7 5.7l-1.6 1.6M13.5 17.5l-1.6 1.6a4 4 0 0 1-5.7-5.7l1.6-1.6',
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${ICONS[name]} /></svg>`;
}

/** The flock that the project is named after. */
const FLOCK = [
  [5, 22, 1.5], [8.5, 17.8, 2], [13, 14.6, 2.5], [18, 12.6, 2.9], [23, 10, 2.4], [27, 6.6, 1.7],
  [10.5, 22.6, 1.6], [15, 19.6, 2.1], [20, 17.6, 2.2], [24.6, 14.8, 1.8], [18, 23.6, 1.3], [22.8, 21, 1.2],
];

export function Logo() {
  return html`<svg class="logo" viewBox="2 2 28 26" aria-hidden="true" focusable="false">
    <defs><linearGradient id="plumage" gradientUnits="userSpaceOnUse" x1="4" y1="23" x2="28" y2="7">
      <stop offset="0" class="plumage-a" /><stop offset="1" class="plumage-b" />
    </linearGradient></defs>
    ${FLOCK.map(([cx, cy, r]) => html`<circle cx=${cx} cy=${cy} r=${r} fill="url(#plumage)" />`)}
  </svg>`;
}

/** A button with an icon and a word. */
export function Button({ icon, label, kind = '', children, ...rest }) {
  return html`<button type="button" class=${`button ${kind}`} ...${rest}>
    ${icon && html`<${Icon} name=${icon} />`}<span>${label ?? children}</span>
  </button>`;
}

/** A state in a word, with its colour. */
export function Pill({ tone, children }) {
  return html`<span class=${`pill ${tone}`}><span class="dot" aria-hidden="true"></span>${children}</span>`;
}

/** What an operator alone may see, to everybody else. */
export function OperatorsOnly({ what, keys, onKey }) {
  return html`<section class="empty" aria-labelledby="operators-only">
    <span class="empty-icon"><${Icon} name="key" /></span>
    <h1 id="operators-only">For operators</h1>
    <p>${what} ${keys ? 'An operator’s key shows it.' : 'It is shown on the node’s own machine, or with an operator’s key.'}</p>
    ${keys && html`<${Button} kind="primary" icon="key" label="Enter a key" onClick=${onKey} />`}
  </section>`;
}

/** Hands a file to whoever sits before the browser. */
export function download(name, type, content) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = Object.assign(document.createElement('a'), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
