// The long pole: where the time of the slow requests goes, what speaks for it, and what to do.

import { h } from './dom.js';
import { change, latency, percent, plural, words } from './format.js';
import { policyChange, scroll } from './rollouts.js';

const routesShown = 5;
const segmentsShown = 6;

const verdicts = { confirmed: 'good', likely: 'wait', suspected: 'quiet' };

// pole describes the diagnosis; rollouts says which routes have one under way.
export function pole(report, act) {
  const routes = report.routes || [];
  const notes = [routes.length > 0 && basis(report), lost(report.dropped || {}), (report.notes || []).map((n) => h('p', { class: 'note' }, n))];
  if (routes.length === 0) {
    return [notes, h('p', { class: 'empty' },
      'No traces yet. Calls through the gateway appear here within half a minute. To see inside your services, send their spans by OTLP to port 4317 (gRPC) or 4318 (HTTP).')];
  }
  const more = routes.length - routesShown;
  return [notes, routes.slice(0, routesShown).map((r, i) => routeOf(r, i === 0, act)),
    more > 0 && h('p', { class: 'note' }, `${plural(more, 'more route')} in the findings of the API.`)];
}

// basis says what the diagnosis stands on.
function basis(report) {
  const input = report.input || {};
  const odd = [['incomplete_traces', 'incomplete trace'], ['invalid_spans', 'invalid span'], ['skew_corrected_spans', 'clock-corrected span']]
    .filter(([k]) => input[k] > 0).map(([k, noun]) => plural(input[k], noun));
  const window = report.window_ms ? ` of the last ${plural(Math.round(report.window_ms / 60000), 'minute')}` : '';
  return h('p', { class: 'note', key: 'basis' }, [`From ${plural(input.traces, 'trace')} with ${plural(input.spans, 'span')}${window}`, ...odd].join(', ') + '.');
}

// lost says what did not reach the diagnosis; what there was no room for is sampled, and others stand for it.
function lost(dropped) {
  const all = Object.entries(dropped).filter(([, n]) => n > 0).map(([why, n]) => `${plural(n, 'span')} (${words(why)})`);
  return all.length > 0 && h('p', { class: 'note', key: 'lost' }, `Left out since the start: ${all.join(', ')}.`);
}

function routeOf(route, first, act) {
  const l = route.latency_ms || {};
  const top = (route.segments || [])[0];
  const name = `${route.service} ${route.operation}`;
  return h('details', { class: 'card', key: name, open: first },
    h('summary', {},
      h('span', { class: 'title' }, name),
      h('span', { class: 'soft figures' }, `${plural(route.traces, 'trace')} · ${plural(route.errors, 'error')} · p50 ${latency(l.p50)} · p95 ${latency(l.p95)} · p99 ${latency(l.p99)}`)),
    top && h('p', { class: 'pole-line' }, h('strong', {}, segment(top)),
      ` takes ${percent(top.share.p99)} of the time of slow requests, and ${percent(top.share.p50)} of typical ones.`),
    (route.segments || []).length > 0 && shares(route),
    (route.findings || []).length === 0 && h('p', { class: 'soft' }, 'No known cause stands out here.'),
    (route.findings || []).map((f, i) => findingOf(f, route, i, act)));
}

function segment(s) { return `${s.segment}: ${s.service} ${s.operation}`; }

function shares(route) {
  const bar = (kind, share) => h('span', { class: 'track' }, h('span', { class: 'bar ' + kind, width: Math.min(100, share * 100) + '%' }));
  const rows = route.segments.slice(0, segmentsShown).map((s) => h('li', {},
    h('span', { class: 'name', title: segment(s) }, segment(s)),
    h('span', { class: 'tracks', 'aria-hidden': 'true' }, bar('slow', s.share.p99), bar('typical', s.share.p50)),
    h('span', { class: 'num' }, `${percent(s.share.p99)} · ${latency(s.critical_ms.p99)}`),
    h('span', { class: 'num soft' }, `${percent(s.share.p50)} · ${latency(s.critical_ms.p50)}`)));
  return h('div', { class: 'shares' },
    h('p', { class: 'head soft' }, h('span', {}, 'share of the critical path'),
      h('span', {}, h('i', { class: 'key slow' }), 'slow requests (p99)'), h('span', {}, h('i', { class: 'key typical' }), 'typical requests (p50)')),
    h('ul', {}, rows));
}

