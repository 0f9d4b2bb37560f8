// What the reader has set: ranges that filter, two pins, the point under the pointer. Views subscribe.
const state = (() => {
  const ranges = new Map();
  const pins = [null, null];
  const watchers = [];
  let hovered = null, goal = null, untouched = true;
  const tell = (what) => { for (const watch of watchers) watch(what); };
  return {
    watch(act) { watchers.push(act); },
    range: (key) => ranges.get(key) || [-Infinity, Infinity],
    setRange(key, low, high) {
      if (low === -Infinity && high === Infinity) ranges.delete(key); else ranges.set(key, [low, high]);
      tell("filter");
    },
    clearRanges() { ranges.clear(); tell("filter"); },
    get filtered() { return ranges.size > 0; },
    get ranges() { return ranges; },
    passes(trial) {
      for (const [key, [low, high]] of ranges) {
        const value = trial.values[key];
        if (value === null || value === undefined || value < low || value > high) return false;
      }
      return true;
    },
    get goal() { return goal; },
    setGoal(key) { goal = key; tell("filter"); },
    pins,
    pinned: (trial) => pins.indexOf(trial),
    // The config that the page opens with gives way to the first one that the reader pins.
    open(trial) { pins[0] = trial; tell("pins"); },
    pin(trial) {
      const at = pins.indexOf(trial);
      if (at >= 0 && !(untouched && at === 0)) { pins[at] = null; if (at === 0) { pins[0] = pins[1]; pins[1] = null; } }
      else if (untouched || !pins[0]) pins[0] = trial;
      else pins[1] = trial;
      untouched = false;
      tell("pins");
    },
    place(at, trial) {
      untouched = false;
      pins[at] = trial;
      if (!pins[0]) { pins[0] = pins[1]; pins[1] = null; }
      if (pins[0] === pins[1]) pins[1] = null;
      tell("pins");
    },
    get hovered() { return hovered; },
    hover(trial) { if (trial !== hovered) { hovered = trial; tell("hover"); } },
  };
})();

function remaining() {
  return TRIALS.filter((trial) => trial.feasible && !trial.dense && state.passes(trial));
}

function bestBy(trials, key) {
  const order = (trial) => trial.values.accuracy_drop ?? 0;
  return trials.filter((trial) => trial.values[key] !== null).reduce((best, trial) => {
    if (!best) return trial;
    const by = trial.values[key] - best.values[key] || order(trial) - order(best) || trial.number - best.number;
    return by < 0 ? trial : best;
  }, null);
}
