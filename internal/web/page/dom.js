// A view is a function from data to a description of elements. show() brings the elements there in line with it and
// leaves alone what is the same, so that focus, selection and a click under way survive each refresh. Text becomes text
// nodes only: names come from traces, and traces come from anywhere.

// h describes an element. Children may be nested lists; null, undefined and false are left out. The property key keeps
// an element with its thing when the order changes.
export function h(tag, props, ...children) {
  const list = children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false);
  return { tag, props: props || {}, children: list.map((c) => (typeof c === 'object' ? c : String(c))) };
}

// show makes what list describes the content of parent.
export function show(parent, ...list) {
  align(parent, h('', null, list).children);
}

const svg = 'http://www.w3.org/2000/svg';

const shown = new WeakMap(); // element -> the properties it was given last

function align(parent, list) {
  const wanted = new Set(list.map((tree) => tree.props?.key));
  const keyed = new Map();
  for (const node of [...parent.childNodes]) {
    const key = keyOf(node);
    if (key === undefined) continue;
    if (wanted.has(key)) keyed.set(key, node);
    else node.remove();
  }
  let at = parent.firstChild;
  for (const tree of list) {
    const node = find(keyed, at, tree) || make(tree, parent);
    if (node.parentNode === parent && keyOf(node) === undefined) {
      while (at !== node) at = drop(at); // what stands between is gone from the description
    }
    update(node, tree);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  while (at) at = drop(at);
}

function keyOf(node) { return shown.get(node)?.key; }

function drop(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

// find is the element that stands for tree already: the one with its key, else the next of its kind without a key.
function find(keyed, at, tree) {
  if (tree.props?.key !== undefined) {
    const node = keyed.get(tree.props.key);
    return node && fits(node, tree) ? node : null;
  }
  for (let node = at; node; node = node.nextSibling) {
    if (keyOf(node) === undefined && fits(node, tree)) return node;
    if (keyOf(node) !== undefined) return null;
  }
  return null;
}

function fits(node, tree) {
  return typeof tree === 'string' ? node.nodeType === Node.TEXT_NODE : node.localName === tree.tag;
}

// drawn are the elements of SVG that views use; title is one only within a drawing.
const drawn = new Set(['svg', 'g', 'line', 'path', 'rect', 'text']);

function make(tree, parent) {
  if (typeof tree === 'string') return document.createTextNode(tree);
  const node = drawn.has(tree.tag) || parent?.namespaceURI === svg ? document.createElementNS(svg, tree.tag) : document.createElement(tree.tag);
  if (tree.props.open) node.open = true; // from then on the reader opens and closes it
  return node;
}

function update(node, tree) {
  if (typeof tree === 'string') {
    if (node.data !== tree) node.data = tree;
    return;
  }
  const before = shown.get(node) || {};
  for (const name of new Set([...Object.keys(before), ...Object.keys(tree.props)])) {
    if (name !== 'key' && name !== 'open' && before[name] !== tree.props[name]) set(node, name, tree.props[name]);
  }
  shown.set(node, tree.props);
  align(node, tree.children);
}

// set gives node one property. width is set by itself, since the content security policy forbids style attributes.
function set(node, name, value) {
  if (name === 'width' && node.namespaceURI !== svg) node.style.width = value;
  else if (name.startsWith('on') || name === 'disabled' || name === 'selected') node[name] = value ?? null;
  else if (value === undefined || value === null || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? '' : value);
}
