// Rollouts: those under way first, each with its steps, its forecast beside what is measured, and the evidence.

import { h } from './dom.js';
import { change, clock, count, measured, none, percent, plural, words } from './format.js';

const endedShown = 10;
const changesShown = 20;

const phases = {
  pending: ['…', 'wait'], warmup: ['…', 'wait'], step: ['▶', 'wait'], paused: ['❚❚', 'wait'],
  promoted: ['✓', 'good'], rolled_back: ['✕', 'bad'], aborted: ['■', 'bad'], inconclusive: ['?', 'wait'],
};
const verdicts = { improved: ['✓', 'good'], no_worse: ['✓', 'good'], worse: ['✕', 'bad'], invalid: ['✕', 'bad'], inconclusive: ['…', 'quiet'] };

const unfinal = ['pending', 'warmup', 'step', 'paused'];

// ended reports whether nothing more will happen to r.
export function ended(r) { return !unfinal.includes(r.phase); }

// rollouts describes the list, newest first.
export function rollouts(list, act) {
  if (list.length === 0) {
    return h('p', { class: 'empty' }, 'No rollout yet. Start one from a finding above, or on the command line: longpole rollout start --route NAME --advice CODE');
  }
  const newest = list.slice().reverse();
  const past = newest.filter(ended);
  return [
    newest.filter((r) => !ended(r)).map((r) => h('div', { class: 'card', key: r.id }, heading(r), body(r, act))),
    past.slice(0, endedShown).map((r) => h('details', { class: 'card', key: r.id + ' ended' }, h('summary', {}, heading(r)), body(r, act))),
    past.length > endedShown && h('p', { class: 'note' }, `${plural(past.length - endedShown, 'older rollout')} in the API.`),
  ];
}

function badge([sign, kind], text) {
  return h('span', { class: 'badge ' + kind }, h('span', { 'aria-hidden': 'true' }, sign + ' '), text);
}

function heading(r) {
  const share = ended(r) ? '' : `, ${percent(r.weight)} of the calls`;
  return h('span', { class: 'heading' },
    h('span', { class: 'title' }, `${r.id} · ${r.route}`),
    ended(r) && h('span', { class: 'soft outcome' }, r.outcome || ''),
    badge(phases[r.phase] || ['?', 'quiet'], words(r.phase) + share));
}

function body(r, act) {
  const metrics = (r.judgement && r.judgement.metrics) || [];
  const sentence = (r.judgement && r.judgement.sentence) || 'Not judged yet.';
  return [
    h('p', { class: 'soft' }, `${r.goal === 'improve' ? `To improve ${r.target}` : 'To be no worse'} · started ${clock(r.started)}`,
      r.ended && ` · ended ${clock(r.ended)}`, r.reason && ` · ${r.reason}`),
    stepsOf(r),
    h('p', { class: 'verdict' }, ended(r) && r.outcome ? r.outcome : sentence),
    !ended(r) && r.outcome && h('p', { class: 'note' }, `Ending as ${words(r.ending || r.phase)}: ${r.outcome}`),
    r.plan && h('p', { class: 'soft' }, r.plan),
    notes(r, metrics).map((text) => h('p', { class: 'soft' }, text)),
    compared(r),
    metrics.length > 0 && judged(metrics),
    r.change && h('details', { class: 'inner', key: 'change' }, h('summary', {}, 'the change of the policy'), policyChange(r.change)),
    h('details', { class: 'inner', key: 'journal' }, h('summary', {}, 'journal'), journal(r)),
    buttons(r, act),
  ];
}

