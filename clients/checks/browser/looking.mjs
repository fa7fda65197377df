/** What is wrong with a page for those who don't see it, see it otherwise, or have a small window. */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

export const WIDTHS = { desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };
export const THEMES = ['light', 'dark'];

/** What fingers need, in CSS pixels: a button's sides, and the room between two. */
const [FINGER, APART] = [44, 8];
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Adds to `violations` what is wrong with what is seen now. */
export async function look(page, view, violations) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  for (const { id, nodes } of found.violations) {
    violations.push({ view, id, where: nodes.map(({ target, any }) => `${target}: ${any[0]?.message ?? ''}`) });
  }
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  if (wide) violations.push({ view, id: 'wider than the window', where: [] });
}

/** The same in each theme, and in each of these sizes; `seen` is told of each. */
export async function lookEverywhere(page, view, violations, { widths = WIDTHS, seen = async () => {} } = {}) {
  for (const [size, viewport] of Object.entries(widths)) {
    await page.setViewportSize(viewport);
    for (const colorScheme of THEMES) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await painted(page);
      await look(page, `${view}, ${size}, ${colorScheme}`, violations);
      await seen(size, colorScheme);
    }
  }
  await page.setViewportSize(WIDTHS.desktop);
}

/** Buttons side by side that a finger would miss, among those that match. */
export async function reach(page, selector, view, violations) {
  const boxes = await page.locator(selector).evaluateAll((all) => all.map((one) => one.getBoundingClientRect().toJSON()));
  const small = boxes.filter(({ width, height }) => width < FINGER || height < FINGER);
  const near = boxes.filter(({ top, left }) => boxes.some((other) => other.top === top && left > other.left && left - other.right < APART));
  if (!boxes.length || small.length || near.length) violations.push({ view, id: 'no place for a finger', where: [{ boxes: boxes.length, small, near }] });
}

/** Until what was rendered has its place. */
export async function painted(page) {
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
}

/** Gives a page the key that it asks for, or another one. */
export async function enter(page, key) {
  await page.getByRole('button', { name: /^(Enter a key|Key)$/ }).first().click();
  await page.getByLabel('Shown to the nodes').fill(key);
  await page.getByRole('button', { name: 'Use' }).click();
}
