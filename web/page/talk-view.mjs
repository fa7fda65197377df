// SPDX-License-Identifier: Apache-2.0
/** Speaking, and reading along. */

import { Component, createRef } from './vendor/preact.mjs';
import { KINDS, wav, written } from './export.mjs';
import { clock, clockTenths, count, span } from './format.mjs';
import { UNSURE_BELOW, noteText, saidAt, spoken, wordAt } from './transcript.mjs';
import { Button, Icon, Pill, download, html } from './ui.mjs';
import { Waveform } from './waveform.mjs';

/** A banner says what was survived for so long. */
const BANNER_MS = 9_000;

/** The reader is at the end if no more than this is below. */
const NEAR_END = 160;

export class TalkView extends Component {
  #end = createRef();
  #file = createRef();

  getSnapshotBeforeUpdate() {
    const { scrollHeight, scrollTop, clientHeight } = document.documentElement;
    return scrollHeight - scrollTop - clientHeight < NEAR_END;
  }

  componentDidUpdate(before, _, wasAtEnd) {
    const [{ transcript, live }, last] = [this.props.talk, this.#lastTranscript];
    this.#lastTranscript = transcript;
    if (transcript === last || !live || !wasAtEnd) return;
    this.#end.current?.scrollIntoView({ block: 'end' });
  }

  #lastTranscript = null;

  /** The word that was focused or played last, as `segment/word`. */
  #place = null;

  #choose = (place) => {
    this.#place = place;
    this.setState({});
  };

