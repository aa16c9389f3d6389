// Objectives with their error budgets, and the switches for an emergency.

import { h } from './dom.js';
import { clock, count, latency, none, percent } from './format.js';
import { scroll } from './rollouts.js';

// objectives describes the table of objectives; they come with the least of their budget first.
export function objectives(list) {
  if (list.length === 0) {
    return h('p', { class: 'empty' }, 'No objectives yet. Promise something of a route in the configuration: slos: [{name: orders-there, route: orders, target: 99.9%}]');
  }
  return scroll('objectives', h('table', {},
    h('thead', {}, h('tr', {}, [['objective', 'text'], ['promised', 'text'], ['good'], ['budget left', 'text'], ['burn', 'text roomy'], ['alert', 'text'], ['used up'], ['mostly by', 'text roomy']]
      .map(([name, kind]) => h('th', { scope: 'col', class: kind }, name)))),
    h('tbody', {}, list.map((s) => h('tr', { key: s.name },
      h('th', { class: 'text', scope: 'row', title: s.description }, s.name, h('div', { class: 'soft' }, s.route)),
      h('td', { class: 'text' }, promised(s)),
      h('td', {}, s.calls > 0 ? precise(s.good) : none),
      h('td', { class: 'text' }, h('meter', { min: 0, max: 1, low: 0.1, value: Math.max(0, s.remaining).toFixed(3), 'aria-label': `budget left of ${s.name}` }),
        h('span', { class: s.remaining < 0 ? 'num bad' : 'num' }, ` ${(s.remaining * 100).toFixed(1)} %`)),
      h('td', { class: 'text soft roomy' }, burns(s)),
      h('td', { class: 'text' }, alert(s)),
      h('td', {}, s.remaining < 0 ? h('span', { class: 'bad' }, 'now') : s.exhausted ? when(s.exhausted) : none),
      h('td', { class: 'text soft roomy' }, by(s)))))));
}

// precise keeps the nines apart.
function precise(v) { return `${parseFloat((v * 100).toPrecision(6))} %`; }

function promised(s) {
  return `${precise(s.target)}${s.threshold_ms ? ` within ${latency(s.threshold_ms)}` : ''}, ${s.period}`;
}

function burns(s) {
  const seen = new Map();
  for (const b of s.burns || []) {
    if (b.severity !== 'page') continue;
    seen.set(b.long, b.long_burn);
  }
  return [...seen].map(([window, v]) => `${window} ${parseFloat(v.toPrecision(3))}`).join(', ') || none;
}

function alert(s) {
  const firing = (s.alerts || []).filter((a) => a.state === 'firing').map((a) => a.severity);
  if (firing.length === 0) return h('span', { class: 'soft' }, 'quiet');
  return h('span', { class: 'badge bad' }, h('span', { 'aria-hidden': 'true' }, '▲ '), firing.join(', '));
}

// when is a time of today by the clock, a later one by its day.
function when(t) {
  const d = new Date(t);
  return d - Date.now() < 86400e3 ? clock(t) : d.toLocaleDateString();
}

function by(s) {
  const first = (s.burned_by || [])[0];
  if (!first) return none;
  return `${percent(first.ratio)} ${[first.segment || 'unexplained', first.service, first.operation].filter(Boolean).join(' ')}`;
}

const parts = ['cache', 'limit', 'retry', 'hedge', 'breaker', 'eject', 'fallback', 'rollouts'];

// switches describes the kill switches of every route, and of each.
export function switches(killed, routes, act) {
  const off = (route) => [...((killed.killed || {})[route] || []), ...(route in (killed.no_rollouts || {}) ? ['rollouts'] : [])];
  const every = off('');
  const one = routes.filter((r) => off(r.name).length > 0).length;
  return [
    row('', 'every route', every, act),
    h('details', { class: 'inner', key: 'by route' }, h('summary', {}, `by route${one > 0 ? `: off on ${count(one)}` : ''}`),
      routes.map((r) => row(r.name, r.name, off(r.name), act))),
  ];
}

function row(route, name, off, act) {
  const id = `killed ${route}`;
  const toggle = (part) => {
    const is = off.includes(part);
    if (!window.confirm(`Switch ${part} ${is ? 'on again' : 'off'} on ${name} now?`)) return;
    act.post(id, 'api/v1/killed', { route, parts: is ? off.filter((p) => p !== part) : [...off, part], reason: 'by hand, from the page' });
  };
  return h('p', { class: 'switches', key: name, role: 'group', 'aria-label': `switches of ${name}` },
    h('span', { class: 'name' }, name),
    parts.map((part) => h('button', {
      type: 'button', key: part, class: off.includes(part) ? 'danger' : undefined, disabled: act.busy(id), 'aria-pressed': String(off.includes(part)),
      'aria-label': `${part} off on ${name}`, onclick: () => toggle(part),
    }, off.includes(part) ? `${part}: off` : part)),
    act.fault(id));
}
