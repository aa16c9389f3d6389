// Looks at the page that `longpole review -o html` writes with a real browser. Usage: node review.test.mjs URL [FOLDER FOR
// SCREENSHOTS]. What the page is about stands in internal/review/page_test.go.

import assert from 'node:assert/strict';
import { check, end, fits, openAlone } from './look.mjs';

const [url, folder] = process.argv.slice(2);

for (const colorScheme of ['light', 'dark']) {
  const { page, context, faults } = await openAlone(url + '/', { colorScheme });
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
      await fits(page, width);
      if (folder) await page.screenshot({ path: `${folder}/review-${colorScheme}-${width}.png`, fullPage: true });
    });
  }
  await check(`${colorScheme}: no errors, no request to elsewhere, names stay text`, async () => {
    assert.deepEqual(faults, []);
    assert.equal(await page.locator('body script, body img').count(), 0);
  });
  await context.close();
}
await end();
