'use strict';
// The page reads the public API once a second while it is visible, and builds its elements with textContent only:
// names come from traces, and traces come from anywhere.

const admin = location.origin;

function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [k, v] of Object.entries(props || {})) {
    if (k === 'class') node.className = v;
    else if (k in node) node[k] = v;
    else node.setAttribute(k, v);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined).map(String_or_node));
  return node;
}

function String_or_node(c) { return c instanceof Node ? c : document.createTextNode(String(c)); }

function ms(v) {
  if (v === undefined || v === null) return '–';
  return (v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v.toFixed(2)) + ' ms';
}

function percent(v) {
  if (v === undefined || v === null) return '–';
  return (v > 0 && v < 0.01 ? (v * 100).toFixed(1) : (v * 100).toFixed(0)) + ' %';
}

function replace(id, ...nodes) { document.getElementById(id).replaceChildren(...nodes); }

// The long pole: the first segment of the route that loses most time.

function sharesOf(route) {
  const grid = el('div', { class: 'share' });
  for (const s of (route.segments || []).slice(0, 6)) {
    const slow = el('i', { class: 'slow' });
    const typical = el('i', { class: 'typical' });
    slow.style.width = s.share.p99 * 100 + '%';
    typical.style.width = s.share.p50 * 100 + '%';
    const name = `${s.segment} · ${s.service} ${s.operation}`;
    grid.append(
      el('span', { class: 'name', title: name }, name),
      el('span', { class: 'track' }, slow, typical),
      el('span', { class: 'num', title: `${ms(s.critical_ms.p99)} of the slow, ${ms(s.critical_ms.p50)} of the typical traces` }, percent(s.share.p99)),
    );
  }
  return grid;
}

function actionOf(finding, action) {
  const box = el('div', { class: 'action' },
    el('p', {}, el('strong', {}, action.kind), ': ', action.summary));
  const p = action.predicted_ms;
  if (p) box.append(el('p', { class: 'soft' }, `predicted p50 ${ms(p.p50)}, p95 ${ms(p.p95)}, p99 ${ms(p.p99)}`));
  if (action.cost) box.append(el('p', { class: 'soft' }, 'cost: ' + action.cost));
  if (action.change) {
    const button = el('button', { type: 'button' }, 'Start rollout');
    button.addEventListener('click', () => start(button, action.change.route, finding.code));
    box.append(el('p', {}, button, el('span', { class: 'cli' }, '  ',
      el('code', {}, `longpole rollout start --route ${action.change.route} --advice ${finding.code}`))));
  }
  return box;
}

function findingOf(f) {
  return el('div', {},
    el('p', {}, el('strong', {}, `${f.code} ${f.class}`), ` (${f.verdict}, confidence ${percent(f.confidence)}): `, f.summary),
    el('ul', { class: 'evidence' },
      ...(f.evidence || []).map((e) => el('li', { class: 'for' }, e)),
      ...(f.counter_evidence || []).map((e) => el('li', { class: 'against' }, e))),
    ...(f.actions || []).map((a) => actionOf(f, a)));
}

function poleOf(route) {
  const top = (route.segments || [])[0];
  const l = route.latency_ms;
  const card = el('div', { class: 'card' },
    el('h3', {}, `${route.service} ${route.operation}`),
    el('p', { class: 'soft' }, `${route.traces} traces, ${route.errors} errors · p50 ${ms(l.p50)} · p95 ${ms(l.p95)} · p99 ${ms(l.p99)} · p99.9 ${ms(l['p99.9'])}`));
  if (top) {
    card.append(
      el('p', { class: 'pole-line' }, el('strong', {}, `${top.segment} ${top.service} ${top.operation}`),
        ` takes ${percent(top.share.p99)} of the slow traces' time, and ${percent(top.share.p50)} of the typical ones'.`),
      sharesOf(route),
      el('p', { class: 'key' }, 'share of the critical path:', el('b', { class: 'slow' }), 'p99 band', el('b', { class: 'typical' }), 'p50 band'));
  }
  card.append(...(route.findings || []).slice(0, 3).map(findingOf));
  return card;
}

function showPole(report) {
  if (!report.routes || report.routes.length === 0) {
    replace('pole', el('p', { class: 'empty' },
      'No traces yet. Calls through the gateway appear here by themselves after a few seconds; send the spans of your services by OTLP to port 4317 (gRPC) or 4318 (HTTP).'));
    return;
  }
  replace('pole', ...report.routes.slice(0, 3).map(poleOf));
}

// Rollouts, newest first.

const phaseClass = { promoted: 'good', rolled_back: 'bad', aborted: 'bad', inconclusive: 'wait' };
const verdictClass = { improved: 'good', no_worse: 'good', worse: 'bad', inconclusive: 'wait', invalid: 'bad' };
const final = (r) => r.phase in phaseClass;

function evidenceOf(label, e) {
  if (!e || !e.threshold) return null;
  const value = Math.max(0, e.log10_e);
  return el('span', { title: `10^${e.log10_e.toFixed(1)} of 10^${e.threshold.toFixed(1)}` },
    el('meter', { min: 0, max: e.threshold, value: Math.min(value, e.threshold), 'aria-label': label }), ` ${label} `);
}

