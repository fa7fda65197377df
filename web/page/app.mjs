// SPDX-License-Identifier: Apache-2.0
/** The page: what is shown, and what is asked for it. */

import { createRef, render } from './vendor/preact.mjs';
import { ClusterView } from './cluster-view.mjs';
import { UNSEEN, seen } from './cluster.mjs';
import { Nodes } from './node.mjs';
import { SessionsView } from './sessions-view.mjs';
import { TalkView } from './talk-view.mjs';
import { Talk } from './talk.mjs';
import { Button, Icon, Logo, OperatorsOnly, Pill, html } from './ui.mjs';

/** How often the list of sessions is asked for while it is seen. */
const SESSIONS_MS = 2_000;
/** How often a node that could not be asked is asked again. */
const LEARN_MS = 2_000;
/** What was done is told so long. */
const DONE_MS = 6_000;

const VIEWS = [
  ['talk', 'Talk', 'mic'],
  ['cluster', 'Cluster', 'map'],
  ['sessions', 'Sessions', 'list'],
];

const nodes = new Nodes();
const state = {
  view: 'talk',
  facts: null,
  unreachable: null,
  models: [],
  options: { model: '', transport: 'automatic' },
  cluster: UNSEEN,
  clusterView: 'map',
  sessions: null,
  sessionsProblem: null,
  done: null,
  /** The node that is drained if whoever is asked says so. */
  draining: null,
};
const talk = new Talk(nodes, changed);
const [dialog, drainDialog] = [createRef(), createRef()];
let [following, listing, waiting] = [null, null, false];

function changed() {
  if (waiting) return;
  waiting = true;
  queueMicrotask(() => {
    waiting = false;
    render(html`<${App} />`, document.body);
  });
}

function set(what) {
  Object.assign(state, what);
  changed();
}

const isOperator = () => state.facts?.role === 'operator';

/** Asks the node who it is and what it serves, until it has said so. */
async function learn() {
  try {
    const facts = await nodes.learn();
    const models = facts.role === 'nobody' ? [] : (await nodes.ask('/v1/models')).models;
    const known = models.some(({ name }) => name === state.options.model);
    const model = known ? state.options.model : (models.find((one) => one.default)?.name ?? '');
    set({ facts, models, unreachable: null, options: { ...state.options, model } });
    watch();
  } catch (error) {
    set({ unreachable: error.message });
    setTimeout(learn, LEARN_MS);
  }
}

/** Looks on, if that is allowed: the cluster is seen on one view, and tells the others what becomes of a session. */
function watch() {
  following?.abort();
  following = null;
  clearInterval(listing);
  set({ cluster: UNSEEN });
  if (!isOperator()) return;
  following = new AbortController();
  nodes.follow('/v1/cluster/events', {
    signal: following.signal,
    onEvent: (event) => {
      const before = state.cluster.events.length;
      set({ cluster: seen(state.cluster, event) });
      const { report, events } = state.cluster;
      if (event.type === 'cluster') nodes.note(report.nodes.filter(({ http }) => http).map(({ name, http }) => ({ name, address: http })));
      if (event.type === 'happened' && events.length !== before) told(JSON.parse(event.data));
    },
    onState: (how) => set({ cluster: { ...state.cluster, ...how } }),
  });
  list();
  listing = setInterval(list, SESSIONS_MS);
}

/** What becomes of the session that is spoken in is told where it is read along. */
function told({ kind, session, decoder, cause, at_ms: at }) {
  if (!talk.live || session !== talk.sessionId) return;
  if (kind === 'decoder_lost') lostDecoder = { node: decoder, cause };
  if (kind === 'caught_up' && lostDecoder) {
    talk.tell({ type: 'decoder', at, ...lostDecoder, caughtUp: { node: decoder } });
    lostDecoder = null;
  }
}
let lostDecoder = null;

async function list() {
  if (state.view !== 'sessions' || document.hidden) return;
  try {
    const { sessions } = await nodes.ask('/v1/sessions');
    set({ sessions, sessionsProblem: null });
  } catch (error) {
    set({ sessionsProblem: error.message });
  }
}

async function act(path, sentence) {
  let done;
  try {
    done = { tone: 'good', text: sentence(await nodes.ask(path, { method: 'POST' })) };
  } catch (error) {
    done = { tone: 'bad', text: error.message };
  }
  set({ done });
  setTimeout(() => state.done === done && set({ done: null }), DONE_MS);
}

const kill = (node) =>
  act(`/v1/cluster/chaos/kill?node=${encodeURIComponent(node)}`, ({ model, pid, sessions }) => {
    return `Killed process ${pid} of ${node}, which decoded ${model} for ${sessions === 1 ? 'one session' : `${sessions} sessions`}`;
  });
/** It ends a process that nothing here can start again. */
function askToDrain(node) {
  set({ draining: node });
  drainDialog.current.showModal();
}

function drain(node) {
  drainDialog.current.close();
  act(`/v1/cluster/chaos/drain?node=${encodeURIComponent(node)}`, () => `${node} drains: its callers move, then it ends`);
}

