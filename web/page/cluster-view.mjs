// SPDX-License-Identifier: Apache-2.0
/** The cluster: as a map, and the same as tables. */

import { Component, createRef } from './vendor/preact.mjs';
import { figures, shownNodes, squares, told } from './cluster.mjs';
import { count, short, span, timeOfDay } from './format.mjs';
import { MAX_SHOWN, links, path, placed } from './layout.mjs';
import { Button, Icon, Pill, html } from './ui.mjs';

const TONES = { alive: 'good', draining: 'warn', suspected: 'warn', down: 'bad', left: 'calm' };

export class ClusterView extends Component {
  render({ cluster, chaos, view, onView, onKill, onDrain, done }) {
    const { report } = cluster;
    if (!report) {
      return html`<section class="empty"><span class="spinner big" aria-hidden="true"></span><h1>Cluster</h1><p>Asking the nodes…</p></section>`;
    }
    const nodes = shownNodes(report);
    const [figure, actions] = [figures(cluster), { chaos, onKill, onDrain }];
    return html`<div class="cluster">
      <div class="head"><h1>Cluster</h1>
        <${Pill} tone=${cluster.connected ? 'good' : 'warn'}>${cluster.connected ? `live from ${cluster.from}` : 'looking for a node'}<//>
        <div class="switch" role="group" aria-label="Shown as">
          ${['map', 'table'].map((kind) => html`<button key=${kind} type="button" aria-pressed=${view === kind} onClick=${() => onView(kind)}>
            <${Icon} name=${kind} />${kind === 'map' ? 'Map' : 'Table'}</button>`)}
        </div>
      </div>
      <dl class="figures">
        <${Figure} name="Nodes alive" value=${figure.nodes} of=${figure.nodesKnown} />
        <${Figure} name="Sessions" value=${figure.sessions} />
        <${Figure} name="Decoders busy" value=${figure.busy} of=${figure.total} bar />
        <${Figure} name="Failovers survived" value=${figure.survived} tone=${figure.survived ? 'good' : ''} note="since this page was opened" />
      </dl>
      <p class="said" role="status">${done && html`<span class=${`banner ${done.tone}`}><${Icon} name=${done.tone === 'good' ? 'bolt' : 'warn'} /><b>${done.text}</b></span>`}</p>
      <div class=${`columns ${view}-view`}>
        <div class="main">
          ${view === 'map' ? html`<${ClusterMap} report=${report} nodes=${nodes} events=${cluster.events} ...${actions} />`
            : html`<${NodeTable} nodes=${nodes} ...${actions} />`}
          ${view === 'table' && html`<${SessionTable} sessions=${report.sessions} />`}
        </div>
        <${Happenings} events=${cluster.events} />
      </div>
    </div>`;
  }
}

function Figure({ name, value, of, bar, note, tone = '' }) {
  return html`<div class=${`figure ${tone}`}><dt>${name}</dt>
    <dd>${value}${of !== undefined && html`<small> / ${of}</small>`}</dd>
    ${note && html`<dd class="note">${note}</dd>`}
    ${bar && html`<div class="meter" aria-hidden="true"><span style=${{ width: `${of ? Math.round((100 * value) / of) : 0}%` }}></span></div>`}
  </div>`;
}

class ClusterMap extends Component {
  #box = createRef();
  #observer = null;
  state = { width: 0 };

