// The page reads the public API once a second while it is visible, and shows what it says.

import { h, show } from './dom.js';
import { clock } from './format.js';
import { history } from './history.js';
import { lab } from './lab.js';
import { objectives, switches } from './objectives.js';
import { pole } from './pole.js';
import { ended, rollouts } from './rollouts.js';
import { endpointTable, overview, routeTable } from './routes.js';

const everyMS = 1000;
const patienceMS = 5000;
const pastEveryMS = 10000;

const at = (id) => document.getElementById(id);

const state = { routes: [], findings: {}, rollouts: [], slos: [], killed: {}, lab: null, version: '' };
const past = { route: '', range: '1h', names: [], data: {} };
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
  at('lab-section').hidden = !state.lab;
  if (state.lab) show(at('lab'), lab(state.lab, state.findings, act));
  show(at('pole'), pole(state.findings, act));
  show(at('objectives'), objectives(state.slos));
  show(at('rollouts'), rollouts(state.rollouts, act));
  show(at('routes'), routeTable(state.routes));
  show(at('endpoints'), endpointTable(state.routes));
  show(at('history'), history(past, past.names, past.data, choose));
  show(at('switches'), switches(state.killed, state.routes, act));
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
    const [routes, findings, list, slos, killed] = await Promise.all(['routes', 'findings', 'rollouts', 'slos', 'killed'].map((p) => answer('api/v1/' + p)));
    Object.assign(state, { routes: routes.routes || [], version: routes.version, keepsHistory: routes.history, findings, rollouts: list.rollouts || [], slos: slos.slos || [], killed });
    state.lab = routes.lab ? await answer('api/v1/lab') : null;
    say('live', 'live', clock(Date.now()) + (findings.at ? `, diagnosis of ${clock(findings.at)}` : ''));
    render();
    await remember();
  } catch (e) {
    say('lost', `connection lost: ${e.message}`);
  } finally {
    reading = false;
  }
}

// remember reads the history of the chosen route, now and then.
let remembered = 0;
async function remember() {
  past.names = state.routes.map((r) => r.name);
  if (!past.names.includes(past.route)) past.route = past.names[0] || '';
  if (!state.keepsHistory) past.data = { error: 'No history is kept. Give the configuration a folder for it: state: {dir: FOLDER}' };
  if (!past.route || !state.keepsHistory || Date.now() - remembered < pastEveryMS) return;
  remembered = Date.now();
  try {
    past.data = await answer(`api/v1/history?whole=true&route=${encodeURIComponent(past.route)}&from=${past.range}`);
  } catch (e) {
    past.data = { error: e.message };
  }
  render();
}

function choose(what) {
  Object.assign(past, what, { data: {} });
  remembered = 0;
  remember();
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
