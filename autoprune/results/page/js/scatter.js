// The front: any two metrics, colour a third, size a fourth; what a filter refuses fades, what a click takes is pinned.
const SHADES = 9;

function drawScatter(place, controls, legend) {
  if (!METRICS.length) return;
  const keys = METRICS.map((metric) => metric.key);
  const goals = DATA.objectives.filter((key) => keys.includes(key));
  const preferred = (key) => goals.includes(key) ? key : null;
  const yKey = preferred("accuracy_drop") || goals[1] || keys[1] || keys[0];
  const xKey = preferred("latency_ms") || goals.find((key) => key !== yKey) || keys.find((key) => key !== yKey) || keys[0];
  const shown = {x: xKey, y: yKey, color: "kind", size: "", infeasible: true, baselines: true};
  const choose = (name, label, options) => h("label", {class: "choose"}, h("span", {}, label),
    h("select", {"data-axis": name, on: {change: (event) => { shown[name] = event.target.value; redraw(); }}},
      options.map(([value, text]) => h("option", {value, selected: shown[name] === value}, text))));
  const metricOptions = METRICS.map((metric) => [metric.key, metric.title]);
  const tick = (name, label) => h("label", {class: "tick-box"},
    h("input", {type: "checkbox", checked: shown[name], on: {change: (event) => { shown[name] = event.target.checked; redraw(); }}}), label);
  const refused = TRIALS.some((trial) => !trial.feasible && !trial.dense), lines = baselineLines();
  fill(controls,
    choose("x", "Across", metricOptions), choose("y", "Up", metricOptions),
    choose("color", "Colour", [["kind", "kind of point"], ["origin", "who proposed it"], ...metricOptions]),
    choose("size", "Size", [["", "all alike"], ...metricOptions]),
    refused ? tick("infeasible", "infeasible") : null, lines.length ? tick("baselines", "baselines") : null);
  let points = [], nodes = new Map(), overlay = null, frontPath = null, scaleX = null, scaleY = null, svgNode = null;
  const redraw = drawnAtWidth(place, draw);

  function draw(width) {
    const height = clamp(width * 0.66, 320, 500);
    const visible = TRIALS.filter((t) => t.values[shown.x] !== null && t.values[shown.y] !== null && (t.feasible || t.dense || shown.infeasible));
    // Infeasible points must not squeeze the feasible ones: they may widen the axes by two thirds, not more.
    const box = boxOf(visible);
    const labels = linearScale(box.y, [height - 44, 28]).ticks(6).map((v) => axisNumber(shown.y, v));
    const frame = {left: clamp(Math.max(...labels.map((t) => textWidth(t))) + 14, 40, 110), right: width - 16, top: 30, bottom: height - 44};
    scaleX = linearScale(box.x, [frame.left, frame.right]);
    scaleY = linearScale(box.y, [frame.bottom, frame.top]);
    const inside = visible.filter((t) => within(t.values[shown.x], box.x) && within(t.values[shown.y], box.y));
    const beyond = visible.length - inside.length;
    const svg = s("svg", {class: "chart scatter", width, height, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "group",
      "aria-roledescription": "scatter plot", "aria-label": `${METRIC[shown.y].title} over ${METRIC[shown.x].title}, ${inside.length} trials. Arrow keys move from point to point, Enter pins.`});
    svg.append(axes(scaleX, scaleY, scaleX.ticks(clamp(Math.floor(width / 95), 2, 8)), scaleY.ticks(6), axisOf(shown.x), axisOf(shown.y), frame));
    svg.append(limitLines(box, frame));
    if (shown.baselines) svg.append(drawBaselines(lines, box, width));
    frontPath = svg.appendChild(s("path", {class: "front-line"}));
    const layers = ["infeasible", "dominated", "front", "dense"].map((kind) => svg.appendChild(s("g", {class: `points-${kind}`})));
    nodes = new Map();
    points = inside.map((trial) => ({trial, px: scaleX(trial.values[shown.x]), py: scaleY(trial.values[shown.y])}));
    const colors = colorScale(inside), sizes = sizeScale(inside);
    for (const point of points) {
      const {trial} = point, kind = kindOf(trial), group = layers[["infeasible", "dominated", "front", "dense"].indexOf(kind)];
      const radius = sizes(trial) * (kind === "front" ? 1.15 : 1);
      const mark = kind === "dense" ? "diamond" : kind === "infeasible" ? "cross" : kind === "front" ? "circle" : "ring";
      if (kind === "front" || kind === "dense") group.append(errorBars(trial, point));
      const node = s("path", {d: MARKS[mark](kind === "dense" ? 5.5 : radius), transform: `translate(${point.px.toFixed(1)} ${point.py.toFixed(1)})`,
        class: `mark ${colors(trial, kind, mark)}`, "data-number": trial.number});
      nodes.set(trial, node);
      group.append(node);
    }
    svg.append(pickLabels(frame));
    overlay = svg.appendChild(s("g", {class: "pins"}));
    listen(svg);
    svgNode = svg;
    place.replaceChildren(svg);
    drawLegend(inside, beyond);
    refilter();
    redrawPins();
  }

  function boxOf(visible) {
    const good = visible.filter((t) => t.feasible || t.dense), base = good.length > 1 ? good : visible;
    const limit = (key) => {
      const core = spanOf([...base.map((t) => t.values[key])], 0.05), all = spanOf(visible.map((t) => t.values[key]), 0.05);
      if (base === visible) return core;
      const room = (core[1] - core[0]) * 0.66, bound = DATA.limits[key] ?? -Infinity;
      return [Math.max(all[0], core[0] - room), Math.min(all[1], Math.max(core[1] + room, bound * 1.06))];
    };
    return {x: limit(shown.x), y: limit(shown.y)};
  }

  function limitLines(box, frame) {
    const out = s("g", {class: "limits"});
    const {x, y} = shown, [lx, ly] = [DATA.limits[x], DATA.limits[y]];
    if (lx !== undefined && within(lx, box.x)) out.append(
      s("line", {x1: scaleX(lx), x2: scaleX(lx), y1: frame.top, y2: frame.bottom}),
      s("text", {x: scaleX(lx) - 5, y: frame.top + 9, "text-anchor": "end"}, "constraint"));
    if (ly !== undefined && within(ly, box.y)) out.append(
      s("line", {x1: frame.left, x2: frame.right, y1: scaleY(ly), y2: scaleY(ly)}),
      s("text", {x: frame.right - 2, y: scaleY(ly) - 5, "text-anchor": "end"}, "constraint"));
    return out;
  }

  function drawBaselines(all, box, width) {
    return s("g", {class: "baselines"}, all.map(({origin, trials}, i) => {
      const inside = trials.filter((t) => t.values[shown.x] !== null && t.values[shown.y] !== null &&
        within(t.values[shown.x], box.x) && within(t.values[shown.y], box.y)).sort((a, b) => a.values[shown.x] - b.values[shown.x]);
      if (!inside.length) return null;
      const path = inside.map((t, k) => `${k ? "L" : "M"}${scaleX(t.values[shown.x]).toFixed(1)} ${scaleY(t.values[shown.y]).toFixed(1)}`).join("");
      return s("g", {}, s("path", {d: path, class: `baseline dash-${i % 5}`}), inside.map((t) =>
        s("path", {d: MARKS[MARK_NAMES[(i + 1) % 4]](2.6), transform: `translate(${scaleX(t.values[shown.x])} ${scaleY(t.values[shown.y])})`, class: "baseline-mark"})));
    }));
  }

  function errorBars(trial, point) {
    const spread = latencyInterval(trial), out = s("g", {class: "bar"});
    if (!spread || spread[1] <= spread[0]) return out;
    if (shown.x === "latency_ms") out.append(s("line", {x1: scaleX(spread[0]), x2: scaleX(spread[1]), y1: point.py, y2: point.py}));
    if (shown.y === "latency_ms") out.append(s("line", {x1: point.px, x2: point.px, y1: scaleY(spread[0]), y2: scaleY(spread[1])}));
    return out;
  }

  function pickLabels(frame) {
    const named = new Map();
    for (const [title, at] of DATA.picks) named.set(at, [...(named.get(at) || []), title]);
    const labels = [...named].map(([at, titles]) => [points.find((p) => p.trial.index === at), titles.join(", "), 16]);
    labels.push([points.find((p) => p.trial.dense), "dense", -9]);
    const there = labels.filter(([point]) => point);
    const taken = there.map(([{px, py}]) => ({left: px - 8, right: px + 8, y: py - 13}));  // where the letter of a pin stands
    return s("g", {class: "labels"}, there.map(([point, text, below]) => {
      const [x, y, toLeft] = freePlace(point, textWidth(text, 12), below, frame, taken);
      return s("text", {x, y, "text-anchor": toLeft ? "end" : "start"}, text);
    }));
  }

  // Right or left of a point and below or above it, the first place inside the frame that no other label has.
  function freePlace(point, width, below, frame, taken) {
    const places = [[1, below], [-1, below], [1, 7 - below], [-1, 7 - below]].map(([side, dy]) => {
      const x = point.px + 10 * side, y = point.py + dy;
      return {x, y, toLeft: side < 0, left: side < 0 ? x - width : x, right: side < 0 ? x : x + width};
    });
    const clear = (at) => at.left >= frame.left && at.right <= frame.right && at.y <= frame.bottom - 4 &&
      taken.every((other) => at.right < other.left || at.left > other.right || Math.abs(at.y - other.y) > 13);
    const best = places.find(clear) || places.find((at) => at.left >= frame.left && at.right <= frame.right) || places[0];
    taken.push(best);
    return [best.x, best.y, best.toLeft];
  }

  function colorScale(inside) {
    const key = shown.color;
    if (key === "kind") return (trial, kind) => `kind-${kind}`;
    const open = (mark) => mark === "ring" || mark === "cross" ? "open" : "fill";
    if (key === "origin") return (trial, kind, mark) => kind === "dense" || kind === "infeasible" ? `kind-${kind}` : `${open(mark)}-${DATA.origins.indexOf(trial.origin) % 8}`;
    const [low, high] = spanOf(inside.map((t) => t.values[key]), 0);
    return (trial, kind, mark) => kind === "dense" || kind === "infeasible" ? `kind-${kind}` : trial.values[key] === null ? "kind-dominated" :
      `${open(mark)}-q${clamp(Math.floor((trial.values[key] - low) / (high - low || 1) * SHADES), 0, SHADES - 1)}`;
  }

  function sizeScale(inside) {
    const plainSize = inside.length > 600 ? 2.6 : inside.length > 150 ? 3.2 : 4;
    if (!shown.size) return () => plainSize;
    const [low, high] = spanOf(inside.map((t) => t.values[shown.size]), 0);
    return (trial) => trial.values[shown.size] === null ? plainSize : 2.2 + 6 * Math.sqrt((trial.values[shown.size] - low) / (high - low || 1));
  }

  function drawLegend(inside, beyond) {
    const kinds = ["front", "dominated", "infeasible", "dense"].map((kind) => [kind, inside.filter((t) => kindOf(t) === kind).length]).filter(([, n]) => n);
    const marks = {front: "circle", dominated: "ring", infeasible: "cross", dense: "diamond"};
    const icon = (d, cls) => s("svg", {width: 18, height: 14, "aria-hidden": "true"}, s("path", {d, class: cls, transform: "translate(9 7)"}));
    const open = (kind) => kind === "dominated" || kind === "infeasible" ? "open" : "fill";
    const items = kinds.map(([kind, n]) => {
      const look = shown.color === "kind" || kind === "dense" || kind === "infeasible" ? `mark kind-${kind}` : `mark ${open(kind)}-muted`;
      return h("li", {}, icon(MARKS[marks[kind]](4), look), kind === "dense" ? kind : `${kind} (${n})`);
    });
    if (shown.baselines) lines.forEach(({origin}, i) => items.push(h("li", {},
      s("svg", {width: 26, height: 14, "aria-hidden": "true"}, s("path", {d: "M1 7H25", class: `baseline dash-${i % 5}`}), s("path", {d: MARKS[MARK_NAMES[(i + 1) % 4]](2.6), transform: "translate(13 7)", class: "baseline-mark"})), shortened(origin, 28))));
    if (shown.color === "origin") DATA.origins.forEach((origin, i) => items.push(h("li", {}, icon(MARKS.circle(4), `mark fill-${i % 8}`), shortened(origin, 28))));
    else if (shown.color !== "kind") {
      const [low, high] = spanOf(inside.map((t) => t.values[shown.color]), 0), metric = METRIC[shown.color];
      items.push(h("li", {class: "ramp"}, metric.text(low), s("svg", {width: 108, height: 12, "aria-hidden": "true"},
        Array.from({length: SHADES}, (_, i) => s("rect", {x: i * 12, width: 12, height: 12, class: `fill-q${i}`}))), metric.text(high), ` ${metric.title}`));
    }
    if (shown.size) items.push(h("li", {class: "aside"}, `larger: more ${METRIC[shown.size].title}`));
    if (beyond) items.push(h("li", {class: "aside"}, `${beyond} infeasible beyond the axes`));
    fill(legend, items);
  }

  function refilter() {
    for (const [trial, node] of nodes) node.classList.toggle("out", !trial.dense && !state.passes(trial));
    const kept = points.filter(({trial}) => (trial.feasible || trial.dense) && (trial.dense ? trial.feasible : state.passes(trial)))
      .sort((a, b) => a.trial.values[shown.x] - b.trial.values[shown.x] || a.trial.values[shown.y] - b.trial.values[shown.y]);
    let least = Infinity, path = "";
    for (const point of kept) {
      if (point.trial.values[shown.y] >= least) continue;
      least = point.trial.values[shown.y];
      path += path ? `H${point.px.toFixed(1)}V${point.py.toFixed(1)}` : `M${point.px.toFixed(1)} ${point.py.toFixed(1)}`;
    }
    frontPath.setAttribute("d", path);
  }

  function redrawPins() {
    if (!overlay) return;
    overlay.replaceChildren();
    state.pins.forEach((trial, i) => {
      const point = trial && points.find((p) => p.trial === trial);
      if (!point) return;
      overlay.append(s("circle", {cx: point.px, cy: point.py, r: 9, class: `pin pin-${i}`}),
        s("text", {x: point.px, y: point.py - 13, "text-anchor": "middle", class: `pin-name pin-${i}`}, "AB"[i]));
    });
    const over = state.hovered && points.find((p) => p.trial === state.hovered);
    if (over) overlay.append(s("circle", {cx: over.px, cy: over.py, r: 8, class: "halo"}));
  }

  function listen(svg) {
    let at = -1;
    const ordered = () => points.filter(({trial}) => trial.dense || state.passes(trial)).sort((a, b) => a.px - b.px || a.py - b.py);
    const show = (point, spoken) => {
      state.hover(point ? point.trial : null);
      if (!point) { tooltip.hide(); return; }
      const box = svg.getBoundingClientRect();
      tooltip.show(trialCard(point.trial), box.left + point.px, box.top + point.py);
      if (spoken) announce(trialSentence(point.trial));
    };
    const find = (event) => {
      const box = svg.getBoundingClientRect(), reach = event.pointerType === "touch" ? 30 : 20;
      return nearest(points.filter(({trial}) => trial.dense || state.passes(trial)), event.clientX - box.left, event.clientY - box.top, reach);
    };
    svg.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") show(find(event), false); });
    svg.addEventListener("pointerleave", () => show(null, false));
    svg.addEventListener("click", (event) => {
      const point = find(event);
      if (point && !point.trial.dense) state.pin(point.trial);
      if (point) show(point, false);
    });
    svg.addEventListener("keydown", (event) => {
      const list = ordered(), step = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1}[event.key];
      if (event.key === "Escape") { show(null, false); return; }
      if ((event.key === "Enter" || event.key === " ") && list[at]) {
        event.preventDefault();
        if (!list[at].trial.dense) { state.pin(list[at].trial); announce(`${trialName(list[at].trial)} ${state.pinned(list[at].trial) >= 0 ? "pinned" : "no longer pinned"}`); }
      }
      if (event.key === "Home") at = 1; else if (event.key === "End") at = list.length - 2;
      if (!step && event.key !== "Home" && event.key !== "End") return;
      event.preventDefault();
      at = clamp(at + (step || (event.key === "Home" ? -1 : 1)), 0, list.length - 1);
      if (list[at]) show(list[at], true);
    });
    svg.addEventListener("blur", () => show(null, false));
  }

  const refilterSoon = eachFrame(() => { if (frontPath) refilter(); });
  state.watch((what) => {
    if (what === "filter") refilterSoon();
    else redrawPins();
  });
}