function findingOf(f, route, i, act) {
  const list = (kind, title, items) => (items || []).length > 0 && h('div', { class: kind },
    h('h5', {}, title), h('ul', {}, items.map((e) => h('li', {}, e))));
  return h('article', { class: 'finding', key: `${f.code} ${f.service} ${f.operation} ${i}` },
    h('h4', {}, h('span', { class: 'badge code' }, f.code), ' ', words(f.class), ' ',
      h('span', { class: 'badge ' + (verdicts[f.verdict] || 'quiet') }, `${f.verdict}, ${percent(f.confidence)} sure`)),
    h('p', {}, f.summary),
    h('div', { class: 'pair' }, list('for', 'What speaks for it', f.evidence), list('against', 'What speaks against it', f.counter_evidence)),
    (f.actions || []).map((a, n) => actionOf(f, a, n, route, act)));
}

function actionOf(finding, action, n, route, act) {
  const terms = [['benefit', action.benefit], ['cost', action.cost], ['risk', action.risk]].filter(([, v]) => v);
  return h('div', { class: 'action', key: `action ${action.kind} ${n}` },
    h('h5', {}, words(action.kind)),
    h('p', {}, action.summary),
    action.predicted_ms && forecast(action, route),
    action.widened && h('p', { class: 'soft' }, `Intervals widened ${action.widened.factor.toFixed(1)}x after ${action.widened.outcomes} outcomes of its kind.`),
    terms.length > 0 && h('dl', { class: 'terms' }, terms.map(([k, v]) => h('div', {}, h('dt', {}, k), h('dd', {}, v)))),
    action.change && h('details', { class: 'inner', key: 'change' }, h('summary', {}, 'the change of the policy'), policyChange(action.change)),
    action.change && startOf(finding, action, act));
}

// forecast sets what is predicted for the route beside what it does now.
function forecast(action, route) {
  const own = (action.effects || []).find((e) => e.service === route.service && e.operation === route.operation);
  const now = own ? own.before_ms : route.latency_ms || {};
  const qs = ['p50', 'p95', 'p99'];
  const range = (q) => own && own.interval_ms && own.interval_ms[q] ? `90 %: ${latency(own.interval_ms[q][0])} to ${latency(own.interval_ms[q][1])}` : undefined;
  return scroll(`forecast of ${action.kind} for ${route.service} ${route.operation}`, h('table', { class: 'small' },
    h('thead', {}, h('tr', {}, h('th', { class: 'text', scope: 'col' }, 'forecast'), qs.map((q) => h('th', { scope: 'col' }, q)))),
    h('tbody', {},
      h('tr', {}, h('th', { class: 'text', scope: 'row' }, 'now'), qs.map((q) => h('td', {}, latency(now[q])))),
      h('tr', {}, h('th', { class: 'text', scope: 'row' }, 'predicted'), qs.map((q) => h('td', { title: range(q) }, h('b', {}, latency(action.predicted_ms[q]))))),
      h('tr', { class: 'soft' }, h('th', { class: 'text', scope: 'row' }, 'change'), qs.map((q) => h('td', {}, change(action.predicted_ms[q], now[q])))))));
}

function startOf(finding, action, act) {
  const route = action.change.route;
  const name = `start ${route} ${finding.code} ${action.kind}`;
  const running = act.running(route);
  const how = [action.shed && `may refuse ${percent(action.shed)} of the calls`, action.turns && 'lets the arms take turns'].filter(Boolean);
  return h('p', { class: 'buttons', key: 'start' },
    h('button', {
      type: 'button', class: 'primary', disabled: Boolean(running) || act.busy(name), 'aria-label': `Start rollout of ${action.kind} on ${route}`,
      onclick: () => act.post(name, 'api/v1/rollouts', { route, advice: finding.code, kind: action.kind, reason: `${finding.code}, from the page` }),
    }, 'Start rollout'),
    running ? h('span', { class: 'soft' }, `${running} of route ${route} is under way`)
      : h('code', {}, `longpole rollout start --route ${route} --advice ${finding.code}`),
    how.length > 0 && h('span', { class: 'soft' }, ` The rollout ${how.join(' and ')}.`),
    act.fault(name));
}
