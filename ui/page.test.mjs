// Looks at the admin page with a real browser. Usage: node page.test.mjs URL EMPTY_URL [FOLDER FOR SCREENSHOTS]
//
// URL is an admin side with traffic on the routes orders and catalogue, a diagnosis of orders and a rollout r1 of
// catalogue under way; EMPTY_URL is one on which nothing happened yet.

import assert from 'node:assert/strict';
import { check, end, fits, open as openAt, text } from './look.mjs';

const [url, emptyURL, folder] = process.argv.slice(2);
const widths = [1280, 390, 360];
const schemes = ['light', 'dark'];

// open gives an admin page once it has its first figures.
async function open(address, options) {
  const opened = await openAt(address + '/', (asked) => asked.startsWith(address + '/'), options);
  await opened.page.locator('#live.live').waitFor();
  return opened;
}

// refreshes waits until the page has read the API n more times.
async function refreshes(page, n) {
  for (let i = 0; i < n; i++) await page.waitForResponse((r) => r.url().endsWith('/api/v1/rollouts') && r.request().method() === 'GET');
  await page.evaluate(() => new Promise(requestAnimationFrame));
}

const checks = {
  async 'routes and endpoints have their figures'({ page }) {
    await page.locator('#routes tbody tr', { hasText: 'orders' }).getByText(/\d [mµ]?s/).first().waitFor();
    const row = await text(page.locator('#routes tbody tr', { hasText: 'orders' }));
    assert.match(row, /^orders GET, POST \/orders shop [\d.]+ 0 %( [\d.]+ [mµ]?s){4}$/);
    await page.locator('#routes', { hasText: 'candidate 25 %' }).waitFor();
    await page.locator('#endpoints .badge.bad', { hasText: 'unfit' }).waitFor();
    assert.equal(await page.locator('#endpoints tbody tr').count(), 3, 'each endpoint once, although two routes share them');
    assert.equal(await page.locator('#endpoints .badge.good', { hasText: 'fit' }).count(), 2);
    assert.match(await text(page.locator('#overview')), /2 of 3 fit/);
  },

  async 'the long pole is said in a sentence, with evidence'({ page }) {
    assert.match(await text(page.locator('#pole')), /^From 1,514 traces with 9,211 spans of the last 5 minutes, 3 incomplete traces\./);
    assert.match(await text(page.locator('.pole-line').first()), /^downstream: orders GET \/orders takes 72 % of the time of slow requests, and 31 % of typical ones\.$/);
    const finding = await text(page.locator('.finding').first());
    for (const part of ['LP103 slow endpoint', 'likely, 87 % sure', 'What speaks for it', '39 of the 40 slowest', 'What speaks against it', 'own spans are missing',
      'now 8.30 ms 120 ms 188 ms', 'predicted 8.10 ms 14.2 ms 21.5 ms', '−89 %', 'cost', '5.2 % more upstream calls']) {
      assert.ok(finding.includes(part), `the finding does not say ${part}: ${finding}`);
    }
    await page.locator('.action details').first().evaluate((d) => { d.open = true; });
    await page.locator('.diff', { hasText: 'retry.hedge' }).first().waitFor();
  },

  async 'names from traces stay text'({ page }) {
    await page.locator('.shares .name', { hasText: '<img src=x onerror=alert(1)>' }).first().waitFor();
    assert.equal(await page.locator('main img').count(), 0);
  },

  async 'a rollout shows its forecast beside what is measured'({ page }) {
    const card = page.locator('#rollouts .card', { hasText: 'r1 · catalogue' });
    await card.locator('tr', { hasText: 'candidate, measured' }).getByText(/\d [mµ]?s/).first().waitFor();
    const said = await text(card);
    for (const part of ['step 1', 'candidate, predicted 1.00 ms 2.00 ms 4.00 ms', 'measured against prediction', 'evidence: worse', 'p99', 'To improve p99', 'Price: it may refuse 10 % of the calls beyond what the baseline refuses']) {
      assert.ok(said.includes(part), `the rollout does not say ${part}: ${said}`);
    }
    assert.ok(await card.locator('meter').count() >= 12, 'meters of evidence');
  },

  async 'a refresh leaves focus and elements alone'({ page }) {
    const abort = page.getByRole('button', { name: 'Abort r1' });
    await abort.focus();
    await page.locator('#rollouts details.inner').last().evaluate((d) => { d.open = true; });
    await abort.evaluate((b) => { window.before = b; });
    await refreshes(page, 3);
    assert.ok(await abort.evaluate((b) => b === window.before && document.activeElement === b), 'the button was made anew');
    assert.ok(await page.locator('#rollouts details.inner').last().evaluate((d) => d.open), 'the journal closed by itself');
  },

  async 'a refusal is said beside the button'({ page, faults }) {
    await page.route('**/api/v1/rollouts', (r) => (r.request().method() === 'POST' ? r.fulfill({ status: 409, json: { error: 'the route is busy' } }) : r.continue()));
    await page.getByRole('button', { name: 'Start rollout of hedge on orders' }).click();
    await page.getByRole('alert').getByText('the route is busy').waitFor();
    await page.unroute('**/api/v1/rollouts');
    assert.match(faults.splice(0).join(), /^console: Failed to load resource.*409/);
  },

  async 'Start rollout starts one and Abort ends it'({ page }) {
    const start = page.getByRole('button', { name: 'Start rollout of hedge on orders' });
    await start.click();
    const card = page.locator('#rollouts .card', { hasText: 'r2 · orders' });
    await card.getByText('warmup', { exact: false }).first().waitFor();
    assert.ok(await start.isDisabled(), 'a second rollout of the route can be asked for');
    assert.match(await text(card), /candidate, predicted 8\.10 ms 14\.2 ms 21\.5 ms/);
    assert.match(await text(page.locator('#pole')), /r2 of route orders is under way/);
    await page.getByRole('button', { name: 'Abort r2' }).click();
    await page.locator('#rollouts details.card', { hasText: 'r2 · orders' }).getByText('aborted').first().waitFor();
    assert.ok(await start.isEnabled());
  },

  async 'Pause takes the calls from a candidate, and Resume gives them back'({ page }) {
    const card = page.locator('#rollouts .card', { hasText: 'r1 · catalogue' });
    await page.getByRole('button', { name: 'Pause r1' }).click();
    await card.getByText('paused', { exact: false }).first().waitFor();
    assert.equal(await page.getByRole('button', { name: 'Promote now: r1' }).count(), 0, 'a paused rollout can be promoted');
    await page.getByRole('button', { name: 'Resume r1' }).click();
    await page.getByRole('button', { name: 'Pause r1' }).waitFor();
  },

  async 'objectives show what is left of them'({ page }) {
    const row = await text(page.locator('#objectives tbody tr', { hasText: 'orders-there' }));
    assert.match(row, /^orders-there orders 99\.9 %, 30d 98\.9\d* % −?-?\d+\.\d % 1h \d/);
    assert.match(row, /page.* now 100 % timeout$/);
    assert.match(await text(page.locator('#objectives tbody tr', { hasText: 'catalogue-fast' })), /99 % within 250 ms, 30d – 100\.0 % .* quiet – –$/);
  },

  async 'history shows the route and its segments'({ page }) {
    await page.locator('#history').getByRole('combobox', { name: 'route' }).selectOption('orders');
    await page.locator('#history figure', { hasText: 'the whole route' }).waitFor();
    assert.match(await page.locator('#history svg').first().getAttribute('aria-label'), /^the whole route: at last p50 [\d.]+ ms, p95 [\d.]+ ms, p99 [\d.]+ ms$/);
    assert.equal(await page.locator('#history figure').count(), 2, 'the route and its database, without the endpoint');
    assert.ok((await page.locator('#history svg path.slow').first().getAttribute('d')).split('L').length > 20, 'a line of many points');
    assert.ok(await page.locator('#history svg path.slow').first().evaluate((p) => p.getBoundingClientRect().width > 100), 'the line is drawn');
    await page.locator('#history').getByRole('combobox', { name: 'time' }).selectOption('6h');
    await page.locator('#history figure').nth(1).waitFor();
  },

  async 'a kill switch asks, switches off, and on again'({ page }) {
    const button = page.getByRole('button', { name: 'hedge off on every route' });
    let asked = '';
    page.once('dialog', (d) => { asked = d.message(); d.accept(); });
    await button.click();
    assert.match(asked, /Switch hedge off on every route now/);
    await page.locator('#switches button[aria-pressed="true"]', { hasText: 'hedge: off' }).first().waitFor();
    page.once('dialog', (d) => d.accept());
    await button.click();
    await page.locator('#switches button[aria-pressed="true"]').first().waitFor({ state: 'detached' });
  },

  async 'a fault of the lab is switched on and off, with the findings beside'({ page }) {
    const toggle = page.getByRole('switch', { name: 'fault slow-orders' });
    assert.equal(await toggle.getAttribute('aria-checked'), 'false');
    assert.match(await text(page.locator('#lab')), /one of three replicas is slow/);
    assert.match(await text(page.locator('#lab .named li').first()), /LP103 slow_endpoint orders/);
    await toggle.click();
    await page.locator('#lab button[aria-checked="true"]').waitFor();
    assert.equal(await page.getByRole('switch', { name: 'fault burn' }).getAttribute('aria-checked'), 'false', 'the other one stays off');
    await toggle.click();
    await page.locator('#lab button[aria-checked="true"]').waitFor({ state: 'detached' });
  },

  async 'Promote asks first'({ page }) {
    let asked = '';
    page.once('dialog', (d) => { asked = d.message(); d.dismiss(); });
    await page.getByRole('button', { name: 'Promote now: r1' }).click();
    assert.match(asked, /whatever the evidence/);
    assert.equal(await page.getByRole('button', { name: 'Abort r1' }).count(), 1);
  },
};

