// From values to pixels, and the round numbers that stand at an axis.
function linearScale([low, high], [from, to]) {
  const span = high - low || 1;
  const scale = (value) => from + (value - low) / span * (to - from);
  scale.back = (pixel) => low + (pixel - from) / (to - from) * span;
  scale.ticks = (wanted) => roundSteps(low, high, wanted);
  scale.domain = [low, high];
  return scale;
}

function logScale([low, high], [from, to]) {
  const a = Math.log10(low), span = Math.log10(high) - a || 1;
  const scale = (value) => from + (Math.log10(Math.max(value, 1e-300)) - a) / span * (to - from);
  scale.back = (pixel) => 10 ** (a + (pixel - from) / (to - from) * span);
  scale.ticks = (wanted) => {
    const out = [], every = Math.max(1, Math.ceil(span / wanted));
    for (let e = Math.ceil(a); e <= Math.floor(a + span); e += every) out.push(10 ** e);
    return out.length > 1 ? out : [low, high];
  };
  scale.domain = [low, high];
  return scale;
}

function roundSteps(low, high, wanted) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(wanted, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((size) => size >= rough * 0.72) || 10 * power;
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) {
    out.push(Number((i * step).toPrecision(12)));
  }
  return out;
}

// The span of values with a margin; a single value gets room on both sides.
function spanOf(values, margin = 0.06, zero = false) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value !== null && Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); }
  }
  if (!(high >= low)) return [0, 1];
  const room = (high - low || Math.abs(high) || 1) * margin;
  return [zero && low >= 0 ? 0 : low - room, high + room];
}

function logSpanOf(values, margin = 1.5) {
  const found = values.filter((value) => value > 0 && Number.isFinite(value));
  if (!found.length) return [0.1, 10];
  return [Math.min(...found) / margin, Math.max(...found) * margin];
}

function textWidth(text, size = 11.5) {
  return Array.from(text).length * size * 0.56;
}

const MARKS = {
  circle: (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  ring: (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  cross: (r) => `M${-r} ${-r}L${r} ${r}M${-r} ${r}L${r} ${-r}`,
  diamond: (r) => `M0 ${-r * 1.35}L${r * 1.35} 0L0 ${r * 1.35}L${-r * 1.35} 0z`,
  square: (r) => `M${-r * 0.9} ${-r * 0.9}H${r * 0.9}V${r * 0.9}H${-r * 0.9}z`,
  triangle: (r) => `M0 ${-r * 1.2}L${r * 1.15} ${r * 0.85}H${-r * 1.15}z`,
};
const MARK_NAMES = ["circle", "square", "triangle", "diamond", "ring", "cross"];
