// Parallel coordinates over the objectives; a range on an axis filters the whole page. Lower is better on every axis.
function drawParallel(place) {
  const keys = METRICS.map((metric) => metric.key);
  let axesKeys = DATA.objectives.filter((key) => keys.includes(key));
  for (const key of keys) if (axesKeys.length < 3 && !axesKeys.includes(key)) axesKeys.push(key);
  const trials = TRIALS.filter((trial) => trial.feasible && axesKeys.every((key) => trial.values[key] !== null));
  axesKeys = axesKeys.filter((key) => new Set(trials.map((trial) => trial.values[key])).size > 1);
  if (axesKeys.length < 2 || trials.length < 2) return false;
  let scales = [], xs = [], size = {}, kept = null, back = null, over = null, handles = [];
  drawnAtWidth(place, draw);

  function draw(width) {
    const height = 320, top = 52, bottom = height - 34, edge = width < 480 ? 34 : 64;
    size = {width, height, top, bottom};
    scales = axesKeys.map((key) => linearScale(spanOf(trials.map((t) => t.values[key]), 0.0), [bottom, top]));
    xs = axesKeys.map((_, i) => edge + i * (width - 2 * edge) / (axesKeys.length - 1));
    const svg = s("svg", {class: "chart parallel", width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `Parallel coordinates of ${trials.length} feasible trials over ${axesKeys.map((key) => METRIC[key].title).join(", ")}`});
    back = svg.appendChild(s("path", {class: "thread out"}));
    kept = svg.appendChild(s("g", {}));
    over = svg.appendChild(s("g", {}));
    handles = [];
    axesKeys.forEach((key, i) => svg.append(axis(key, i, svg)));
    svg.addEventListener("pointermove", (event) => {
      if (event.buttons || event.pointerType === "touch") return;
      const trial = lineAt(event, svg);
      state.hover(trial);
      if (trial) tooltip.show(trialCard(trial), event.clientX, event.clientY); else tooltip.hide();
    });
    svg.addEventListener("pointerleave", () => { state.hover(null); tooltip.hide(); });
    svg.addEventListener("click", (event) => { const trial = lineAt(event, svg); if (trial && !trial.dense) state.pin(trial); });
    place.replaceChildren(svg);
    refilter();
    redrawPins();
  }

  function thread(trial) {
    return axesKeys.map((key, i) => `${i ? "L" : "M"}${xs[i].toFixed(1)} ${scales[i](trial.values[key]).toFixed(1)}`).join("");
  }

  function axis(key, i, svg) {
    const metric = METRIC[key], x = xs[i], [low, high] = scales[i].domain, last = i === axesKeys.length - 1;
    const anchor = size.width < 480 ? (i === 0 ? "start" : last ? "end" : "middle") : "middle";
    const shift = anchor === "start" ? -28 : anchor === "end" ? 28 : 0;
    const narrow = (size.width - 60) / axesKeys.length;
    const group = s("g", {class: "axis", transform: `translate(${x} 0)`},
      s("line", {y1: size.top, y2: size.bottom, class: "base"}),
      s("text", {x: shift, y: 14, "text-anchor": anchor, class: "axis-title"}, s("title", {}, metric.meaning), shortened(metric.title, Math.max(6, Math.floor(narrow / 6.6)))),
      s("text", {x: shift, y: size.bottom + 24, "text-anchor": anchor, class: "end"}, metric.text(low)),
      s("text", {x: shift, y: 34, "text-anchor": anchor, class: "end"}, metric.text(high)));
    const band = group.appendChild(s("rect", {x: -7, width: 14, class: "brush", rx: 3}));
    const zone = group.appendChild(s("rect", {x: -14, width: 28, y: size.top - 8, height: size.bottom - size.top + 16, class: "zone", "data-axis": key}));
    const ends = ["high", "low"].map((which) => group.appendChild(handle(key, i, which)));
    handles.push({key, i, band, ends});
    drag(zone, key, i, svg);
    return group;
  }

  function handle(key, i, which) {
    const node = s("path", {class: "handle", d: which === "high" ? "M-9 0H9M-6 -6H6L9 0H-9z" : "M-9 0H9M-6 6H6L9 0H-9z", tabindex: 0, role: "slider",
      "aria-label": `${METRIC[key].title}: ${which === "high" ? "largest" : "smallest"} value kept`, "aria-orientation": "vertical", "data-handle": `${key}-${which}`});
    node.addEventListener("keydown", (event) => {
      const move = {ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10}[event.key];
      const [low, high] = scales[i].domain;
      if (event.key === "Home" || event.key === "End" || event.key === "Escape") { event.preventDefault(); state.setRange(key, -Infinity, Infinity); return; }
      if (!move) return;
      event.preventDefault();
      let [from, to] = state.range(key);
      const step = (high - low) / 50 * move;
      if (which === "high") to = clamp((to === Infinity ? high : to) + step, Math.max(low, from === -Infinity ? low : from), high);
      else from = clamp((from === -Infinity ? low : from) + step, low, Math.min(high, to === Infinity ? high : to));
      set(key, i, from, to);
    });
    return node;
  }

  function set(key, i, from, to) {
    const [low, high] = scales[i].domain, near = (high - low) * 1e-9;
    state.setRange(key, from <= low + near ? -Infinity : from, to >= high - near ? Infinity : to);
  }

  // A drag on an axis opens a range; a drag inside a range moves it; a click without a drag clears it.
  function drag(zone, key, i, svg) {
    let start = null;
    const value = (event) => {
      const box = svg.getBoundingClientRect();
      return scales[i].back(clamp(event.clientY - box.top, size.top, size.bottom));
    };
    zone.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      zone.setPointerCapture(event.pointerId);
      const at = value(event), [low, high] = scales[i].domain, [from, to] = state.range(key);
      const f = from === -Infinity ? low : from, t = to === Infinity ? high : to, reach = (high - low) * 0.03;
      const set = from !== -Infinity || to !== Infinity;
      const mode = set && Math.abs(at - t) < reach ? "high" : set && Math.abs(at - f) < reach ? "low" : set && at > f && at < t ? "move" : "new";
      start = {at, f, t, mode, y: event.clientY, moved: false};
    });
    zone.addEventListener("pointermove", (event) => {
      if (!start) return;
      if (Math.abs(event.clientY - start.y) > 3) start.moved = true;
      if (!start.moved) return;
      const now = value(event), [low, high] = scales[i].domain;
      if (start.mode === "high") set(key, i, start.f, Math.max(now, start.f));
      else if (start.mode === "low") set(key, i, Math.min(now, start.t), start.t);
      else if (start.mode === "move") {
        const by = clamp(now - start.at, low - start.f, high - start.t);
        set(key, i, start.f + by, start.t + by);
      } else set(key, i, Math.min(start.at, now), Math.max(start.at, now));
    });
    const end = () => {
      if (start && !start.moved && start.mode !== "new") state.setRange(key, -Infinity, Infinity);
      start = null;
    };
    zone.addEventListener("pointerup", end);
    zone.addEventListener("pointercancel", end);
    zone.addEventListener("click", (event) => event.stopPropagation());
  }

  function lineAt(event, svg) {
    const box = svg.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const i = xs.findLastIndex((at) => at <= x);
    if (i < 0 || i >= xs.length - 1 || y < size.top - 4 || y > size.bottom + 4) return null;
    const part = (x - xs[i]) / (xs[i + 1] - xs[i]);
    let best = null, least = 8;
    for (const trial of trials) {
      if (!trial.dense && !state.passes(trial)) continue;
      const at = scales[i](trial.values[axesKeys[i]]) * (1 - part) + scales[i + 1](trial.values[axesKeys[i + 1]]) * part;
      if (Math.abs(at - y) < least) { least = Math.abs(at - y); best = trial; }
    }
    return best;
  }

  function refilter() {
    const inside = [], outside = [];
    for (const trial of trials) (trial.dense || state.passes(trial) ? inside : outside).push(trial);
    back.setAttribute("d", outside.map(thread).join(""));
    const front = inside.filter((trial) => trial.front && !trial.dense), rest = inside.filter((trial) => !trial.front && !trial.dense);
    fill(kept,
      s("path", {class: `thread rest${rest.length > 300 ? " thin" : ""}`, d: rest.map(thread).join("")}),
      s("path", {class: `thread best${front.length > 300 ? " thin" : ""}`, d: front.map(thread).join("")}),
      DENSE && inside.includes(DENSE) ? s("path", {class: "thread dense", d: thread(DENSE)}) : null);
    for (const {key, i, band, ends} of handles) {
      const [low, high] = scales[i].domain, [from, to] = state.range(key);
      const f = clamp(from === -Infinity ? low : from, low, high), t = clamp(to === Infinity ? high : to, low, high);
      const y1 = scales[i](t), y2 = scales[i](f), set = from !== -Infinity || to !== Infinity;
      band.setAttribute("y", y1); band.setAttribute("height", Math.max(y2 - y1, 2));
      band.classList.toggle("set", set);
      [[ends[0], y1, t], [ends[1], y2, f]].forEach(([node, y, value]) => {
        node.setAttribute("transform", `translate(0 ${y})`);
        node.setAttribute("aria-valuemin", low); node.setAttribute("aria-valuemax", high); node.setAttribute("aria-valuenow", value);
        node.setAttribute("aria-valuetext", METRIC[key].text(value));
        node.classList.toggle("set", set);
      });
    }
  }

  function redrawPins() {
    const line = (trial, kind) => trials.includes(trial) ? s("path", {class: `thread ${kind}`, d: thread(trial)}) : null;
    fill(over, state.pins[1] && line(state.pins[1], "pin-1"), state.pins[0] && line(state.pins[0], "pin-0"), state.hovered && line(state.hovered, "hovered"));
  }

  const refilterSoon = eachFrame(() => { if (back) refilter(); });
  state.watch((what) => { if (what === "filter") refilterSoon(); else if (over) redrawPins(); });
  return true;
}
