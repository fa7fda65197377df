/**
 * The page that nodes serve, in Chromium: somebody speaks into a microphone that plays a recording, and looks at the cluster.
 *
 * Usage: node the-page.mjs [--kill] [--calm] [--pictures DIR] [--key KEY] --audio OUT.wav URL FILE.wav
 *
 *   --audio     where the page's own recording of what it sent is written
 *   --kill      has a decoder killed by the page's own button in the first third; the node itself is somebody else's to kill
 *   --calm      no node is killed
 *   --pictures  a folder for screenshots
 *   --key       is entered where the page asks for one
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { check, opened, playing } from './chromium.mjs';
import { WIDTHS, enter, look, lookEverywhere, painted } from './looking.mjs';

/** Longer than a recording takes on a machine that is busy. */
const PATIENCE_MS = 80_000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    audio: { type: 'string' },
    kill: { type: 'boolean', default: false },
    calm: { type: 'boolean', default: false },
    pictures: { type: 'string' },
    key: { type: 'string' },
  },
});
const [url, speech] = positionals;
const told = { errors: [], violations: [] };

const browser = await opened(playing(`${speech}%noloop`));

async function picture(page, name) {
  if (values.pictures) await page.screenshot({ path: join(values.pictures, `${name}.png`) });
}

/** The page. Its rules stay in force. */
async function begun() {
  const page = await browser.newPage({ viewport: WIDTHS.desktop, colorScheme: 'light', acceptDownloads: true, ignoreHTTPSErrors: true });
  page.setDefaultTimeout(PATIENCE_MS);
  page.on('pageerror', (error) => told.errors.push(error.stack ?? error.message));
  page.on('console', (message) => {
    // A node that was killed is asked in vain before another is, and a certificate that nobody signed is tried without its hash.
    const vain = /ERR_CONNECTION_REFUSED|Failed to establish a connection|WebSocket connection|ERR_INCOMPLETE|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE/.test(message.text());
    if (message.type() === 'error' && !vain) told.errors.push(message.text());
  });
  await page.goto(url);
  if (values.key) await enter(page, values.key);
  await page.waitForSelector('.dock select option', { state: 'attached' });
  return page;
}

const go = (page, view) => page.getByRole('link', { name: view, exact: true }).click();

/** Speaks, and reads along. */
async function talked(page) {
  await page.getByRole('button', { name: 'Talk', exact: true }).click();
  await page.waitForSelector('.line.partial, .line.final');
  told.where = await page.locator('.where').textContent();
  await picture(page, 'page-talk-live');
  if (values.kill) {
    // The session goes on while another view is looked at.
    await go(page, 'Cluster');
    const headers = values.key ? { authorization: `Bearer ${values.key}` } : {};
    const asked = async (how) => (await (await fetch('/v1/cluster', how)).json()).sessions[0]?.decoder;
    const decoder = await page.waitForFunction(asked, { headers }).then((found) => found.jsonValue());
    await page.getByRole('button', { name: `Kill a decoder of ${decoder}` }).click();
    told.killed = await page.locator('.said b').textContent();
    await page.locator('.happenings li', { hasText: 'has caught up' }).first().waitFor();
    told.caughtUp = await page.locator('.happenings li', { hasText: 'has caught up' }).first().textContent();
    // How loaded nodes are is a second old.
    if (values.pictures) await page.waitForTimeout(1_200);
    await picture(page, 'page-cluster');
    await go(page, 'Talk');
    console.error('killed a decoder');
  }
  if (!values.calm) {
    // Whoever runs this kills the node meanwhile.
    const banner = page.locator('.banner[data-kind=replaced]');
    await banner.waitFor();
    told.banner = await banner.locator('b').textContent();
    // The banner stays for a while, and what is final has to have its colour.
    if (values.pictures) await page.waitForSelector('.line.final').then(() => page.waitForTimeout(600));
    await picture(page, 'page-talk-survived');
  }
  // 16-bit mono at 16 kHz, behind the shortest head.
  const length = (readFileSync(speech).length - 44) / 32_000;
  await page.waitForFunction((seconds) => {
    const [minutes, rest] = document.querySelector('.wave-text b').textContent.split(':').map(Number);
    return minutes * 60 + rest >= seconds;
  }, Math.ceil(length) + 1);
  await page.getByRole('button', { name: 'Stop', exact: true }).click();
  await page.waitForSelector('.after');
  told.text = await saved(page, 'txt').then((path) => readFileSync(path, 'utf8'));
  told.json = JSON.parse(readFileSync(await saved(page, 'json'), 'utf8'));
  told.srt = readFileSync(await saved(page, 'srt'), 'utf8');
  told.vtt = readFileSync(await saved(page, 'vtt'), 'utf8');
  await (await download(page, 'wav')).saveAs(values.audio);
  told.summary = await page.locator('.summary').textContent();
  told.announced = await page.locator('[aria-live=polite] p').allTextContents();
  await picture(page, 'page-talk-done');
}

async function download(page, kind) {
  const [file] = await Promise.all([page.waitForEvent('download'), page.locator(`[data-save=${kind}]`).click()]);
  return file;
}

const saved = async (page, kind) => (await download(page, kind)).path();

/** Plays from a word, with the keyboard alone. */
async function played(page) {
  const word = page.locator('.line.final .word').first();
  await word.focus();
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Pause' }).waitFor();
  await page.waitForSelector('.word.now');
  told.played = await page.locator('.word.now').first().textContent();
  await page.getByRole('button', { name: 'Pause' }).click();
}

/** At each view, in each size and theme. */
async function looked(page) {
  for (const view of ['Talk', 'Cluster', 'Sessions']) {
    await go(page, view);
    await page.waitForSelector({ Talk: '.after', Cluster: '.node', Sessions: '.table tbody tr' }[view]);
    await lookEverywhere(page, view, told.violations, { seen: (size, theme) => picture(page, `page-${view.toLowerCase()}-${size}-${theme}`) });
    if (view === 'Sessions') told.sessions = await listed(page);
    if (view === 'Cluster') {
      await page.getByRole('button', { name: 'Table' }).click();
      await painted(page);
      await look(page, 'Cluster, as tables', told.violations);
      await page.getByRole('button', { name: 'Map' }).click();
    }
  }
}

/** The sessions that the page lists, each with where its trace is shown. */
function listed(page) {
  const rows = page.locator('.table tbody tr');
  return rows.evaluateAll((all) => all.map((row) => ({
    session: row.querySelector('th code').title,
    trace: row.querySelector('td[data-label=Trace] a')?.href ?? null,
  })));
}

await check(browser, told, PATIENCE_MS, async () => {
  const page = await begun();
  await talked(page);
  await played(page);
  if (!values.calm) await looked(page);
});
