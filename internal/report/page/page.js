'use strict';
(() => {
  const paths = JSON.parse(document.getElementById('paths').textContent) || [];
  const height = 24;

  const ms = (v) => (v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v > 0 && v < 0.1 ? v.toFixed(3) : v.toFixed(2));
  const quantile = (q) => (q >= 1 ? 'the slowest' : 'p' + String(Math.round(q * 1000) / 10));

  // draw lays out the call paths of one quantile: each below its caller, as wide as its share of the time.
  function draw(figure, data, level) {
    const whole = data.nodes[0].ms[level] || 1;
    const boxes = figure.querySelector('.boxes');
    const from = [];
    const next = [];
    const depth = [];
    const own = data.nodes.map((n) => n.ms[level]);
    const out = document.createDocumentFragment();
    let deepest = 0;
    data.nodes.forEach((n, i) => {
      from[i] = n.p < 0 ? 0 : next[n.p];
      depth[i] = n.p < 0 ? 0 : depth[n.p] + 1;
      next[i] = from[i];
      if (n.p >= 0) {
        next[n.p] += n.ms[level];
        own[n.p] -= n.ms[level];
      }
      const share = n.ms[level] / whole;
      if (share < 0.001) return;
      deepest = Math.max(deepest, depth[i]);
      const box = document.createElement('div');
      box.className = n.c;
      box.style.left = 100 * from[i] / whole + '%';
      box.style.width = 100 * share + '%';
      box.style.top = height * depth[i] + 'px';
      box.title = `${n.n}: ${ms(n.ms[level])} ms, ${Math.round(100 * share)} %`;
      if (share > 0.02) box.textContent = n.n;
      out.append(box);
    });
    boxes.replaceChildren(out);
    boxes.style.height = height * (deepest + 1) + 'px';
    const longest = data.nodes.map((n, i) => ({ n, own: own[i] })).sort((a, b) => b.own - a.own).slice(0, 3).filter((x) => x.own > 0);
    const said = longest.map((x) => `${x.n.n} ${ms(x.own)} ms (${Math.round(100 * x.own / whole)} %)`).join('; ');
    const name = quantile(data.levels[level]);
    figure.querySelector('output').textContent = `${name}: ${ms(whole)} ms`;
    figure.querySelector('.told').textContent = said ? `Most time of its own: ${said}.` : '';
    boxes.setAttribute('aria-label', `Critical path around ${name}. Most time of its own: ${said}`);
    figure.querySelector('input').setAttribute('aria-valuetext', `${name}, ${ms(whole)} milliseconds`);
  }

  for (const figure of document.querySelectorAll('.icicle')) {
    const data = paths[Number(figure.dataset.route)];
    if (!data || !data.nodes || !data.nodes.length) continue;
    const slider = figure.querySelector('input');
    slider.max = String(data.levels.length - 1);
    const p99 = data.levels.indexOf(0.99);
    slider.value = String(p99 < 0 ? data.levels.length - 1 : p99);
    slider.addEventListener('input', () => draw(figure, data, Number(slider.value)));
    figure.hidden = false;
    draw(figure, data, Number(slider.value));
  }

  const button = document.getElementById('theme');
  const dark = matchMedia('(prefers-color-scheme: dark)');
  button.hidden = false;
  button.addEventListener('click', () => {
    const root = document.documentElement;
    const now = root.dataset.theme || (dark.matches ? 'dark' : 'light');
    root.dataset.theme = now === 'dark' ? 'light' : 'dark';
  });
})();
