// Routes, endpoints and the overview above all.

import { h } from './dom.js';
import { count, measured, none, percent, plural, rate } from './format.js';
import { ended, scroll } from './rollouts.js';

// overview describes the tiles.
export function overview(routes, list) {
  const calls = routes.reduce((n, r) => n + r.rps, 0);
  const failed = routes.reduce((n, r) => n + r.rps * r.error_ratio, 0);
  const slowest = routes.filter((r) => r.rps > 0).sort((a, b) => b.latency_ms.p99 - a.latency_ms.p99)[0];
  const all = endpointsOf(routes);
  const unfit = all.filter((e) => !e.healthy).length;
  const running = list.filter((r) => !ended(r)).length;
  const tile = (name, value, note, kind) => h('div', { key: name }, h('dt', {}, name), h('dd', { class: kind }, value), h('dd', { class: 'soft' }, note));
  return [
    tile('traffic', `${rate(calls)} calls/s`, plural(routes.length, 'route')),
    tile('errors', calls > 0 ? percent(failed / calls) : none, 'of the calls', failed > 0 ? 'bad' : undefined),
    tile('slowest p99', slowest ? measured(slowest.latency_ms.p99) : none, slowest ? `route ${slowest.name}` : 'no calls in the last 30 s'),
    tile('endpoints', `${all.length - unfit} of ${all.length} fit`, unfit ? `${unfit} unfit` : 'all in the rotation', unfit ? 'bad' : undefined),
    tile('rollouts', `${running} under way`, `${count(list.length - running)} ended`),
  ];
}

// endpointsOf lists each endpoint of each upstream once, with the routes whose breaker is not closed.
function endpointsOf(routes) {
  const found = new Map();
  for (const r of routes) {
    for (const e of r.endpoints || []) {
      const upstream = e.upstream ?? r.upstream;
      const key = `${upstream} ${e.name}`;
      if (!found.has(key)) found.set(key, { ...e, key, upstream, breakers: [] });
      if (e.breaker && e.breaker !== 'closed') found.get(key).breakers.push(`${e.breaker} (${r.name})`);
    }
  }
  return [...found.values()];
}

function head(...names) {
  return h('thead', {}, h('tr', {}, names.map(([name, kind]) => h('th', { scope: 'col', class: kind }, name))));
}

// matchOf says which calls a route takes.
function matchOf(m) {
  const where = `${(m.host || []).join(', ')}${m.pattern || m.exact || m.path || '/'}`;
  return [
    (m.method || []).join(', '), m.scheme ? `${m.scheme}://${where}` : where,
    ...(m.query || []).map((c) => `?${condition(c)}`), ...(m.header || []).map(condition),
  ].filter(Boolean).join(' ');
}

function condition(c) {
  if (c.absent) return `!${c.name}`;
  if (c.prefix) return `${c.name}=${c.prefix}*`;
  return c.name + (c.exact ? `=${c.exact}` : c.regexp ? `~${c.regexp}` : '');
}

// targetOf says where its calls go: to one upstream, to several with their weights, or to none.
function targetOf(r) {
  return r.upstream || (r.versions || []).map((v) => `${v.upstream}:${v.weight}`).join(' ') || r.action;
}

// routeTable describes the table of routes.
export function routeTable(routes) {
  if (routes.length === 0) return h('p', { class: 'empty' }, 'No routes are configured.');
  const qs = ['p50', 'p95', 'p99', 'p99.9'];
  return scroll('routes', h('table', {},
    head(['route', 'text'], ['takes', 'text roomy'], ['upstream', 'text roomy'], ['calls/s'], ['errors'], ...qs.map((q) => [q])),
    h('tbody', {}, routes.map((r) => h('tr', { key: r.name },
      h('th', { class: 'text', scope: 'row' }, r.name, r.arms && h('span', { class: 'badge wait' }, `candidate ${percent(r.arms.weight)}`)),
      h('td', { class: 'text soft roomy' }, matchOf(r.match || {})),
      h('td', { class: 'text soft roomy' }, targetOf(r)),
      h('td', {}, rate(r.rps)),
      h('td', { class: r.error_ratio > 0 ? 'bad' : undefined }, r.rps > 0 ? percent(r.error_ratio) : none),
      qs.map((q) => h('td', {}, measured(r.latency_ms[q]))))))));
}

// endpointTable describes the table of endpoints.
export function endpointTable(routes) {
  const all = endpointsOf(routes);
  if (all.length === 0) return h('p', { class: 'empty' }, 'No endpoints are configured.');
  return scroll('endpoints', h('table', {},
    head(['endpoint', 'text'], ['upstream', 'text roomy'], ['health', 'text'], ['breaker', 'text'], ['in flight', 'roomy'], ['attempts', 'roomy'], ['p50'], ['p99']),
    h('tbody', {}, all.map((e) => h('tr', { key: e.key },
      h('th', { class: 'text', scope: 'row' }, e.name),
      h('td', { class: 'text soft roomy' }, e.upstream),
      h('td', { class: 'text' }, h('span', { class: 'badge ' + (e.healthy ? 'good' : 'bad') }, h('span', { 'aria-hidden': 'true' }, e.healthy ? '✓ ' : '✕ '), e.healthy ? 'fit' : 'unfit')),
      h('td', { class: 'text ' + (e.breakers.length ? 'bad' : 'soft') }, e.breakers.length ? e.breakers.join(', ') : 'closed'),
      h('td', { class: 'roomy' }, count(e.in_flight)),
      h('td', { class: 'roomy' }, count(e.attempts)),
      h('td', {}, measured(e.latency_ms && e.latency_ms.p50)),
      h('td', {}, measured(e.latency_ms && e.latency_ms.p99)))))));
}