  #drop = (event) => {
    event.preventDefault();
    this.setState({ over: false });
    const [file] = event.dataTransfer.files;
    if (file) this.props.onFile(file);
  };

  render({ talk, models, options, facts, onSpeak, onFile, onOption }, { over }) {
    const { transcript, phase, playing } = talk;
    const started = phase !== 'idle';
    // Until the model's language is known nothing was said in it.
    const language = models.find(({ name }) => name === talk.model)?.language;
    const lang = language === 'und' ? undefined : language;
    const now = playing === null ? null : wordAt(transcript, playing);
    if (talk.live || !started) this.#place = null;
    // Between two words the last one stays.
    if (now && saidAt(transcript, now)) this.#place = now;
    return html`<div class=${`talk ${over ? 'over' : ''}`} onDragOver=${(event) => (event.preventDefault(), this.setState({ over: true }))}
      onDragLeave=${() => this.setState({ over: false })} onDrop=${this.#drop}>
      <h1 class="visually-hidden">Talk</h1>
      <${Banner} talk=${talk} />
      ${started ? html`<${Transcript} talk=${talk} lang=${lang} now=${now} onWord=${this.#choose} />` : html`<${Welcome} facts=${facts} onChoose=${() => this.#file.current.click()} />`}
      ${phase === 'done' && html`<${After} talk=${talk} />`}
      <div ref=${this.#end} class="end"></div>
      <input ref=${this.#file} type="file" accept="audio/*,video/*" class="visually-hidden" tabindex="-1" aria-label="Audio file"
        onChange=${(event) => { const [file] = event.target.files; event.target.value = ''; if (file) onFile(file); }} />
      <${Dock} talk=${talk} lang=${lang} said=${this.#place && saidAt(transcript, this.#place)} models=${models} options=${options} onSpeak=${onSpeak} onOption=${onOption}
        onChoose=${() => this.#file.current.click()} />
      <div class="visually-hidden" role="log" aria-live="polite" aria-label="What was said">
        ${spoken(transcript).map(({ segment, text }) => html`<p key=${segment} lang=${lang}>${text}</p>`)}
      </div>
    </div>`;
  }
}

function Welcome({ facts, onChoose }) {
  const others = facts?.nodes?.length ?? 0;
  return html`<section class="welcome">
    <h2>Speak, and read along.</h2>
    <p class="lead">Press the button and talk, or drop an audio file anywhere on this page.
      ${others > 1
        ? ' If the node that listens dies in mid‑sentence, another goes on. Nothing you say is lost.'
        : ' If a decoder dies in mid‑sentence, another goes on. Nothing you say is lost.'}</p>
    <button type="button" class="drop" onClick=${onChoose}>
      <${Icon} name="file" /><span><b>Choose an audio file</b><small>or drop one here. It is heard as fast as it was spoken.</small></span>
    </button>
    <p class="fine">Audio goes to this cluster, and nowhere else.</p>
  </section>`;
}

function Banner({ talk }) {
  const { transcript, phase, problem } = talk;
  const note = transcript.notes.at(-1);
  const fresh = note && Date.now() - note.at < BANNER_MS;
  let [tone, icon, text, more] = [null, null, '', ''];
  if (phase === 'failed') [tone, icon, text] = ['bad', 'warn', problem];
  else if (transcript.lost) {
    [tone, icon, text] = ['warn', 'spin', `${transcript.lost.from ?? 'The node'} lost, looking for another…`];
    more = 'Keep talking: what you say is kept here.';
  } else if (fresh) {
    tone = ['gap', 'notice'].includes(note.kind) || note.missing ? 'warn' : 'good';
    [icon, text] = [tone === 'good' ? 'check' : 'warn', noteText(note)];
    if (note.seconds && note.kind === 'replaced') more = `after ${span(note.seconds)}`;
  }
  return html`<div class="banners" role="status">
    ${tone && html`<div class=${`banner ${tone}`} data-kind=${transcript.lost ? 'lost' : (note?.kind ?? phase)}>
      ${icon === 'spin' ? html`<span class="spinner" aria-hidden="true"></span>` : html`<${Icon} name=${icon} />`}
      <span><b>${text}</b> ${more && html`<small>${more}</small>`}</span>
    </div>`}
  </div>`;
}

function Transcript({ talk, lang, now, onWord }) {
  const { transcript, phase, recording } = talk;
  const said = spoken(transcript);
  const rows = [...said.map((segment) => ({ at: segment.start, segment })), ...transcript.gaps.map((gap) => ({ at: gap.start, gap }))];
  rows.sort((one, other) => one.at - other.at);
  const waiting = !rows.length && !transcript.partial;
  return html`<section class="transcript" aria-label="Transcript">
    ${waiting && html`<p class="hint">${hint(phase)}</p>`}
    ${rows.map(({ segment, gap }) =>
      segment
        ? html`<${Segment} key=${`s${segment.segment}`} segment=${segment} lang=${lang} now=${now} onWord=${onWord} onPlay=${(at) => talk.playFrom(at)}
            playableFrom=${talk.live ? Infinity : recording.fromSeconds} />`
        : html`<p key=${`g${gap.start}`} class="gap"><time>${clock(gap.start)}</time><span>${span(gap.end - gap.start)} of speech are missing here</span></p>`,
    )}
    ${transcript.partial?.text &&
    html`<p class="line partial"><time>${clock(transcript.partial.start)}</time><span class="words" lang=${lang}>${transcript.partial.text}</span></p>`}
  </section>`;
}

function hint(phase) {
  if (phase === 'opening') return 'Opening a session…';
  if (phase === 'live') return 'Listening. Say something.';
  if (phase === 'ending') return 'Writing the last words…';
  return phase === 'done' ? 'Nothing was said.' : '';
}

/** One stop for the keyboard; the arrows go from word to word, Enter plays. */
class Segment extends Component {
  shouldComponentUpdate({ segment, now, playableFrom }) {
    const own = (key) => key?.startsWith(`${segment.segment}/`);
    return segment !== this.props.segment || playableFrom !== this.props.playableFrom || own(now) || own(this.props.now);
  }

  #keys = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const words = [...event.currentTarget.querySelectorAll('button:enabled')];
    const next = words[words.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    words.forEach((word) => (word.tabIndex = word === next ? 0 : -1));
    next.focus();
  };

  render({ segment: { segment, start, end, text, words, error, confidence }, lang, now, playableFrom, onPlay, onWord }) {
    if (error && !text) return html`<p class="gap"><time>${clock(start)}</time><span>${span(end - start)} could not be decoded: ${error}</span></p>`;
    const parts = words.length ? words : [{ word: text, start, end, confidence, whole: true }];
    // What is not kept any more can't be heard; the first that can is where the keyboard stops.
    const playable = (word) => word.start >= playableFrom;
    const first = parts.findIndex(playable);
    return html`<p class="line final" data-segment=${segment}><time>${clock(start)}</time>
      <span class="words" lang=${lang} onKeyDown=${this.#keys}>
        ${parts.map((word, index) => {
          const unsure = word.confidence != null && word.confidence < UNSURE_BELOW;
          const place = `${segment}/${word.whole ? -1 : index}`;
          const playing = now === place;
          const kind = `word ${unsure ? 'unsure' : ''} ${playing ? 'now' : ''}`;
          return html`<button key=${index} type="button" class=${kind} tabindex=${index === first ? 0 : -1} title=${factsOf(word)}
            disabled=${!playable(word)} onFocus=${() => onWord(place)} onClick=${() => (onWord(place), onPlay(word.start))}>${word.word}</button>${' '}`;
        })}
      </span></p>`;
  }
}

/** When a word was said, and how sure the model is of it. */
function factsOf({ start, end, confidence }) {
  return `${clockTenths(start)}–${clockTenths(end)}${confidence == null ? '' : `, ${Math.round(confidence * 100)} % sure`}`;
}

function After({ talk }) {
  const { transcript, recording, model, sessionId } = talk;
  const name = `starling-${(sessionId ?? '').slice(0, 8)}`;
  const facts = { session: sessionId, model, seconds: Number(recording.seconds.toFixed(3)), survived: transcript.survived };
  const missing = transcript.gaps.reduce((all, { start, end }) => all + end - start, 0);
  const words = spoken(transcript).reduce((all, { text }) => all + text.split(/\s+/).filter(Boolean).length, 0);
  return html`<section class="after" aria-label="Save">
    <p class="summary">${count(words, 'word')} in ${span(recording.seconds)}
      ${transcript.survived > 0 && html` · <b class=${missing ? 'lost' : 'survived'}>${count(transcript.survived, 'failure')} survived, ${missing ? `${span(missing)} missing` : 'nothing missing'}</b>`}</p>
    <div class="save">
      ${Object.entries(KINDS).map(([kind, { label, type }]) => html`<${Button} key=${kind} icon="save" label=${label} data-save=${kind}
        onClick=${() => download(`${name}.${kind}`, type, written(kind, transcript, facts))} />`)}
      <${Button} icon="save" label=${recording.from > 0 ? `Audio (last ${span(recording.seconds - recording.fromSeconds)})` : 'Audio'} data-save="wav" onClick=${() => download(`${name}.wav`, 'audio/wav', wav(recording.samples(), recording.rate))} />
      <${Button} kind="quiet" icon="trash" label="Clear" onClick=${() => talk.clear()} />
    </div>
  </section>`;
}

function Dock({ talk, said, lang, models, options, onSpeak, onOption, onChoose }) {
  const { phase, live, playing, recording, transcript, transport } = talk;
  const stoppable = ['opening', 'live'].includes(phase);
  const label = stoppable ? 'Stop' : phase === 'ending' ? 'Finishing' : 'Talk';
  const level = phase === 'live' ? Math.min(1, Math.sqrt(recording.level)) : 0;
  return html`<div class="dock"><div class="dock-inner">
    ${said && html`<p class="said-word"><b lang=${lang}>${said.word}</b> <span>${factsOf(said)}</span></p>`}
    <${Waveform} recording=${recording} live=${live} playing=${playing} onSeek=${(at) => talk.playFrom(at)} />
    <div class="controls">
      <div class="side">
        <label class="field"><span>Model</span>
          <select value=${options.model} disabled=${live} onChange=${(event) => onOption({ model: event.target.value })}>
            ${models.map(({ name, language }) => html`<option key=${name} value=${name}>${name} (${language})</option>`)}
          </select></label>
      </div>
      <button type="button" class=${`record ${stoppable ? 'on' : ''}`} disabled=${phase === 'ending'} aria-label=${label} title=${label}
        style=${{ '--level': level.toFixed(2) }} onClick=${() => (stoppable ? talk.stop() : onSpeak())}>
        <${Icon} name=${stoppable ? 'stop' : 'mic'} />
      </button>
      <div class="side right">
        ${live
          ? html`<p class="where"><${Pill} tone=${transcript.lost ? 'warn' : 'good'}>${transcript.lost ? 'reconnecting' : (transcript.node ?? 'connecting')}<//>
              <small>${[transport, transcript.durable ? 'kept twice' : null, talk.behind > 1 ? `${span(talk.behind)} unheard` : null].filter(Boolean).join(' · ')}</small></p>`
          : recording.seconds > 0
            ? html`<${Button} icon=${playing === null ? 'play' : 'pause'} label=${playing === null ? 'Play' : 'Pause'}
                onClick=${() => (playing === null ? talk.playFrom(0) : talk.pause())} />`
            : html`<${Button} icon="file" label="File" onClick=${onChoose} />`}
      </div>
    </div>
  </div></div>`;
}