function speakOptions() {
  const { model, transport } = state.options;
  const capable = state.models.find(({ name }) => name === model)?.capabilities;
  return { model, transport, words: capable?.words ?? false };
}

function saveKey(event) {
  event.preventDefault();
  nodes.key = new FormData(event.target).get('key').trim();
  dialog.current.close();
  learn();
}

function App() {
  const { view, facts, unreachable, models, options, cluster } = state;
  // The one that the page came from may be gone.
  const contact = cluster.connected ? cluster.from : facts?.node;
  const operators = (what) => html`<${OperatorsOnly} what=${what} keys=${facts?.keys} onKey=${askForKey} />`;
  const shut = facts?.role === 'nobody';
  return html`
    <a class="skip" href="#main">Skip to content</a>
    <header class="top"><div class="top-inner">
      <a class="brand" href="#talk" aria-label="Starling, to the talk view"><${Logo} /><span>Starling</span></a>
      <nav aria-label="Views">${VIEWS.map(([name, label, icon]) => html`<a key=${name} href=${`#${name}`} aria-current=${view === name ? 'page' : null}><${Icon} name=${icon} /><span>${label}</span></a>`)}</nav>
      <div class="me">
        ${facts && html`<${Pill} tone=${unreachable ? 'bad' : 'good'}>${contact}<//>`}
        ${facts?.keys && html`<button type="button" class="act" aria-label="Key" title="Key" onClick=${askForKey}><${Icon} name="key" /></button>`}
      </div>
    </div></header>
    <main id="main" tabindex="-1" class=${view}>
      ${unreachable && html`<p class="banner bad" role="status"><${Icon} name="warn" /><b>${unreachable}</b></p>`}
      ${facts && !facts.admitted && html`<p class="banner warn" role="status"><${Icon} name="warn" /><span><b>This node takes no pages that are served at a name.</b> <small>Open it at its IP address, or add ${location.origin} to gateway.allowed_origins.</small></span></p>`}
      ${view === 'talk' && (shut ? html`<${Closed} />` : html`<${TalkView} talk=${talk} models=${models} options=${options} facts=${facts}
        onSpeak=${() => talk.speak(speakOptions())} onFile=${(file) => !talk.live && talk.play(file, speakOptions())}
        onOption=${(change) => set({ options: { ...options, ...change } })} />`)}
      ${view === 'cluster' && (isOperator() ? html`<${ClusterView} cluster=${cluster} chaos=${facts.chaos} view=${state.clusterView} done=${state.done}
        onView=${(clusterView) => set({ clusterView })} onKill=${kill} onDrain=${askToDrain} />` : facts && operators('The cluster is its operators’ business.'))}
      ${view === 'sessions' && (isOperator() ? html`<${SessionsView} sessions=${state.sessions} problem=${state.sessionsProblem} />` : facts && operators('Who speaks is the operators’ business.'))}
    </main>
    <${KeyDialog} /><${DrainDialog} node=${state.draining} />`;
}

function Closed() {
  return html`<section class="empty"><span class="empty-icon"><${Icon} name="key" /></span><h1>This cluster asks for a key</h1>
    <p>${nodes.key ? 'The one that was entered is not known here.' : 'Whoever runs it has one for you.'}</p>
    <${Button} kind="primary" icon="key" label="Enter a key" onClick=${askForKey} /></section>`;
}

function KeyDialog() {
  return html`<dialog ref=${dialog} aria-labelledby="key-title"><form onSubmit=${saveKey}>
    <h2 id="key-title">Key</h2>
    <label class="field"><span>Shown to the nodes of this cluster, and forgotten with this tab</span>
      <input name="key" type="password" autocomplete="off" spellcheck=${false} /></label>
    <div class="row"><${Button} label="Cancel" kind="quiet" onClick=${() => dialog.current.close()} /><button type="submit" class="button primary"><span>Use</span></button></div>
  </form></dialog>`;
}

function DrainDialog({ node }) {
  return html`<dialog ref=${drainDialog} aria-labelledby="drain-title"><form method="dialog">
    <h2 id="drain-title">Drain ${node}?</h2>
    <p>Its callers move to other nodes, then its process ends. This page can’t start it again.</p>
    <div class="row"><${Button} label="Cancel" kind="quiet" onClick=${() => drainDialog.current.close()} /><${Button} label="Drain" kind="danger" onClick=${() => drain(node)} /></div>
  </form></dialog>`;
}

function askForKey() {
  const field = dialog.current.querySelector('input');
  field.value = nodes.key;
  dialog.current.showModal();
  field.select();
}

function navigate() {
  const name = location.hash.slice(1);
  const view = VIEWS.find(([known]) => known === name)?.[0];
  // The way past the navigation is no view.
  if (!view && name) return;
  set({ view: view ?? 'talk' });
  document.title = `${VIEWS.find(([known]) => known === state.view)[1]} · Starling`;
  list();
}

// Whoever closes the page in mid-sentence is asked first.
addEventListener('beforeunload', (event) => talk.live && event.preventDefault());
addEventListener('hashchange', navigate);
// A banner goes by itself.
setInterval(() => !document.hidden && changed(), 1_000);
document.body.replaceChildren();
navigate();
learn();