  componentDidMount() {
    const measure = () => this.setState({ width: this.#box.current.clientWidth });
    this.#observer = new ResizeObserver(measure);
    this.#observer.observe(this.#box.current);
    measure();
  }

  componentWillUnmount() {
    this.#observer.disconnect();
  }

  render({ report, nodes, events, ...actions }, { width }) {
    const place = placed(nodes, Math.max(width, 280));
    const drawn = links(report.sessions).map((link) => ({ link, d: path(place, link) })).filter(({ d }) => d);
    const recent = new Set(events.filter(({ at_ms: at }) => Date.now() - at < 6_000).filter((event) => told(event)[0] === 'bad').map(({ node, decoder }) => decoder ?? node));
    const sentence = drawn.map(({ link: { kind, from, to, sessions } }) => `${from} ${kind === 'decoder' ? 'has' : 'keeps'} ${count(sessions.length, 'session')} ${kind === 'decoder' ? 'decoded on' : kind === 'copy' ? 'copied on' : 'standing by on'} ${to}`);
    return html`<figure class=${`map ${place.narrow ? 'narrow' : ''}`}>
      <div ref=${this.#box} class="map-box" style=${{ height: `${place.height}px` }}>
        <svg class="map-links" width=${place.width} height=${place.height} role="img" aria-label=${`Links between nodes. ${sentence.join('. ') || 'There are none now'}.`}>
          <defs>${['decoder', 'copy', 'standby'].map((kind) => html`<marker key=${kind} id=${`tip-${kind}`} class=${kind} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto"><path class="tip" d="M0 0 8 4 0 8z" /></marker>`)}</defs>
          ${drawn.map(({ link: { kind, from, to, sessions }, d }) => html`<g key=${`${kind} ${from} ${to}`} class=${`link ${kind}`}>
            <path d=${d} style=${{ '--width': Math.min(5, 1.5 + sessions.length / 2) }} marker-end=${`url(#tip-${kind})`} />
            ${kind === 'decoder' && html`<path class="flow" d=${d} />`}
          </g>`)}
        </svg>
        ${width > 0 && nodes.map((node) => html`<${NodeCard} key=${node.name} node=${node} me=${report.node} place=${place.cards.get(node.name)}
          sessions=${report.sessions.filter(({ owner }) => owner === node.name)} struck=${recent.has(node.name)} ...${actions} />`)}
      </div>
      <figcaption class="legend">
        ${[['decoder', 'decoded on'], ['copy', 'copied on'], ['standby', 'standby on']].map(([kind, words]) => html`<span key=${kind}><${LinkKey} kind=${kind} />${words}</span>`)}
        <span><i class="key slot busy"></i>busy decoder</span><span><i class="key slot"></i>free decoder</span><span><i class="key caller"></i>session</span>
        ${actions.chaos && html`<span><${Icon} name="bolt" />kill a decoder</span><span><${Icon} name="exit" />drain the node</span>`}
      </figcaption>
    </figure>`;
  }
}

/** A link in small: it goes from the node that a session lives on. */
function LinkKey({ kind }) {
  return html`<svg class="link-key" width="30" height="10" aria-hidden="true"><g class=${`link ${kind}`}><path d="M1 5H27" marker-end=${`url(#tip-${kind})`} /></g></svg>`;
}

function NodeCard({ node, me, place, sessions, struck, ...actions }) {
  const gone = node.state === 'down';
  return html`<article class=${`node ${TONES[node.state] ?? ''} ${struck ? 'struck' : ''}`} aria-label=${node.name}
    style=${{ transform: `translate(${place.x}px, ${place.y}px)`, width: `${place.width}px`, height: `${place.height}px` }}>
    <header><h2 title=${node.name === me ? 'the node that tells' : null}>${node.name}</h2><${Pill} tone=${TONES[node.state] ?? 'calm'}>${node.state}<//>
      <${Actions} node=${node} ...${actions} /></header>
    ${gone ? html`<p class="quiet">Its callers go on elsewhere.</p>` : node.models.map((model) => html`<${Pool} key=${model.name} model=${model} />`)}
    ${!gone && !node.models.length && html`<p class="quiet">Takes callers, decodes none.</p>`}
    <p class="callers">${sessions.slice(0, MAX_SHOWN).map((session) => html`<i key=${session.session} class=${`caller ${session.connected ? '' : 'away'}`} title=${`${short(session.session)}, ${session.model}`}></i>`)}
      <span>${sessions.length > MAX_SHOWN ? `+${sessions.length - MAX_SHOWN} ` : ''}${sessions.length ? count(sessions.length, 'session') : 'no sessions'}${node.zone ? ` · ${node.zone}` : ''}</span></p>
  </article>`;
}

function Pool({ model: { name, slots, hosts, real_time_factor: factor } }) {
  const { shown, busy } = squares(slots);
  return html`<div class="pool"><p><b title=${name}>${name}</b><span>${slots.busy}/${slots.total}</span></p>
    <p class=${`slots ${shown > 8 ? 'many' : ''}`} role="img" aria-label=${`${slots.busy} of ${slots.total} decoders busy, ${hosts.ready} of ${hosts.total} processes ready${factor === null ? '' : `, real-time factor ${factor.toFixed(2)}`}`}>
      ${Array.from({ length: shown }, (_, index) => html`<i key=${index} class=${`slot ${index < busy ? 'busy' : ''}`}></i>`)}
      ${hosts.total > 0 && html`<small>${hosts.ready < hosts.total ? `${hosts.ready} of ${hosts.total} processes` : count(hosts.total, 'process', 'processes')}</small>`}</p></div>`;
}

/** What can be done to a node: icons on the map, where the legend has their words, and words in the table. */
function Actions({ node, chaos, inWords, onKill, onDrain }) {
  if (!chaos || !['alive', 'draining'].includes(node.state)) return null;
  const decodes = node.models.some(({ slots }) => slots.total > 0);
  const act = (icon, words, label, onClick) => html`<button type="button" class=${`act ${inWords ? 'words' : ''}`} title=${label} aria-label=${label} onClick=${onClick}>
    <${Icon} name=${icon} />${inWords && html`<span>${words}</span>`}</button>`;
  return html`<span class="actions">
    ${decodes && act('bolt', 'Kill a decoder', `Kill a decoder of ${node.name}`, () => onKill(node.name))}
    ${node.state === 'alive' && act('exit', 'Drain', `Drain ${node.name}`, () => onDrain(node.name))}
  </span>`;
}

function NodeTable({ nodes, ...actions }) {
  return html`<div class="card"><table class="table"><caption>Nodes</caption>
    <thead><tr><th scope="col">Node</th><th scope="col">State</th><th scope="col">Zone</th><th scope="col">Models</th><th scope="col">Busy</th><th scope="col">Processes</th><th scope="col"><abbr title="CPU seconds for each second of audio">Real-time factor</abbr></th><th scope="col">Version</th>${actions.chaos && html`<th scope="col"><span class="visually-hidden">Actions</span></th>`}</tr></thead>
    <tbody>${nodes.map((node) => html`<tr key=${node.name}>
      <th scope="row">${node.name}</th><td data-label="State"><${Pill} tone=${TONES[node.state] ?? 'calm'}>${node.state}<//></td>
      <td data-label="Zone">${node.zone || '–'}</td><td data-label="Models">${ofEach(node, ({ name }) => name)}</td>
      <td data-label="Busy">${ofEach(node, ({ slots }) => `${slots.busy}/${slots.total}`)}</td>
      <td data-label="Processes">${ofEach(node, ({ hosts }) => `${hosts.ready}/${hosts.total}`)}</td>
      <td data-label="Real-time factor">${ofEach(node, ({ real_time_factor: factor }) => factor?.toFixed(2) ?? 'none yet')}</td><td data-label="Version">${node.version || '–'}</td>
      ${actions.chaos && html`<td class="act-cell"><${Actions} node=${node} inWords ...${actions} /></td>`}
    </tr>`)}</tbody></table></div>`;
}

/** Of each of a node's models, in their order. */
function ofEach(node, what) {
  return node.models.map(what).join(', ') || '–';
}

function SessionTable({ sessions }) {
  if (!sessions.length) return html`<p class="quiet">Nobody speaks just now.</p>`;
  return html`<div class="card"><table class="table"><caption>Sessions</caption>
    <thead><tr><th scope="col">Session</th><th scope="col">Owner</th><th scope="col">Decoder</th><th scope="col">Standby</th><th scope="col">Copies</th><th scope="col">Attempt</th><th scope="col">Behind</th></tr></thead>
    <tbody>${sessions.map((one) => html`<tr key=${one.session}>
      <th scope="row"><code>${short(one.session)}</code></th><td data-label="Owner">${one.owner}</td>
      <td data-label="Decoder">${one.decoder ?? '–'}</td><td data-label="Standby">${one.standby ?? '–'}</td>
      <td data-label="Copies">${one.copies.join(', ') || '–'}${one.durable ? '' : ' (not whole)'}</td><td data-label="Attempt">${one.attempt}</td><td data-label="Behind">${span(one.lag_ms / 1000)}</td>
    </tr>`)}</tbody></table></div>`;
}

function Happenings({ events }) {
  const latest = events.slice(-60).reverse();
  return html`<section class="happenings" aria-labelledby="happenings"><h2 id="happenings">What happens</h2>
    ${latest.length ? html`<ol tabindex="0" aria-label="Events, the latest first">${latest.map((event) => {
      const [tone, text] = told(event);
      return html`<li key=${event.key} class=${tone}><span class="dot" aria-hidden="true"></span><span>${text}</span><time>${timeOfDay(event.at_ms)}</time></li>`;
    })}</ol>` : html`<p class="quiet">Nothing yet. Speak, kill something, and it is told here.</p>`}
  </section>`;
}
