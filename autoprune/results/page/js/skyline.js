// A config over the depth of the network: what each layer keeps, and its MACs, bytes and time before and after.
const LOOKS = 7;

function skylinePanes(trials) {
  const has = (pick) => trials.some((trial) => LAYERS.some((layer) => pick(layerOf(trial, layer) || {})));
  const dense = DENSE || null;
  const known = (key) => has((layer) => layer[key] !== null && layer[key] !== undefined && layer[key] > 0);
  return [
    {key: "kept", title: "kept of the layer", text: (value) => percent(value), before: () => 1},
    {key: "macs", title: "MACs", text: (value) => count(value)},
    {key: "bytes", title: "DRAM bytes, modelled", text: (value) => count(value, "B")},
    {key: "ms", title: "time, predicted", text: (value) => `${number(value)} ms`},
  ].filter((pane) => pane.key === "kept" || known(pane.key)).map((pane) => ({
    before: (layer) => dense ? (layerOf(dense, layer) || {})[pane.key] ?? null : null,
    after: (trial, layer) => (layerOf(trial, layer) || {})[pane.key] ?? null,
    ...pane,
  }));
}

function drawSkyline(place, trials, readout) {
  const panes = skylinePanes(trials);
  drawnAtWidth(place, (width) => {
    const left = width < 480 ? 8 : 12, right = width - 8, head = 24, tall = 78, gap = 12;
    const foot = LAYERS.length <= 40 && width > 620 ? 92 : 20;
    const height = panes.length * (head + tall + gap) + foot;
    const step = (right - left) / LAYERS.length, inner = clamp(step * 0.78, 1, 30);
    const svg = s("svg", {class: "chart skyline", width, height, viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "group", "aria-roledescription": "bar chart",
      "aria-label": `${LAYERS.length} layers in the order of the network; arrow keys read them one by one`});
    panes.forEach((pane, p) => {
      const top = p * (head + tall + gap) + head, base = top + tall;
      const most = pane.key === "kept" ? 1 : Math.max(...LAYERS.map((layer) => Math.max(pane.before(layer) ?? 0, ...trials.map((t) => pane.after(t, layer) ?? 0))), 1e-12);
      const y = (value) => base - clamp(value / most, 0, 1) * tall;
      svg.append(s("text", {x: left, y: top - 9, class: "axis-title"}, pane.title),
        s("text", {x: right, y: top - 9, "text-anchor": "end", class: "end"}, pane.key === "kept" ? "" : `tallest: ${pane.text(most)}`),
        s("line", {x1: left, x2: right, y1: base, y2: base, class: "base"}));
      LAYERS.forEach((layer, i) => {
        const x = left + i * step + (step - inner) / 2, before = pane.before(layer);
        if (before !== null) svg.append(s("rect", {x, y: y(before), width: inner, height: Math.max(base - y(before), 0), class: "before"}));
        trials.forEach((trial, k) => {
          const after = pane.after(trial, layer);
          if (after === null) return;
          const wide = inner / trials.length, at = x + k * wide;
          const look = trials.length > 1 ? `pin-${k}` : lookOf(trial, layer);
          svg.append(s("rect", {x: at, y: y(after), width: Math.max(wide - (trials.length > 1 ? 0.5 : 0), 0.8), height: Math.max(base - y(after), 0), class: `after ${look}`}));
          if (pane.key === "kept" && inner >= 7 && trials.length === 1) svg.append(...criterionMarks(trial, layer, at + wide / 2, y(after)));
        });
      });
    });
    if (foot > 20) LAYERS.forEach((layer, i) => {
      const x = left + (i + 0.5) * step, y = height - foot + 12;
      svg.append(s("text", {transform: `translate(${x + 3} ${y}) rotate(-52)`, "text-anchor": "end", class: "layer-name"}, s("title", {}, layer.name), shortened(layer.name, 16)));
    });
    const cross = svg.appendChild(s("rect", {y: head - 4, width: Math.max(step, 2), height: height - head - foot + 4, class: "cross", visibility: "hidden"}));
    listen(svg, cross, left, step);
    place.replaceChildren(svg);
  });

  function listen(svg, cross, left, step) {
    let at = -1;
    const show = (i, spoken) => {
      at = i;
      cross.setAttribute("visibility", i < 0 ? "hidden" : "visible");
      if (i < 0) { readout.replaceChildren(); tooltip.hide(); return; }
      cross.setAttribute("x", left + i * step);
      const card = layerCard(LAYERS[i], trials, panes), box = svg.getBoundingClientRect();
      tooltip.show(card, box.left + left + (i + 1) * step, Math.max(box.top, 8) + 12);
      if (spoken) announce(card.textContent);
    };
    svg.addEventListener("pointermove", (event) => show(clamp(Math.floor((event.clientX - svg.getBoundingClientRect().left - left) / step), 0, LAYERS.length - 1), false));
    svg.addEventListener("pointerleave", () => show(-1, false));
    svg.addEventListener("blur", () => show(-1, false));
    svg.addEventListener("keydown", (event) => {
      const move = {ArrowRight: 1, ArrowLeft: -1, Home: -1e6, End: 1e6}[event.key];
      if (event.key === "Escape") show(-1, false);
      if (!move) return;
      event.preventDefault();
      show(clamp(at + move, 0, LAYERS.length - 1), true);
    });
  }
}

