// Looks at the page that `longpole review -o html` writes with a real browser. Usage: node review.test.mjs URL [FOLDER FOR
// SCREENSHOTS]. What the page is about stands in internal/review/page_test.go.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { chromium } from 'playwright-core';

const [url, folder] = process.argv.slice(2);
const axe = await readFile(new URL('./node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

let failed = 0;
async function check(name, run) {
  try {
    await run();
    console.log(`ok      ${name}`);
  } catch (e) {
    failed++;
    console.log(`FAILED  ${name}\n${e.stack}`);
  }
}

for (const colorScheme of ['light', 'dark']) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const faults = [];
  page.on('console', (m) => { if (m.type() === 'error' || m.type() === 'warning') faults.push(`console: ${m.text()}`); });
  page.on('pageerror', (e) => faults.push(`error: ${e.message}`));
  page.on('request', (r) => { if (r.url() !== url + '/' && !r.url().startsWith('data:')) faults.push(`request: ${r.url()}`); });
  await page.goto(url + '/');
  await check(`${colorScheme}: what is urgent stands out, and says so in words`, async () => {
    const row = page.locator('tr').filter({ hasText: 'LP320' });
    assert.match(await row.locator('.bad').innerText(), /^critical$/);
    const plain = page.locator('tr').filter({ hasText: 'LP301' }).first();
    const ground = (at) => at.evaluate((e) => getComputedStyle(e).backgroundColor);
    assert.notEqual(await ground(row.locator('.bad')), await ground(plain.locator('.quiet')));
  });
  await check(`${colorScheme}: every section can be reached`, async () => {
    const targets = await page.locator('nav a').evaluateAll((all) => all.map((a) => a.getAttribute('href').slice(1)));
    assert.ok(targets.length >= 10, `${targets.length} sections`);
    for (const id of targets) assert.equal(await page.locator(`[id="${id}"]`).count(), 1);
  });
  await check(`${colorScheme}: faults that are overdue stand out, with their commands`, async () => {
    assert.ok(await page.locator('.bad').filter({ hasText: 'overdue' }).count() >= 3);
    assert.match(await page.locator('pre').innerText(), /longpole fault start abort-orders --route orders/);
  });
  for (const width of [1280, 390]) {
    await check(`${colorScheme}, ${width}: fits and is accessible`, async () => {
      await page.setViewportSize({ width, height: 900 });
      const [wide, has] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      assert.ok(wide <= has, `${wide} px wide in a window of ${has}`);
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run());
      const serious = violations.filter((v) => v.impact === 'serious' || v.impact === 'critical');
      assert.deepEqual(serious.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html).join(' | ')}`), []);
      if (folder) await page.screenshot({ path: `${folder}/review-${colorScheme}-${width}.png`, fullPage: true });
    });
  }
  await check(`${colorScheme}: no errors, no request to elsewhere, names stay text`, async () => {
    assert.deepEqual(faults, []);
    assert.equal(await page.locator('body script, body img').count(), 0);
  });
  await context.close();
}
await browser.close();
process.exitCode = failed > 0 ? 1 : 0;
