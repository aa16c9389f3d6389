// History: quantiles of a route over time, and of each segment of its critical path.

import { h } from './dom.js';
import { latency, measured, none } from './format.js';

const ranges = [['1h', 'last hour'], ['6h', 'last 6 hours'], ['24h', 'last day'], ['168h', 'last week']];
const lines = [['p50', 'typical'], ['p95', 'middle'], ['p99', 'slow']];
const wide = 520;
const high = 150;
const left = 58;
const low = 22;

// history describes what is chosen and its charts. data is an answer of api/v1/history, or what was wrong with it.
export function history(chosen, names, data, choose) {
  if (data.error) return h('p', { class: 'empty' }, data.error);
  const series = data.series || [];
  const whole = series.find((s) => !s.segment);
  const segments = series.filter((s) => s.segment && !s.endpoint).sort((a, b) => calls(b) - calls(a));
  return [
    h('p', { class: 'choices', key: 'choices' },
      select('route', chosen.route, names.map((n) => [n, n]), (v) => choose({ route: v })),
      select('time', chosen.range, ranges, (v) => choose({ range: v })),
      h('span', { class: 'key-line' }, lines.map(([q, kind]) => h('span', { key: q }, h('span', { class: `key ${kind}` }), q)))),
    series.length === 0 && h('p', { class: 'empty' }, 'Nothing was measured in that time.'),
    h('div', { class: 'charts', key: 'charts' }, whole && chart('the whole route', whole, data), segments.map((s) => chart(s.segment, s, data))),
  ];
}

function calls(s) { return (s.points || []).reduce((n, p) => n + p.calls, 0); }

function select(name, value, options, choose) {
  return h('label', { key: name }, `${name} `,
    h('select', { onchange: (e) => choose(e.target.value) }, options.map(([v, text]) => h('option', { key: v, value: v, selected: v === value }, text))));
}

// chart describes the quantiles of one series as lines, with their figures in words for those who cannot see them.
function chart(name, s, data) {
  const points = s.points || [];
  const from = Date.parse(data.from);
  const span = Math.max(Date.parse(data.to) - from, 1);
  const top = nice(Math.max(...points.map((p) => p.latency_ms.p99), 0));
  const x = (p) => left + (wide - left - 8) * Math.min(Math.max((Date.parse(p.at) - from) / span, 0), 1);
  const y = (v) => 8 + (high - low - 8) * (1 - v / top);
  const last = points[points.length - 1];
  const said = last ? lines.map(([q]) => `${q} ${measured(last.latency_ms[q])}`).join(', ') : 'no calls';
  return h('figure', { class: 'chart', key: `${s.route} ${name}` },
    h('figcaption', {}, h('b', {}, name), h('span', { class: 'soft' }, ` at last ${said}`)),
    h('svg', { viewBox: `0 0 ${wide} ${high}`, role: 'img', 'aria-label': `${name}: at last ${said}` },
      [0, 0.5, 1].map((part) => h('g', { key: `grid ${part}` },
        h('line', { class: 'grid', x1: left, x2: wide - 8, y1: y(top * part), y2: y(top * part) }),
        h('text', { x: left - 6, y: y(top * part) + 4, 'text-anchor': 'end' }, part === 0 ? '0' : latency(top * part)))),
      h('text', { key: 'from', x: left, y: high - 4 }, stamp(from, span)),
      h('text', { key: 'to', x: wide - 8, y: high - 4, 'text-anchor': 'end' }, stamp(from + span, span)),
      lines.map(([q, kind]) => h('path', { key: q, class: `line ${kind}`, d: path(points, (p) => x(p), (p) => y(p.latency_ms[q]), data.step_seconds) })),
      points.map((p) => h('rect', { key: p.at, class: 'spot', x: x(p) - 3, y: 0, width: 6, height: high - low },
        h('title', {}, `${stamp(Date.parse(p.at), span)}: ${p.calls} calls, ${lines.map(([q]) => `${q} ${measured(p.latency_ms[q])}`).join(', ')}`)))));
}

// path is the line through points; a gap of more than two steps is left open, and a point alone is a dot.
function path(points, x, y, step) {
  let d = '';
  points.forEach((p, i) => {
    const before = points[i - 1];
    const joined = before && Date.parse(p.at) - Date.parse(before.at) <= 2000 * step;
    d += `${joined ? 'L' : 'M'}${x(p).toFixed(1)} ${y(p).toFixed(1)}`;
    if (!joined) d += 'h0.01';
  });
  return d || null;
}

// nice is the next round figure that is not below v.
function nice(v) {
  if (!(v > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(v));
  return [1, 2, 5, 10].find((n) => n * power >= v) * power;
}

function stamp(ms, span) {
  const d = new Date(ms);
  if (Number.isNaN(d.getTime())) return none;
  return span > 86400e3 ? d.toLocaleString([], { weekday: 'short', hour: '2-digit', minute: '2-digit' }) : d.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}
