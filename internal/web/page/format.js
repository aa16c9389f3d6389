// How figures are written. A figure that is not known is a dash, never a zero.

export const none = '–';

const known = (v) => typeof v === 'number' && Number.isFinite(v);

// latency takes milliseconds.
export function latency(v) {
  if (!known(v)) return none;
  if (v > 0 && v < 0.9995) return (v * 1000).toFixed(0) + ' µs';
  if (v >= 10000) return (v / 1000).toFixed(1) + ' s';
  if (v >= 1000) return (v / 1000).toFixed(2) + ' s';
  return (v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v.toFixed(2)) + ' ms';
}

// measured is latency where 0 means that there were no calls.
export function measured(v) { return v ? latency(v) : none; }

// percent takes a share of 0..1.
export function percent(v) {
  if (!known(v)) return none;
  const p = v * 100;
  if (p > 0 && p < 0.1) return '< 0.1 %';
  return (p === 0 || p === 100 || p >= 10 ? p.toFixed(0) : p.toFixed(1)) + ' %';
}

// change is by how much a differs from b, with its sign.
export function change(a, b) {
  if (!known(a) || !known(b) || !a || !b) return none;
  const p = (a / b - 1) * 100;
  if (Math.abs(p) < 0.5) return '±0 %';
  return (p > 0 ? '+' : '−') + Math.abs(p).toFixed(0) + ' %';
}

export function count(v) { return known(v) ? v.toLocaleString('en') : none; }

export function rate(v) { return known(v) ? (v >= 100 ? v.toFixed(0) : v.toFixed(1)) : none; }

export function clock(t) { return new Date(t).toLocaleTimeString(); }

// words writes an identifier as text.
export function words(id) { return String(id).replaceAll('_', ' '); }

// plural is "1 call", "2 calls".
export function plural(n, noun) { return `${count(n)} ${noun}${n === 1 ? '' : 's'}`; }