// fitsOpen is fits with every part of the page open, at each width.
async function fitsOpen(page) {
  await page.evaluate(() => { for (const d of document.querySelectorAll('details')) d.open = true; });
  for (const width of widths) await fits(page, width);
}

const main = await open(url);
for (const [name, run] of Object.entries(checks)) await check(name, () => run(main));
await check('no errors, no request to elsewhere', async () => assert.deepEqual(main.faults, []));

const grounds = new Set();
for (const colorScheme of schemes) {
  for (const [what, address] of [['full', url], ['empty', emptyURL]]) {
    const { page, context, faults } = await open(address, { colorScheme });
    await refreshes(page, 1);
    grounds.add(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
    for (const width of folder ? [1280, 390] : []) {
      await page.setViewportSize({ width, height: 900 });
      await page.screenshot({ path: `${folder}/${what}-${colorScheme}-${width}.png`, fullPage: true });
    }
    await check(`${what}, ${colorScheme}: fits and is accessible`, () => fitsOpen(page));
    if (what === 'empty') {
      await check(`empty, ${colorScheme}: a route says what it takes, and what becomes of it`, async () => {
        await page.setViewportSize({ width: 1280, height: 900 });
        assert.match(await text(page.locator('#routes tbody tr', { hasText: 'old' })), /^old a\.example\/old\/\{id\} X-Age=v1\* static 0\.0 /);
      });
      await check(`empty, ${colorScheme}: says what to do`, async () => {
        const said = await text(page.locator('main'));
        for (const part of ['No traces yet', '4317', 'No rollout yet', 'longpole rollout start', 'No objectives yet', 'No history is kept', 'no calls in the last 30 s']) assert.ok(said.includes(part), part);
      });
    }
    await check(`${what}, ${colorScheme}: no errors`, async () => assert.deepEqual(faults, []));
    await context.close();
  }
}
await check('light and dark differ', async () => assert.equal(grounds.size, schemes.length));
await check('a lost connection is said, and mended', async () => {
  await main.context.setOffline(true);
  await main.page.locator('#live.lost', { hasText: 'connection lost' }).waitFor();
  await main.context.setOffline(false);
  await main.page.locator('#live.live').waitFor();
});
await end();