function kindOf(trial) {
  if (trial.dense) return "dense";
  return !trial.feasible ? "infeasible" : trial.front ? "front" : "dominated";
}

function within(value, [low, high]) {
  return value >= low && value <= high;
}

// Trials that one rule proposed for the whole network: all that are neither the dense model nor the sampler's.
function baselineLines() {
  const rules = DATA.origins.filter((origin) => origin !== "dense" && origin !== DATA.sampler);
  return rules.map((origin) => ({origin, trials: TRIALS.filter((trial) => trial.origin === origin)})).filter(({trials}) => trials.length > 1);
}

function axisOf(key) {
  const metric = METRIC[key];
  if (metric.drop) return {title: metric.title + (DATA.percent ? " (pp)" : ""), unit: "", names: [], drop: true};
  return {title: metric.title, unit: metric.unit, names: []};
}

function axisNumber(key, value) {
  return axisText(axisOf(key), value);
}

function trialCard(trial) {
  const rows = METRICS.filter((metric) => trial.values[metric.key] !== null).map((metric) => {
    const aside = detailText(trial, metric.key);
    return h("tr", {}, h("th", {}, metric.title), h("td", {}, metric.text(trial.values[metric.key])), h("td", {class: "aside"}, aside));
  });
  const scores = h("tr", {}, h("th", {}, "score"), h("td", {}, scoreText(trial.score)), h("td", {class: "aside"}, trial.test === null ? "" : `test ${scoreText(trial.test)}`));
  const pinned = state.pinned(trial);
  return h("div", {},
    h("div", {class: "tooltip-head"}, trial.dense ? "Dense model" : `Config ${trial.number}`, trial.titles.map((title) => h("span", {class: "tag"}, title))),
    h("table", {}, h("tbody", {}, rows, scores)),
    trial.broken.length ? h("p", {class: "broken"}, `breaks ${trial.broken.map((key) => METRIC[key] ? METRIC[key].title : key).join(", ")}`) : null,
    h("p", {class: "aside"}, `from ${shortened(trial.origin, 40)}${trial.dense ? "" : pinned >= 0 ? ` · pinned as ${"AB"[pinned]}` : " · click to pin"}`));
}

function trialSentence(trial) {
  const numbers = METRICS.filter((metric) => trial.values[metric.key] !== null).map((metric) => `${metric.title} ${metric.text(trial.values[metric.key])}`);
  const kind = kindOf(trial) === "dense" ? "" : `, ${kindOf(trial)}`;
  return `${trialName(trial)}${trial.titles.length ? ` (${trial.titles.join(", ")})` : ""}${kind}: ${numbers.join(", ")}`;
}
