// The trials of the run as objects, from the columns that the page carries.
const DATA = JSON.parse(byId("data").textContent);

const METRICS = DATA.metrics.map((metric) => ({
  ...metric,
  drop: metric.key === "accuracy_drop",
  text: (value) => metricText(metric, value),
}));
const METRIC = Object.fromEntries(METRICS.map((metric) => [metric.key, metric]));

function metricText(metric, value) {
  if (value === null || value === undefined) return MISSING;
  if (metric.key === "accuracy_drop") return DATA.percent ? `${signed(value * 100, 2)} pp` : number(value);
  return withUnit(value, metric.unit);
}

function scoreText(value) {
  if (value === null || value === undefined) return MISSING;
  return DATA.percent ? `${signed(value * 100, 2)} %` : number(value, 4);
}

const TRIALS = DATA.trials.number.map((trial, i) => ({
  index: i,
  number: trial,
  origin: DATA.origins[DATA.trials.origin[i]],
  feasible: DATA.trials.feasible[i] === "1",
  score: DATA.trials.score[i],
  test: DATA.trials.test[i],
  broken: DATA.trials.broken[i] || [],
  ratio: DATA.trials.ratio[i],
  meter: DATA.trials.meter[i],
  energy: DATA.trials.energy[i],
  values: Object.fromEntries(METRICS.map((metric) => [metric.key, DATA.trials.values[metric.key][i]])),
  titles: DATA.picks.filter(([, at]) => at === i).map(([title]) => title),
  dense: DATA.dense === i,
  front: false,
}));
for (const i of DATA.front) TRIALS[i].front = true;
const DENSE = DATA.dense === null ? null : TRIALS[DATA.dense];

function trialName(trial) {
  return trial.dense ? "dense model" : `config ${trial.number}`;
}

function shareText(trial, key) {
  const base = DENSE && DENSE.values[key], value = trial.values[key];
  return key === "accuracy_drop" || trial.dense || !base || value === null ? "" : percent(value / base);
}

// 95 % interval of a measured latency, in milliseconds of the study's dense latency; null where there is none.
function latencyInterval(trial) {
  const value = trial.values.latency_ms;
  if (!trial.ratio || trial.meter === "m" || trial.meter === "-" || !value || !trial.ratio[0]) return null;
  const unit = value / trial.ratio[0];
  return [trial.ratio[1] * unit, trial.ratio[2] * unit];
}

function detailText(trial, key) {
  if (key === "latency_ms" && trial.ratio && !trial.dense) {
    const [ratio, low, high] = trial.ratio.map((value) => value.toFixed(2));
    const spread = low === high ? "" : `, ${low}–${high}`;
    return `${ratio}×${spread}${trial.meter === "l" ? " ?" : ""}${trial.meter === "m" ? ", modelled" : ""}`;
  }
  if (key === "energy_mj" && trial.energy) return `${number(trial.energy[0])}–${number(trial.energy[1])}`;
  return shareText(trial, key);
}

const LAYERS = DATA.layers.names.map((name, i) => ({index: i, name, owner: DATA.layers.owners[i], dense: DATA.layers.dense[i]}));

// What became of a layer in a trial, or null where the record does not say.
function layerOf(trial, layer) {
  const at = DATA.layers.of[trial.index][layer.index];
  if (at < 0) return null;
  const [channels, zeros, macs, bytes, ms] = DATA.layers.states[layer.index][at];
  return {channels, zeros, macs, bytes, ms, kept: layer.dense ? channels / layer.dense * (1 - zeros) : 1 - zeros};
}

const choicesOf = (() => {
  const known = new Map();
  return (trial) => {
    if (!known.has(trial.index)) {
      const found = DATA.configs.of[trial.index].map((piece) => DATA.configs.choices[piece]).filter(Boolean);
      known.set(trial.index, new Map(found));
    }
    return known.get(trial.index);
  };
})();

// What a config says of a layer: of its group and of itself; choices that remove nothing are left out.
function layerChoices(trial, layer) {
  const choices = choicesOf(trial);
  const keys = layer.owner === layer.name ? [layer.name] : [layer.owner, layer.name];
  return keys.flatMap((key) => choices.get(key) || []).filter(([, , sparsity]) => sparsity === null || sparsity > 0);
}

function configText(trial) {
  return DATA.configs.of[trial.index].map((piece) => DATA.configs.texts[piece]).join("").replaceAll("\0", trial.number);
}

// As results/formats.plain: characters that turn the direction of a line are shown, not obeyed.
function visible(text) {
  return text.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

const GRANULARITIES = [...new Set(DATA.configs.choices.filter(Boolean).flatMap(([, choices]) => choices.map(([g]) => g)))];
const CRITERIA = [...new Set(DATA.configs.choices.filter(Boolean).flatMap(([, choices]) => choices.map(([, c]) => c)))];
