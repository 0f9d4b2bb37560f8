// One slider for each metric, how many configs are left, which is the best of them, and the same as a command.
function drawFilters(place) {
  const fields = METRICS.map((metric) => {
    const values = [...new Set(TRIALS.filter((t) => t.feasible).map((t) => t.values[metric.key]).filter((v) => v !== null))].sort((a, b) => a - b);
    return values.length > 1 ? {metric, values} : null;
  }).filter(Boolean);
  if (!fields.length) { place.hidden = true; return; }
  const first = fields.slice(0, Math.max(DATA.objectives.length, 4)), more = fields.slice(first.length);
  const goals = METRICS.filter((metric) => DATA.objectives.includes(metric.key));
  const goal = h("select", {id: "goal", on: {change: (event) => state.setGoal(event.target.value)}},
    (goals.length ? goals : METRICS).map((metric) => h("option", {value: metric.key}, metric.title)));
  const wanted = goals.find((metric) => metric.key === "latency_ms") || goals.find((metric) => !metric.drop) || goals[0] || METRICS[0];
  goal.value = wanted.key;
  const clear = h("button", {type: "button", class: "quiet", on: {click: () => state.clearRanges()}}, "Clear all");
  const told = h("p", {class: "remain", "aria-live": "polite", id: "remain"});
  const best = h("div", {class: "best"});
  const command = h("code", {class: "command"});
  fill(place,
    h("div", {class: "filters-head"}, h("h3", {}, "At most"), clear),
    h("div", {class: "sliders"}, first.map(slider)),
    more.length ? h("details", {class: "more-filters"}, h("summary", {}, `${more.length} more`), h("div", {class: "sliders"}, more.map(slider))) : null,
    h("p", {class: "goal"}, h("label", {for: "goal"}, "Best is the lowest "), goal),
    told, best,
    h("details", {class: "as-command"}, h("summary", {}, "The same in the terminal"), command, copyButton("Copy the command", () => command.textContent)));
  state.setGoal(wanted.key);

  function slider({metric, values}) {
    const last = values.length - 1;
    const output = h("output", {for: `max-${metric.key}`});
    const input = h("input", {type: "range", id: `max-${metric.key}`, min: 0, max: last, step: 1, value: last, "data-metric": metric.key});
    input.addEventListener("input", () => {
      const at = Number(input.value);
      state.setRange(metric.key, state.range(metric.key)[0], at === last ? Infinity : values[at]);
    });
    const show = () => {
      const high = state.range(metric.key)[1];
      let at = last;
      if (high !== Infinity) { at = values.findLastIndex((value) => value <= high); at = Math.max(at, 0); }
      if (Number(input.value) !== at) input.value = at;
      const value = high === Infinity ? null : high;
      const share = value !== null && DENSE && !metric.drop && DENSE.values[metric.key] ? ` · ${percent(value / DENSE.values[metric.key])}` : "";
      output.textContent = value === null ? "any" : `≤ ${metric.text(value)}${share}`;
      input.setAttribute("aria-valuetext", output.textContent);
      input.classList.toggle("set", value !== null);
    };
    state.watch((what) => { if (what === "filter") show(); });
    show();
    return h("div", {class: "slider"}, h("label", {for: `max-${metric.key}`, title: metric.meaning}, metric.title), output, input);
  }

  const total = TRIALS.filter((trial) => trial.feasible && !trial.dense).length;
  const update = eachFrame(() => {
    const left = remaining(), key = state.goal, found = bestBy(left, key);
    told.textContent = `${left.length} of ${total} configs remain.`;
    clear.disabled = !state.filtered;
    fill(best, ...(found ? [
      h("p", {}, `Lowest ${METRIC[key].title}: `, h("button", {type: "button", class: "link", id: "best", "data-number": found.number, on: {click: () => { state.pin(found); }}}, `config ${found.number}`)),
      h("p", {class: "figures"}, [key, ...DATA.objectives.filter((name) => name !== key && METRIC[name])].slice(0, 4).map((name) =>
        h("span", {}, METRIC[name].text(found.values[name]), h("small", {}, ` ${METRIC[name].title}${shareText(found, name) ? `, ${shareText(found, name)}` : ""}`)))),
    ] : [h("p", {}, total ? "Nothing is left: raise a bound." : "No config of this run is feasible.")]));
    const bounds = [...state.ranges].filter(([, [, high]]) => high !== Infinity).map(([name, [, high]]) => ` --max ${name}=${atLeast(high)}`);
    command.textContent = `autoprune select ${DATA.run}${bounds.join("")} --minimize ${key} -o config.yaml`;
  });
  state.watch((what) => { if (what === "filter") update(); });
  update();
}

// Numbers of the page have nine digits: a bound in a command must not fall below the value that it was taken from.
function atLeast(value) {
  return Number.isInteger(value) ? value : Number((value + Math.abs(value) * 1e-8).toPrecision(9));
}

function copyButton(label, text) {
  const button = h("button", {type: "button", class: "quiet"}, label);
  button.addEventListener("click", async () => {
    const given = text();
    let done = true;
    try { await navigator.clipboard.writeText(given); } catch { done = copiedBySelection(given); }
    button.textContent = done ? "Copied" : "Select and copy by hand";
    announce(button.textContent);
    setTimeout(() => { button.textContent = label; }, 1600);
  });
  return button;
}

// A page opened from disk may not reach the clipboard by the new way.
function copiedBySelection(text) {
  const area = document.body.appendChild(h("textarea", {class: "spoken", "aria-hidden": "true", tabindex: -1}));
  area.value = text;
  area.select();
  let done = false;
  try { done = document.execCommand("copy"); } catch { done = false; }
  area.remove();
  return done;
}
