// The system that the lab runs: its faults as switches, and what is named while they are on.

import { h } from './dom.js';
import { percent } from './format.js';

// lab describes the switches of the faults, with the newest findings beside them.
export function lab(status, findings, act) {
  return [
    h('p', {}, h('b', {}, status.scenario), ': ', status.about),
    h('div', { class: 'beside' },
      h('div', {}, h('h3', {}, 'Faults'),
        status.faults.length === 0 && h('p', { class: 'soft' }, 'There is none to switch: what is wrong is the design.'),
        status.faults.map((f) => toggle(f, act))),
      h('div', {}, h('h3', {}, 'Named now'), named(findings))),
  ];
}

function toggle(f, act) {
  const id = `lab ${f.name}`;
  return h('p', { class: 'switches', key: f.name },
    h('button', {
      type: 'button', role: 'switch', 'aria-checked': String(f.on), class: f.on ? 'danger' : undefined, disabled: act.busy(id), 'aria-label': `fault ${f.name}`,
      onclick: () => act.post(id, `api/v1/lab/faults/${encodeURIComponent(f.name)}`, { on: !f.on }),
    }, f.on ? 'on' : 'off'),
    h('b', {}, f.name), h('span', { class: 'soft' }, f.what), act.fault(id));
}

// named is what the newest diagnosis says, each finding once.
function named(findings) {
  const seen = new Map();
  for (const route of findings.routes || []) {
    for (const f of route.findings || []) {
      const key = `${f.code} ${f.service}`;
      if (!seen.has(key)) seen.set(key, f);
    }
  }
  if (seen.size === 0) return h('p', { class: 'soft' }, findings.at ? 'Nothing is named.' : 'No diagnosis yet.');
  return h('ol', { class: 'named' }, [...seen].slice(0, 5).map(([key, f]) => h('li', { key }, h('b', {}, `${f.code} ${f.class}`), ` ${f.service}, ${percent(f.share_p99)} of the slow calls' time`)));
}