function lookOf(trial, layer) {
  const choices = layerChoices(trial, layer);
  if (!choices.length) return "look-none";
  if (choices.length > 1) return "look-mixed";
  return `look-${GRANULARITIES.indexOf(choices[0][0]) % LOOKS}`;
}

function criterionMarks(trial, layer, x, y) {
  const names = [...new Set(layerChoices(trial, layer).map(([, criterion]) => criterion))].slice(0, 1);
  return names.map((name) => s("path", {class: "criterion", d: MARKS[MARK_NAMES[CRITERIA.indexOf(name) % MARK_NAMES.length]](2.6), transform: `translate(${x} ${y - 5})`}));
}

function choicesText(trial, layer) {
  const choices = layerChoices(trial, layer);
  return choices.length ? choices.map(([granularity, criterion, sparsity]) => `${granularity} ${sparsity === null ? "threshold" : percent(sparsity)}, ${criterion}`).join("; ") : "left as it is";
}

function layerCard(layer, trials, panes) {
  const row = (pane) => h("tr", {}, h("th", {}, pane.title),
    h("td", {class: "aside"}, pane.key === "kept" || pane.before(layer) === null ? "" : `${pane.text(pane.before(layer))} →`),
    trials.map((trial) => h("td", {}, pane.after(trial, layer) === null ? MISSING : pane.text(pane.after(trial, layer)))));
  return h("div", {}, h("div", {class: "tooltip-head"}, shortened(layer.name, 60)),
    h("table", {}, h("tbody", {}, panes.map(row))),
    trials.map((trial, k) => h("p", {class: "aside"}, `${trials.length > 1 ? `${"AB"[k]}: ` : ""}${channelsText(trial, layer)} ${choicesText(trial, layer)}`)));
}

function channelsText(trial, layer) {
  const found = layerOf(trial, layer);
  if (!found) return "";
  if (!found.channels) return "gone with its block.";
  return `${found.channels} of ${layer.dense} channels${found.zeros ? `, ${percent(found.zeros)} of weights zero` : ""}.`;
}

function skylineLegend(trials) {
  const swatch = (look) => s("svg", {width: 14, height: 14, "aria-hidden": "true"}, s("rect", {x: 1, y: 1, width: 12, height: 12, rx: 2, class: look}));
  if (trials.length > 1) return trials.map((trial, k) => h("li", {}, swatch(`after pin-${k}`), `${"AB"[k]}: ${trialName(trial)}`)).concat(h("li", {}, swatch("before"), "dense"));
  const trial = trials[0], used = LAYERS.flatMap((layer) => layerChoices(trial, layer));
  const granularities = GRANULARITIES.filter((name) => used.some(([g]) => g === name));
  const criteria = CRITERIA.filter((name) => used.some(([, c]) => c === name));
  const looks = new Set(LAYERS.map((layer) => lookOf(trial, layer)));
  return [
    ...granularities.map((name) => ({name, look: `look-${GRANULARITIES.indexOf(name) % LOOKS}`})).filter(({look}) => looks.has(look)).map(({name, look}) => h("li", {}, swatch(`after ${look}`), shortened(name, 30))),
    looks.has("look-mixed") ? h("li", {}, swatch("after look-mixed"), "two patterns") : null,
    looks.has("look-none") ? h("li", {}, swatch("after look-none"), "left as it is") : null,
    h("li", {}, swatch("before"), "dense"),
    ...criteria.map((name) => h("li", {}, s("svg", {width: 14, height: 14, "aria-hidden": "true"}, s("path", {class: "criterion", d: MARKS[MARK_NAMES[CRITERIA.indexOf(name) % MARK_NAMES.length]](3.4), transform: "translate(7 7)"})), shortened(name, 30))),
  ].filter(Boolean);
}