// notes are the price of a candidate beside what is paid, how often the judge is wrong on the route, and what became of the holdback.
function notes(r, metrics) {
  const list = [];
  if (r.shed) {
    const paid = metrics.find((m) => m.metric === 'shed' && !m.downstream);
    list.push(`Price: it may refuse ${percent(r.shed)} of the calls beyond what the baseline refuses`
      + (paid ? `; it refuses ${percent(paid.candidate)}, the baseline ${percent(paid.baseline)}.` : '.'));
  }
  if (r.observe) list.push(`Judged by the calls of route ${r.observe}, where the change shows.`);
  if (r.switchback_ms) list.push(`All calls go to one arm at a time, in turns of ${measured(r.switchback_ms)}; the first ${measured(r.washout_ms)} of each are not judged.`);
  const c = r.calibration;
  if (c) {
    list.push(`Calibration: of ${plural(c.runs, 'comparison')} of this route's policy with itself the judge called ${percent(c.false_alarm_ratio)} worse; `
      + `it looks at slices of ${10 * c.join} s at least${c.noisy ? ', and promotes nothing while that is so' : ''}.`);
  }
  if (r.held) {
    list.push(r.held === 'held' ? `Holdback: ${r.switchback_ms ? `for ${percent(r.holdback)} of the time all calls get` : `${percent(r.holdback)} of the calls keep`} the policy without this change; the review says whether it still helps.`
      : `Holdback: none: ${r.held}.`);
  }
  return list;
}

function stepsOf(r) {
  const done = (i) => r.phase === 'promoted' || i < r.step;
  const now = (i) => i === r.step && !ended(r);
  const items = [];
  for (let i = 1; i <= r.steps; i++) {
    const state = done(i) ? 'done' : now(i) ? 'now' : 'open';
    items.push(h('li', { class: state, 'aria-current': now(i) ? 'step' : undefined },
      state === 'done' && h('span', { 'aria-hidden': 'true' }, '✓ '), `step ${i}`, state === 'done' && h('span', { class: 'unseen' }, ' done'),
      now(i) && (r.phase === 'warmup' ? ', warm-up' : `, ${percent(r.weight)}`)));
  }
  items.push(h('li', { class: r.phase === 'promoted' ? 'done' : 'open' }, 'promoted'));
  return h('ol', { class: 'steps', 'aria-label': `step ${r.step} of ${r.steps}` }, items);
}

// compared sets the forecast beside what was measured.
function compared(r) {
  const qs = ['p50', 'p95', 'p99'];
  const row = (name, values, kind) => h('tr', { class: kind }, h('th', { class: 'text', scope: 'row' }, name), values.map((v) => h('td', {}, v)));
  const base = r.baseline_ms || {};
  const cand = r.measured_ms || {};
  const guess = r.predicted_ms;
  return scroll(`${r.id}: prediction and measurement`, h('table', { class: 'small' },
    h('thead', {}, h('tr', {}, h('th', { class: 'text', scope: 'col' }, 'latency'), qs.map((q) => h('th', { scope: 'col' }, q)))),
    h('tbody', {},
      row('baseline, measured', qs.map((q) => measured(base[q]))),
      row('candidate, predicted', qs.map((q) => (guess ? measured(guess[q]) : none))),
      row('candidate, measured', qs.map((q) => h('b', {}, measured(cand[q])))),
      row('measured against baseline', qs.map((q) => change(cand[q], base[q])), 'soft'),
      guess && row('measured against prediction', qs.map((q) => change(cand[q], guess[q])), 'soft'))));
}

function judged(metrics) {
  const value = (m, v) => (m.unit === 'ms' ? measured(v) : m.unit === 'ratio' ? percent(v) : v.toFixed(2) + ' a call');
  return scroll('metrics and evidence', h('table', { class: 'small metrics' },
    h('thead', {}, h('tr', {},
      h('th', { class: 'text', scope: 'col' }, 'metric'), h('th', { scope: 'col' }, 'baseline'), h('th', { scope: 'col' }, 'candidate'),
      h('th', { class: 'text', scope: 'col' }, 'verdict'),
      ['better', 'no worse', 'worse'].map((c) => h('th', { class: 'text', scope: 'col' }, `evidence: ${c}`)))),
    h('tbody', {}, metrics.map((m) => h('tr', { key: m.metric },
      h('th', { class: 'text', scope: 'row' }, m.metric),
      h('td', {}, value(m, m.baseline)), h('td', {}, value(m, m.candidate)),
      h('td', { class: 'text' }, badge(verdicts[m.verdict] || ['?', 'quiet'], words(m.verdict || 'not judged'))),
      [['better', m.improved], ['no worse', m.no_worse], ['worse', m.worse]].map(([c, e]) => h('td', { class: 'text' }, evidence(`${m.metric} ${c}`, e))))))));
}

