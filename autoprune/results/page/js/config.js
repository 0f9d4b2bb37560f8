// The config that is looked at, or two side by side: choice, numbers, layers, file and the lines that apply it.
function drawConfig(place) {
  const listed = TRIALS.filter((trial) => !trial.dense && trial.feasible && DATA.configs.of[trial.index].length);
  const broken = TRIALS.filter((trial) => !trial.dense && !trial.feasible && DATA.configs.of[trial.index].length);
  const options = () => {
    const titled = listed.filter((t) => t.titles.length), front = listed.filter((t) => t.front && !t.titles.length), rest = listed.filter((t) => !t.front);
    const group = (label, trials, name) => trials.length ? h("optgroup", {label}, trials.map((t) => h("option", {value: t.index}, name(t)))) : null;
    return [group("Picks", titled, (t) => `config ${t.number} · ${t.titles.join(", ")}`), group("Front", front, (t) => `config ${t.number}`),
      group(`Dominated (${rest.length})`, rest.slice(0, 400), (t) => `config ${t.number}`),
      group(`Break a constraint (${broken.length})`, broken.slice(0, 400), (t) => `config ${t.number}`)];
  };
  const choose = (at) => h("select", {id: `pin-${at}`, "data-pin": at, on: {change: (event) => state.place(at, event.target.value === "" ? null : TRIALS[Number(event.target.value)])}});
  const first = choose(0), second = choose(1);
  const body = h("div", {});
  fill(place,
    h("div", {class: "pick-line"},
      h("label", {class: "choose pin-0"}, h("span", {}, "A"), first), h("label", {class: "choose pin-1"}, h("span", {}, "B"), second),
      h("p", {class: "aside"}, "Or click points of the front: the second one is set beside the first.")),
    body);

  for (const [at, select] of [[0, first], [1, second]]) fill(select, h("option", {value: ""}, at ? "none" : "choose a config"), options());

  function update() {
    const trials = state.pins.filter(Boolean);
    for (const [at, select] of [[0, first], [1, second]]) {
      const trial = state.pins[at];
      select.value = trial ? String(trial.index) : "";
      if (trial && select.selectedIndex < 0) {
        select.append(h("option", {value: trial.index}, `config ${trial.number}`));
        select.value = String(trial.index);
      }
    }
    if (!trials.length) { fill(body, h("p", {class: "note"}, listed.length ? "Choose a config here, or click a point of the front." : "No config is feasible; those that break a constraint can be looked at.")); return; }
    fill(body, numbers(trials), ...trials.map(actions), ...layerViews(trials));
    for (const draw of pending.splice(0)) draw();
  }

  const pending = [];

  function numbers(trials) {
    const rows = DENSE && !trials.includes(DENSE) ? [DENSE, ...trials] : trials;
    const metrics = METRICS.filter((metric) => rows.some((t) => t.values[metric.key] !== null));
    const scores = [["score", "score"], ["test", "test score"]].filter(([key]) => rows.some((t) => t[key] !== null));
    const name = (trial) => h("th", {scope: "row", class: trial.dense ? null : `pin-${trials.indexOf(trial)}`},
      trial.dense ? "dense" : `${trials.length > 1 ? `${"AB"[trials.indexOf(trial)]}: ` : ""}config ${trial.number}`,
      h("small", {}, trial.dense ? "" : [trial.titles.join(", "), trial.broken.length ? `breaks ${trial.broken.join(", ")}` : "", `from ${shortened(trial.origin, 24)}`].filter(Boolean).join(" · ")));
    const row = (trial) => h("tr", {class: trial.dense ? "dense" : null}, name(trial),
      scores.map(([key]) => h("td", {class: "num"}, scoreText(trial[key]))),
      metrics.map((metric) => h("td", {class: "num"}, metric.text(trial.values[metric.key]), h("small", {}, detailText(trial, metric.key)))));
    return h("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "Numbers of the configs"}, h("table", {class: "compare"},
      h("thead", {}, h("tr", {}, h("th", {scope: "col"}, "config"), scores.map(([, title]) => h("th", {scope: "col", class: "num"}, title)), metrics.map((metric) => h("th", {scope: "col", class: "num"}, metric.title)))),
      h("tbody", {}, rows.map(row), trials.length > 1 ? h("tr", {class: "total"}, h("th", {scope: "row"}, "B against A"), scores.map(([key]) => scoreDifference(trials, key)), metrics.map((metric) => difference(trials, metric))) : null)));
  }

  function scoreDifference([a, b], key) {
    if (a[key] === null || b[key] === null) return h("td", {class: "num"}, MISSING);
    const by = b[key] - a[key], good = DATA.higher ? by > 0 : by < 0;
    return h("td", {class: `num ${by === 0 ? "" : good ? "better" : "worse"}`}, by === 0 ? "the same" : `${by > 0 ? "+" : ""}${DATA.percent ? `${signed(by * 100, 2)} pp` : number(by)}`);
  }

  function difference([a, b], metric) {
    const [x, y] = [a.values[metric.key], b.values[metric.key]];
    if (x === null || y === null) return h("td", {class: "num"}, MISSING);
    const sign = y > x ? "+" : "";
    const text = metric.drop ? `${sign}${metric.text(y - x)}` : x ? `${sign}${percent(y / x - 1)}` : MISSING;
    return h("td", {class: `num ${y < x ? "better" : y > x ? "worse" : ""}`}, y === x ? "the same" : text);
  }

  function actions(trial) {
    const path = DATA.configs.paths[trial.number], file = path || `config-${String(trial.number).padStart(3, "0")}.yaml`;
    const name = file.split("/").pop(), out = `pruned-${String(trial.number).padStart(3, "0")}.safetensors`;
    const line = `autoprune apply ${file} --task ${DATA.task.shell} -o ${out}`;
    const python = [
      "import autoprune as ap", "",
      `task = ap.load_task(${DATA.task.python})`, `config = ap.load_config("${file}")`,
      "smaller = ap.apply(", "    task.model, config, task.example_inputs, batches=task.batches, loss=task.loss, finetune=task.finetune", ")",
      `ap.save_pruned(smaller, "${out}", config)`, ""].join("\n");
    const download = h("button", {type: "button", class: "main-button", "data-download": trial.number}, `Download ${path ? name : "config.yaml"}`);
    download.addEventListener("click", () => {
      const link = h("a", {href: URL.createObjectURL(new Blob([configText(trial)], {type: "application/yaml"})), download: name});
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
    return h("div", {class: "use"},
      h("div", {class: "buttons"}, state.pins[1] ? h("b", {class: `pin-${state.pins.indexOf(trial)}`}, "AB"[state.pins.indexOf(trial)]) : null, download,
        copyButton("Copy the command line", () => line), copyButton("Copy the Python lines", () => python)),
      h("details", {}, h("summary", {}, "Show the lines and the config"),
        h("pre", {class: "command", tabindex: 0, "aria-label": "Command line"}, line), h("pre", {class: "command", tabindex: 0, "aria-label": "Python"}, python),
        h("pre", {tabindex: 0, "aria-label": `Config of trial ${trial.number}`, class: "yaml"}, visible(configText(trial)))));
  }

  function layerViews(trials) {
    if (!LAYERS.length || !trials.some((trial) => LAYERS.some((layer) => layerOf(trial, layer)))) {
      return [h("p", {class: "note"}, "The records of this run hold no layers, so their bars cannot be drawn.")];
    }
    const place = h("div", {class: "skyline-place"}), readout = h("div", {});
    pending.push(() => drawSkyline(place, trials, readout));
    const panes = skylinePanes(trials), lacking = [["bytes", "bytes"], ["ms", "time"]].filter(([key]) => !panes.some((pane) => pane.key === key)).map(([, word]) => word);
    const details = h("details", {class: "layer-table"}, h("summary", {}, `The ${LAYERS.length} layers as a table`));
    details.addEventListener("toggle", () => { if (details.open && details.children.length === 1) details.append(layerTable(trials, panes)); });
    return [h("h3", {}, trials.length > 1 ? "Layer by layer" : "Over the depth of the network"), h("ul", {class: "legend"}, skylineLegend(trials)), place,
      ...(lacking.length ? [ h("p", {class: "note"}, `The ${lacking.join(" and ")} of each layer ${lacking.length > 1 ? "are" : "is"} not in the records of this run: nothing predicted ${lacking.length > 1 ? "them" : "it"}, or an earlier version wrote them.`)] : []), details];
  }

  function layerTable(trials, panes) {
    const rows = LAYERS.map((layer) => h("tr", {}, h("th", {scope: "row"}, shortened(layer.name, 80)),
      trials.map((trial) => [h("td", {}, channelsText(trial, layer)), h("td", {}, choicesText(trial, layer))]),
      panes.filter((pane) => pane.key !== "kept").map((pane) => [h("td", {class: "num"}, pane.before(layer) === null ? MISSING : pane.text(pane.before(layer))),
        trials.map((trial) => h("td", {class: "num"}, pane.after(trial, layer) === null ? MISSING : pane.text(pane.after(trial, layer))))])));
    const names = trials.map((trial, k) => trials.length > 1 ? `${"AB"[k]}: ` : "");
    return h("div", {class: "scroll names", tabindex: 0, role: "region", "aria-label": "Layers"}, h("table", {},
      h("thead", {}, h("tr", {}, h("th", {scope: "col"}, "layer"), names.map((name) => [h("th", {scope: "col"}, `${name}kept`), h("th", {scope: "col"}, `${name}how`)]),
        panes.filter((pane) => pane.key !== "kept").map((pane) => [h("th", {scope: "col", class: "num"}, `${pane.title}, dense`), names.map((name) => h("th", {scope: "col", class: "num"}, `${name}after`))]))),
      h("tbody", {}, rows)));
  }

  state.watch((what) => { if (what === "pins") update(); });
  update();
}
