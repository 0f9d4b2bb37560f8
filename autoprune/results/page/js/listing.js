// Every complete trial as a table that sorts by any column and obeys the filter: the plots for those who read.
function drawListing(details) {
  const columns = [["number", "config"], ...METRICS.map((metric) => [metric.key, metric.title]), ["score", "score"], ["test", "test score"], ["origin", "from"]];
  const STEP = 50;
  let by = "number", down = false, most = STEP, place = null;
  details.addEventListener("toggle", () => { if (details.open) update(); });
  state.watch((what) => { if (what === "filter" && details.open) update(); });
  const update = eachFrame(draw);

  function value(trial, key) {
    return key in METRIC ? trial.values[key] : trial[key];
  }

  function draw() {
    if (!place) place = details.appendChild(h("div", {}));
    const found = TRIALS.filter((trial) => trial.dense || state.passes(trial)).sort((a, b) => {
      const [x, y] = [value(a, by), value(b, by)];
      if (x === null || y === null) return (x === null) - (y === null);
      return (x < y ? -1 : x > y ? 1 : a.number - b.number) * (down ? -1 : 1);
    });
    const used = columns.filter(([key]) => key === "number" || found.some((trial) => value(trial, key) !== null));
    const head = used.map(([key, title]) => h("th", {scope: "col", class: key === "origin" ? null : "num", "aria-sort": by === key ? (down ? "descending" : "ascending") : null},
      h("button", {type: "button", class: "sort", on: {click: () => { down = by === key ? !down : false; by = key; draw(); }}}, title, by === key ? (down ? " ↓" : " ↑") : "")));
    const cell = (trial, key) => {
      if (key === "number") return h("th", {scope: "row", class: "num"}, trial.dense ? "dense" : h("button", {type: "button", class: "link", on: {click: () => state.pin(trial)}}, trial.number), h("small", {}, trial.titles.join(", ") || (trial.feasible || trial.dense ? "" : "infeasible")));
      if (key === "origin") return h("td", {}, shortened(trial.origin, 30));
      if (key in METRIC) return h("td", {class: "num"}, METRIC[key].text(trial.values[key]));
      return h("td", {class: "num"}, scoreText(trial[key]));
    };
    fill(place,
      h("p", {class: "note"}, `${found.length} trials${state.filtered ? " pass the filter" : ""}; a number pins its config.`),
      h("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "Trials"}, h("table", {}, h("thead", {}, h("tr", {}, head)),
        h("tbody", {}, found.slice(0, most).map((trial) => h("tr", {class: trial.dense ? "dense" : trial.titles.length ? "pick" : null}, used.map(([key]) => cell(trial, key))))))),
      found.length > most ? h("button", {type: "button", class: "quiet", on: {click: () => { most += 200; draw(); }}}, `Show ${Math.min(200, found.length - most)} more`) : "");
  }
}
