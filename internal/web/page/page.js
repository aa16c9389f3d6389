// The page reads the public API once a second while it is visible, and shows what it says.

import { h, show } from './dom.js';
import { clock } from './format.js';
import { pole } from './pole.js';
import { ended, rollouts } from './rollouts.js';
import { endpointTable, overview, routeTable } from './routes.js';

const everyMS = 1000;
const patienceMS = 5000;

const at = (id) => document.getElementById(id);

const state = { routes: [], findings: {}, rollouts: [], version: '' };
const busy = new Set(); // names of what was asked for and not answered yet
const faults = new Map(); // name -> why it was refused

// act is what the views may do.
const act = {
  busy: (name) => busy.has(name),
  fault: (name) => h('span', { class: 'bad', role: 'alert', key: 'fault' }, faults.get(name) || ''),
  running: (route) => state.rollouts.find((r) => r.route === route && !ended(r))?.id,
  post,
};

function render() {
  show(at('overview'), overview(state.routes, state.rollouts));
  show(at('pole'), pole(state.findings, act));
  show(at('rollouts'), rollouts(state.rollouts, act));
  show(at('routes'), routeTable(state.routes));
  show(at('endpoints'), endpointTable(state.routes));
  show(at('version'), state.version && `Longpole ${state.version}`);
}

async function answer(path, options) {
  const response = await fetch(path, { ...options, signal: AbortSignal.timeout(patienceMS) });
  const data = await response.json().catch(() => null);
  if (!response.ok || !data) throw new Error((data && data.error) || `${path} answered ${response.status}`);
  return data;
}

async function post(name, path, body) {
  busy.add(name);
  faults.delete(name);
  render();
  try {
    await answer(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
  } catch (e) {
    faults.set(name, e.message);
  }
  busy.delete(name);
  render();
  await refresh();
}

let reading = false;
async function refresh() {
  if (reading) return;
  reading = true;
  try {
    const [routes, findings, list] = await Promise.all(['routes', 'findings', 'rollouts'].map((p) => answer('api/v1/' + p)));
    Object.assign(state, { routes: routes.routes || [], version: routes.version, findings, rollouts: list.rollouts || [] });
    say('live', 'live', clock(Date.now()) + (findings.at ? `, diagnosis of ${clock(findings.at)}` : ''));
    render();
  } catch (e) {
    say('lost', `connection lost: ${e.message}`);
  } finally {
    reading = false;
  }
}

// say changes the status line; its words only when they differ, since they are read aloud.
function say(kind, words, when) {
  at('live').className = kind;
  show(at('live'), words);
  if (when) show(at('when'), when);
}

for (const code of document.querySelectorAll('.cli code')) code.textContent = code.textContent.replace('$ADMIN', location.origin);
refresh();
setInterval(() => { if (!document.hidden) refresh(); }, everyMS);
document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
