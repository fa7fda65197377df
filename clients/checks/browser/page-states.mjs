/**
 * What the page shows to whoever comes, with a key and without, and while things go wrong: whether all of it is fit to be seen.
 *
 * Usage: node page-states.mjs --key KEY --operator-key KEY [--pictures DIR] URL FILE.wav
 *
 *   --key           a caller's
 *   --operator-key  an operator's; the node lets operators break things, and nobody has spoken with it yet
 *   --pictures      a folder for screenshots
 */

import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { check, opened, playing } from './chromium.mjs';
import { WIDTHS, enter, look, lookEverywhere, painted, reach } from './looking.mjs';

/** Longer than all of it takes on a machine that is busy. */
const PATIENCE_MS = 85_000;
/** Where the size changes nothing, or there is little time. */
const DESKTOP = { widths: { desktop: WIDTHS.desktop } };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { key: { type: 'string' }, 'operator-key': { type: 'string' }, pictures: { type: 'string' } },
});
const [url, speech] = positionals;
const told = { errors: [], violations: [], drained: false };
const { violations } = told;
/** The connection of the session that is spoken in, and whether there are to be any. */
const link = { close: () => {}, cut: false };

const browser = await opened(playing(speech));

async function picture(page, name) {
  if (values.pictures) await page.screenshot({ path: join(values.pictures, `page-${name}.png`) });
}

async function begun() {
  const page = await browser.newPage({ viewport: WIDTHS.desktop, reducedMotion: 'reduce', ignoreHTTPSErrors: true });
  page.setDefaultTimeout(PATIENCE_MS);
  page.on('pageerror', (error) => told.errors.push(error.stack ?? error.message));
  page.on('console', (message) => message.type() === 'error' && told.errors.push(message.text()));
  page.on('request', (request) => request.url().includes('/chaos/drain') && (told.drained = true));
  await page.routeWebSocket(/\/v1\/stream/, (socket) => {
    if (link.cut) return socket.close();
    const server = socket.connectToServer();
    link.close = () => Promise.all([socket.close(), server.close()]);
  });
  const answer = await page.goto(url);
  told.policy = answer.headers()['content-security-policy'];
  return page;
}

const go = (page, view) => page.getByRole('link', { name: view, exact: true }).click();
const heading = (page, name) => page.getByRole('heading', { name, level: 1 }).waitFor();

/** Nobody, who is asked for a key. */
async function asNobody(page) {
  await heading(page, 'This cluster asks for a key');
  await lookEverywhere(page, 'asks for a key', violations);
  await page.getByRole('button', { name: 'Enter a key' }).click();
  await lookEverywhere(page, 'key dialog', violations, { seen: (size, theme) => picture(page, `key-${size}-${theme}`) });
  await page.getByRole('button', { name: 'Cancel' }).click();
}

/** An operator, before anybody has spoken. */
async function asOperator(page) {
  let answered = () => {};
  const asked = new Promise((resolve) => (answered = resolve));
  await page.route('**/v1/cluster/events', (route) => asked.then(() => route.continue()));
  await enter(page, values['operator-key']);
  await go(page, 'Cluster');
  await page.getByText('Asking the nodes…').waitFor();
  await lookEverywhere(page, 'asking the nodes', violations, DESKTOP);
  answered();
  await page.waitForSelector('.node');
  await page.getByRole('button', { name: /^Drain / }).first().click();
  await lookEverywhere(page, 'drain dialog', violations, { seen: (size, theme) => picture(page, `drain-${size}-${theme}`) });
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.setViewportSize(WIDTHS.phone);
  for (const shown of ['Map', 'Table']) {
    await page.getByRole('button', { name: shown }).click();
    await painted(page);
    await look(page, `what can be done, as a ${shown}`, violations);
    await reach(page, '.actions .act', `what can be done, as a ${shown}`, violations);
  }
  await go(page, 'Sessions');
  await page.getByText('No sessions yet').waitFor();
  await lookEverywhere(page, 'no sessions', violations, DESKTOP);
}

/** A caller: welcome, and no operator. */
async function asCaller(page) {
  await enter(page, values.key);
  await heading(page, 'For operators');
  await lookEverywhere(page, 'for operators', violations);
  await go(page, 'Talk');
  await page.getByText('Speak, and read along.').waitFor();
  await lookEverywhere(page, 'welcome', violations);
}

/** Speaks, loses the connection, and has it again. */
async function talked(page) {
  await page.waitForSelector('.dock select option', { state: 'attached' });
  await page.getByRole('button', { name: 'Talk', exact: true }).click();
  await page.waitForSelector('.line.partial');
  await lookEverywhere(page, 'partials', violations, DESKTOP);
  link.cut = true;
  await link.close();
  await page.waitForSelector('.banner[data-kind=lost]');
  await lookEverywhere(page, 'lost', violations, DESKTOP);
  told.lost = await page.locator('.banner[data-kind=lost] b').textContent();
  link.cut = false;
  await page.waitForSelector('.banner[data-kind=replaced]');
  await page.waitForSelector('.line.final');
  await page.getByRole('button', { name: 'Stop', exact: true }).click();
  await page.waitForSelector('.after');
  await page.locator('.line.final .word').first().focus();
  told.word = await page.locator('.said-word span').textContent();
  told.languages = await page.locator('.line .words').evaluateAll((all) => [...new Set(all.map(({ lang }) => lang))]);
  await lookEverywhere(page, 'a word', violations, { seen: (size, theme) => picture(page, `word-${size}-${theme}`) });
}

/** Has a file transcribed that is none. */
async function failed(page) {
  await page.locator('input[type=file]').setInputFiles({ name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('no audio') });
  await page.waitForSelector('.banner.bad');
  told.failed = await page.locator('.banner.bad b').textContent();
  await lookEverywhere(page, 'failed', violations, DESKTOP);
}

await check(browser, told, PATIENCE_MS, async () => {
  const page = await begun();
  for (const step of [asNobody, asOperator, asCaller, talked, failed]) {
    const began = Date.now();
    await step(page);
    console.error(`${step.name}: ${Date.now() - began} ms`);
  }
});
