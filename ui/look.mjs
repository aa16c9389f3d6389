// What the tests of the pages share: a real browser, pages with the list of what went wrong in them, and checks by name.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { chromium } from 'playwright-core';

const patience = 60_000;
const axe = await readFile(new URL('./node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

// open gives a page with the list of what went wrong in it. own says of an address whether the page may ask for it.
export async function open(address, own, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(patience);
  const faults = [];
  page.on('console', (m) => { if (m.type() === 'error' || m.type() === 'warning') faults.push(`console: ${m.text()}`); });
  page.on('pageerror', (e) => faults.push(`error: ${e.message}`));
  page.on('request', (r) => { if (!own(r.url())) faults.push(`request to elsewhere: ${r.url()}`); });
  await page.goto(address);
  return { page, context, faults };
}

// openAlone is open for a page that asks for nothing but itself.
export function openAlone(address, options) {
  return open(address, (asked) => asked === address || asked.startsWith('data:'), options);
}

export async function text(locator) { return (await locator.innerText()).replace(/\s+/g, ' '); }

// fits fails when the page is wider than a window of that width, or when axe finds a serious fault in it.
export async function fits(page, width) {
  await page.setViewportSize({ width, height: 900 });
  const [wide, has] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(wide <= has, `${wide} px of content in a window of ${has}`);
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run());
  const serious = violations.filter((v) => ['serious', 'critical'].includes(v.impact));
  assert.deepEqual(serious.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => `${n.html}: ${n.failureSummary}`).join(' | ')}`), [], `${width} px`);
}

let failed = 0;

// check runs one check and says how it went.
export async function check(name, run) {
  try {
    await run();
    console.log(`ok      ${name}`);
  } catch (e) {
    failed++;
    console.log(`FAILED  ${name}\n${e.stack}`);
  }
}

// end closes the browser; the exit code says whether every check went well.
export async function end() {
  await browser.close();
  process.exitCode = failed > 0 ? 1 : 0;
}
