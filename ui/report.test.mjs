// Looks at the page that `longpole diagnose -o html` writes with a real browser. Usage: node report.test.mjs URL [FOLDER FOR
// SCREENSHOTS]. What the page is about stands in internal/report/report_test.go.

import assert from 'node:assert/strict';
import { check, end, fits, openAlone, text } from './look.mjs';

const [url, folder] = process.argv.slice(2);

const main = await openAlone(url + '/');
await check('the slider shows what the time is spent on at each quantile', async () => {
  const figure = main.page.locator('.icicle').first();
  await figure.locator('.boxes div').first().waitFor();
  assert.match(await text(figure.locator('output')), /^p99: \d+ ms$/);
  const slow = await text(figure.locator('.told'));
  assert.match(slow, /Most time of its own: shop SELECT items \d+ ms/);
  const widths = async () => figure.locator('.boxes div').evaluateAll((all) => all.map((b) => [b.title.replace(/:.*/, ''), b.getBoundingClientRect().width]));
  const before = new Map(await widths());
  await figure.locator('input').focus();
  for (let i = 0; i < 8; i++) await main.page.keyboard.press('ArrowLeft');
  assert.match(await text(figure.locator('output')), /^p50: \d+(\.\d)? ms$/);
  const after = new Map(await widths());
  assert.ok(after.get('shop SELECT items') < 0.8 * before.get('shop SELECT items'), 'the query takes less of typical traces');
  assert.match(await figure.locator('input').getAttribute('aria-valuetext'), /^p50, /);
});
await check('boxes of children lie within their parents', async () => {
  const boxes = await main.page.locator('.icicle .boxes').first().evaluate((e) => [...e.children].map((b) => [parseFloat(b.style.left), parseFloat(b.style.width), parseFloat(b.style.top)]));
  for (const [left, width, top] of boxes) {
    assert.ok(left >= -0.01 && left + width <= 100.01, `${left} + ${width}`);
    if (top > 0) assert.ok(boxes.some(([l, w, y]) => y < top && top - y < 25 && l <= left + 0.01 && l + w >= left + width - 0.01), `nothing above ${left} ${top}`);
  }
});
await check('two traces stand side by side, with what was waited for', async () => {
  const figures = main.page.locator('figure');
  assert.equal(await figures.count(), 2);
  const [a, b] = [await figures.nth(0).boundingBox(), await figures.nth(1).boundingBox()];
  assert.ok(Math.abs(a.y - b.y) < 2 && b.x >= a.x + a.width, 'side by side');
  assert.ok(await figures.nth(1).locator('rect.crit').count() >= 10);
});
await check('a finding has its evidence and its cure', async () => {
  const said = await text(main.page.locator('.finding').filter({ hasText: 'LP102' }));
  for (const part of ['What speaks for it', 'What speaks against it', 'predicted', 'Cost', 'Risk', 'Watch']) assert.ok(said.includes(part), `${part} is missing: ${said}`);
});
await check('the flame graph is drawn', async () => assert.ok(await main.page.locator('svg.flame rect').count() === 4));
await check('names from traces stay text', async () => assert.equal(await main.page.locator('main img').count(), 0));
await check('the button changes the theme', async () => {
  const ground = () => main.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const before = await ground();
  await main.page.locator('#theme').click();
  assert.notEqual(await ground(), before);
});
await check('no errors, no request to elsewhere', async () => assert.deepEqual(main.faults, []));

const beside = await openAlone(url + '/beside');
await check('a route stands beside its baseline', async () => {
  const route = beside.page.locator('section.route').first();
  const said = await text(route.locator('.beside'));
  assert.match(said, /^Beside the baseline slower 300 traces of the baseline: p50 [\d.]+ · p95 [\d.]+ · p99 [\d.]+ ms; chance alone/);
  const row = await text(route.locator('.beside tbody tr').filter({ hasText: 'SELECT items' }).first());
  const [, before, now, change] = row.match(/([\d.]+) → ([\d.]+) \+([\d.]+)$/);
  assert.ok(Number(now) > Number(before) && Math.abs(now - before - change) < 2, row);
  assert.match(said, /service\.version = 2.* 100 % 0 %/);
  assert.match(await text(beside.page.locator('main table').filter({ hasText: 'First finding' })), /Beside the baseline .* slower/i);
});
await check('a finding says whether it is new', async () => {
  const badges = async (code) => text(beside.page.locator('.finding').filter({ hasText: code }).locator('h3').first());
  assert.match(await badges('LP102'), /sure as in the baseline$/);
  assert.ok(await beside.page.locator('.finding h3').filter({ hasText: 'new since the baseline' }).count() >= 1);
});
await check('no errors beside a baseline', async () => assert.deepEqual(beside.faults, []));

for (const [colorScheme, at] of [['light', '/'], ['dark', '/'], ['light', '/beside'], ['dark', '/beside']]) {
  const { page, context, faults } = await openAlone(url + at, { colorScheme });
  for (const width of [1280, 390]) {
    await check(`${colorScheme}, ${width}, ${at}: fits and is accessible`, async () => {
      await fits(page, width);
      if (folder) await page.screenshot({ path: `${folder}/report${at.replace('/', '-').replace(/-$/, '')}-${colorScheme}-${width}.png`, fullPage: true });
    });
  }
  await check(`${colorScheme}, ${at}: no errors`, async () => assert.deepEqual(faults, []));
  await context.close();
}
const bare = await openAlone(url + '/', { javaScriptEnabled: false });
await check('without scripts all but the slider is there', async () => {
  assert.ok(await bare.page.locator('.finding').count() >= 1);
  assert.equal(await bare.page.locator('figure').count(), 2);
  assert.ok(!(await bare.page.locator('.icicle').first().isVisible()));
});
await end();