function metricsOf(r) {
  const rows = (r.judgement.metrics || []).map((m) => el('tr', {},
    el('td', { class: 'text' }, m.metric),
    el('td', {}, m.unit === 'ms' ? ms(m.baseline) : m.baseline.toFixed(4)),
    el('td', {}, m.unit === 'ms' ? ms(m.candidate) : m.candidate.toFixed(4)),
    el('td', { class: 'text ' + (verdictClass[m.verdict] || '') }, m.verdict.replace('_', ' ')),
    el('td', { class: 'text' }, evidenceOf('better', m.improved), evidenceOf('worse', m.worse))));
  return el('div', { class: 'scroll' }, el('table', {},
    el('thead', {}, el('tr', {},
      el('th', { class: 'text' }, 'metric'), el('th', {}, 'baseline'), el('th', {}, 'candidate'),
      el('th', { class: 'text' }, 'verdict'), el('th', { class: 'text' }, 'evidence'))),
    el('tbody', {}, ...rows)));
}

function stepsOf(r) {
  const steps = el('div', { class: 'steps' });
  for (let i = 1; i <= r.steps; i++) {
    const state = r.phase === 'promoted' || i < r.step ? 'done' : i === r.step && !final(r) ? 'now' : '';
    steps.append(el('span', { class: state }, `step ${i}`));
  }
  steps.append(el('span', { class: r.phase === 'promoted' ? 'done' : '' }, 'promoted'));
  return steps;
}

function rolloutOf(r) {
  const q = (name, v) => v && v.p99 ? `${name} p50 ${ms(v.p50)}, p95 ${ms(v.p95)}, p99 ${ms(v.p99)}` : null;
  const card = el('div', { class: 'card' },
    el('div', { class: 'row' },
      el('h3', {}, `${r.id} · ${r.route}`),
      el('span', { class: phaseClass[r.phase] || '' }, r.phase.replace('_', ' ') + (final(r) ? '' : `, ${percent(r.weight)} of the calls`))),
    stepsOf(r),
    el('p', {}, r.judgement.sentence || r.plan || ''),
    el('p', { class: 'soft' }, [q('baseline', r.baseline_ms), q('predicted', r.predicted_ms), q('candidate', r.measured_ms)].filter(Boolean).join(' · ')),
    (r.judgement.metrics || []).length ? metricsOf(r) : null);
  if (!final(r)) {
    const steer = (verb) => {
      const b = el('button', { type: 'button' }, verb);
      b.addEventListener('click', () => post(b, `api/v1/rollouts/${encodeURIComponent(r.id)}/${verb.toLowerCase()}`, { reason: 'from the page' }));
      return b;
    };
    card.append(el('p', {}, steer('Promote'), ' ', steer('Abort')));
  }
  return card;
}

function showRollouts(list) {
  if (list.length === 0) {
    replace('rollouts', el('p', { class: 'empty' }, 'No rollout yet. Start one from a finding above, or with: longpole rollout start --route NAME --advice CODE'));
    return;
  }
  replace('rollouts', ...list.slice().reverse().slice(0, 5).map(rolloutOf));
}

// Routes.

function endpointsOf(route) {
  return (route.endpoints || []).map((e) => el('div', {},
    el('span', { class: e.healthy ? 'good' : 'bad' }, e.healthy ? '● fit ' : '✖ unfit '),
    `${e.name} · ${e.in_flight} in flight` + (e.breaker && e.breaker !== 'closed' ? ` · breaker ${e.breaker}` : '')));
}

function showRoutes(routes) {
  if (routes.length === 0) {
    replace('routes', el('p', { class: 'empty' }, 'No routes are configured.'));
    return;
  }
  const head = ['route', 'calls/s', 'errors', 'p50', 'p95', 'p99', 'p99.9', 'endpoints'];
  replace('routes', el('table', {},
    el('thead', {}, el('tr', {}, ...head.map((h, i) => el('th', { class: i === 0 || i === 7 ? 'text' : '' }, h)))),
    el('tbody', {}, ...routes.map((r) => el('tr', {},
      el('td', { class: 'text' }, r.name),
      el('td', {}, r.rps.toFixed(1)),
      el('td', { class: r.error_ratio > 0 ? 'bad' : '' }, percent(r.error_ratio)),
      ...['p50', 'p95', 'p99', 'p99.9'].map((q) => el('td', {}, r.calls ? ms(r.latency_ms[q]) : '–')),
      el('td', { class: 'text wide' }, ...endpointsOf(r)))))));
}

// Talking to the API.

async function post(button, path, body) {
  button.disabled = true;
  try {
    const response = await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
    if (!response.ok) throw new Error((await response.json()).error);
    await refresh();
  } catch (e) {
    button.after(el('span', { class: 'bad', role: 'alert' }, ' ' + e.message));
  }
}

function start(button, route, advice) { return post(button, 'api/v1/rollouts', { route, advice, reason: 'from the page' }); }

async function read(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(path + ': ' + response.status);
  return response.json();
}

let shown = '';
async function refresh() {
  const live = document.getElementById('live');
  try {
    const [routes, findings, rollouts] = await Promise.all([read('api/v1/routes'), read('api/v1/findings'), read('api/v1/rollouts')]);
    showRoutes(routes.routes || []);
    showRollouts(rollouts.rollouts || []);
    const stamp = findings.at + JSON.stringify((findings.routes || []).length);
    if (stamp !== shown) { // leave buttons and focus alone while nothing changed
      shown = stamp;
      showPole(findings);
    }
    live.className = '';
    live.textContent = `live · ${new Date().toLocaleTimeString()}` + (findings.at ? ` · diagnosis of ${new Date(findings.at).toLocaleTimeString()}` : '');
  } catch (e) {
    live.className = 'lost';
    live.textContent = 'connection lost: ' + e.message;
  }
}

for (const code of document.querySelectorAll('.cli code')) code.textContent = code.textContent.replace('$ADMIN', admin);
refresh();
setInterval(() => { if (!document.hidden) refresh(); }, 1000);
