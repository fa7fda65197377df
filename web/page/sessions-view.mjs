// SPDX-License-Identifier: Apache-2.0
/** The last sessions. */

import { short, span, timeOfDay } from './format.mjs';
import { Icon, Pill, html } from './ui.mjs';

const STATES = { live: 'good', away: 'warn', done: 'calm', failed: 'bad', abandoned: 'warn', lingered_out: 'warn', owner_lost: 'bad', crashed: 'bad' };
const WORDS = { lingered_out: 'never came back', owner_lost: 'lost with its node', abandoned: 'hung up' };

export function SessionsView({ sessions, problem }) {
  return html`<div class="sessions"><div class="head"><h1>Sessions</h1>
      <span class="quiet">${sessions?.length > 1 ? `the last ${sessions.length}` : ''}</span></div>
    ${problem && html`<p class="banner warn"><${Icon} name="warn" /><b>${problem}</b></p>`}
    ${sessions?.length === 0 && html`<section class="empty"><span class="empty-icon"><${Icon} name="list" /></span><h2>No sessions yet</h2><p>Those that live and the last ones that ended are listed here.</p></section>`}
    ${sessions?.length > 0 && html`<div class="card"><table class="table"><caption class="visually-hidden">The last sessions, those that live first</caption>
      <thead><tr><th scope="col">Session</th><th scope="col">State</th><th scope="col">Model</th><th scope="col">Tenant</th><th scope="col">Client</th><th scope="col">Node</th><th scope="col">Began</th><th scope="col" class="number">Audio</th><th scope="col" class="number">Attempts</th><th scope="col">Trace</th></tr></thead>
      <tbody>${sessions.map((one) => html`<tr key=${`${one.session} ${one.ended_ms}`}>
        <th scope="row"><code title=${one.session}>${short(one.session)}</code></th>
        <td data-label="State"><${Pill} tone=${STATES[one.state] ?? 'calm'}>${WORDS[one.state] ?? one.state}<//></td>
        <td data-label="Model">${one.model}</td><td data-label="Tenant">${one.tenant || '–'}</td><td data-label="Client">${one.dialect}</td>
        <td data-label="Node">${one.owner}</td><td data-label="Began">${timeOfDay(one.began_ms)}</td>
        <td data-label="Audio" class="number">${span(one.audio_ms / 1000)}</td><td data-label="Attempts" class="number">${one.attempt}</td>
        <td data-label="Trace">${one.trace_url ? html`<a href=${one.trace_url} target="_blank" rel="noreferrer"><${Icon} name="link" />${one.trace_id.slice(0, 8)}</a>` : one.trace_id ? html`<code title=${one.trace_id}>${one.trace_id.slice(0, 8)}</code>` : '–'}</td>
      </tr>`)}</tbody></table></div>`}
  </div>`;
}