// evidence is a meter that is full when the claim is accepted.
function evidence(label, e) {
  if (!e || !e.threshold) return none;
  const share = Math.min(1, Math.max(0, e.log10_e / e.threshold));
  return [h('meter', { min: 0, max: 1, value: share.toFixed(2), 'aria-label': label, title: `10^${e.log10_e.toFixed(1)} of 10^${e.threshold.toFixed(1)}` }),
    h('span', { class: 'num soft' }, ` ${(share * 100).toFixed(0)} %`)];
}

function journal(r) {
  const lines = r.journal || [];
  return h('ol', { class: 'journal' }, lines.map((e, i) => h('li', { key: i },
    h('time', { datetime: e.at }, clock(e.at)), ' ', h('span', { class: 'soft' }, words(e.phase)), ' ', e.text)));
}

function buttons(r, act) {
  const path = `api/v1/rollouts/${encodeURIComponent(r.id)}/`;
  const reason = { reason: 'by hand, from the page' };
  const button = (what, text, label, question, kind) => h('button', {
    type: 'button', key: what, class: kind, disabled: act.busy(path), 'aria-label': label,
    onclick: () => (!question || window.confirm(question)) && act.post(path, path + what, reason),
  }, text);
  const paused = r.phase === 'paused';
  if (ended(r) && r.phase !== 'promoted') return null;
  return h('p', { class: 'buttons', key: 'buttons' },
    r.phase === 'promoted' && button('undo', 'Undo', `Undo ${r.id}`, `Take the change of ${r.id} back from the policy of ${r.route} now?`, 'danger'),
    r.held === 'held' && button('release', 'End holdback', `End the holdback of ${r.id}`, `Give the calls that keep the policy of ${r.route} without ${r.id} to the policy in force?`),
    !ended(r) && !paused && button('promote', 'Promote now', `Promote now: ${r.id}`, `Make the candidate of ${r.id} the policy of ${r.route} now, whatever the evidence?`),
    !ended(r) && !paused && button('pause', 'Pause', `Pause ${r.id}`),
    paused && button('resume', 'Resume', `Resume ${r.id}`, '', 'primary'),
    !ended(r) && button('abort', 'Abort', `Abort ${r.id}`, '', 'danger'),
    act.fault(path));
}

// scroll lets a wide table move in its own place, also by keyboard.
export function scroll(label, table) { return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': label }, table); }

// policyChange lists the settings that differ.
export function policyChange(c) {
  const from = flat(c.from);
  const to = flat(c.to);
  const names = [...new Set([...Object.keys(from), ...Object.keys(to)])].filter((n) => from[n] !== to[n]).sort();
  if (names.length === 0) return h('p', { class: 'soft' }, 'No setting differs.');
  return [h('ul', { class: 'diff' }, names.slice(0, changesShown).map((n) => h('li', {}, h('code', {}, `${n}: ${from[n] ?? 'not set'} → ${to[n] ?? 'not set'}`)))),
    names.length > changesShown && h('p', { class: 'soft' }, `and ${count(names.length - changesShown)} more`)];
}

// flat is a nested value as dotted names and texts; "on" for a part that has no settings.
function flat(v, name = '', into = {}) {
  if (v === null || typeof v !== 'object' || Array.isArray(v)) {
    if (name) into[name] = Array.isArray(v) ? v.join(', ') : String(v);
    return into;
  }
  if (name && Object.keys(v).length === 0) into[name] = 'on';
  for (const [k, inner] of Object.entries(v)) flat(inner, name ? `${name}.${k}` : k, into);
  return into;
}
