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
