// Elements without markup: text of users only ever becomes a text node or an attribute.
const SVG = "http://www.w3.org/2000/svg";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

function h(tag, attributes, ...children) {
  return build(document.createElement(tag), attributes, children);
}

function s(tag, attributes, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

// Sets what an element holds; nothing stands for no child.
function fill(place, ...children) {
  place.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

function byId(id) {
  return document.getElementById(id);
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

// Runs at most once a frame, with the last arguments.
function eachFrame(act) {
  let waiting = false, last;
  return (...given) => {
    last = given;
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; act(...last); });
  };
}

// Draws now and whenever the width of the place changes; drawing may change the height.
function drawnAtWidth(place, draw) {
  let width = 0;
  const redraw = (forced) => {
    const now = Math.floor(place.clientWidth);
    if (now > 0 && (forced || now !== width)) { width = now; draw(width); }
  };
  new ResizeObserver(eachFrame(() => redraw(false))).observe(place);
  redraw(true);
  return () => redraw(true);
}

// Draws when the place comes near the window, or when the page is printed: what nobody looks at costs nothing.
function whenNear(place, height, draw) {
  let waiting = true;
  place.style.minHeight = `${height}px`;
  const start = () => {
    if (!waiting) return;
    waiting = false;
    watcher.disconnect();
    draw();
    place.style.minHeight = "";
  };
  const watcher = new IntersectionObserver((found) => { if (found.some((one) => one.isIntersecting)) start(); }, {rootMargin: "700px"});
  watcher.observe(place);
  window.addEventListener("beforeprint", start);
}

function shortened(text, limit) {
  const letters = Array.from(text);
  if (letters.length <= limit) return text;
  const head = Math.floor((limit - 1) * 2 / 3);
  return letters.slice(0, head).join("") + "…" + letters.slice(letters.length - (limit - 1 - head)).join("");
}

const announce = (() => {
  let place = null;
  return (text) => {
    place = place || document.body.appendChild(h("div", {class: "spoken", "aria-live": "polite", role: "status"}));
    place.textContent = text;
  };
})();
