/** The machine's own Chromium, without a window. */

import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

import { chromium } from 'playwright-core';

/** As `cargo xtask setup` looks for it. */
const NAMES = ['chromium', 'google-chrome', 'chromium-browser'];
/** Only pages of these checks are opened, and containers have no sandbox to give. */
const FLAGS = ['no-sandbox', 'no-first-run', 'disable-gpu', 'disable-background-networking', 'disable-component-update'];

function program() {
  const paths = process.env.PATH.split(delimiter).flatMap((folder) => NAMES.map((name) => join(folder, name)));
  const found = NAMES.map((name) => paths.find((path) => path.endsWith(`/${name}`) && existsSync(path))).find(Boolean);
  if (!found) throw new Error(`none of ${NAMES.join(', ')} is there; on Debian: apt install chromium`);
  return found;
}

/** @param {string[]} flags beside those that all checks have */
export function opened(flags = []) {
  return chromium.launch({ executablePath: program(), args: [...FLAGS, ...flags].map((flag) => `--${flag}`) });
}

/** Flags for a microphone that plays a recording, for pages that need not ask before they listen and speak. */
export function playing(recording) {
  return [
    'use-fake-ui-for-media-stream',
    'use-fake-device-for-media-stream',
    `use-file-for-fake-audio-capture=${recording}`,
    'autoplay-policy=no-user-gesture-required',
  ];
}

/** What work comes to, unless it takes longer. */
export function within(patienceMs, work) {
  const late = new Promise((_, reject) => setTimeout(reject, patienceMs, new Error(`no end in ${patienceMs} ms`)).unref());
  return Promise.race([work, late]);
}

/** Does a check's work and says what it told, also where it fails; then the browser is closed. */
export async function check(browser, told, patienceMs, work) {
  try {
    await within(patienceMs, work());
    console.log(JSON.stringify(told, null, 2));
  } catch (error) {
    console.error(JSON.stringify(told, null, 2));
    throw error;
  } finally {
    await browser.close();
  }
}
