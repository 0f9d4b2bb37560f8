// Numbers as the Python side writes them (results/formats.py); a test holds the two together.
const MISSING = "–";
const PREFIXES = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

function signed(value, decimals) {
  let text = value.toFixed(decimals);
  if (Number(text) === 0) text = text.replace("-", "");
  return text.replace("-", "−");
}

function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return MISSING;
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e6) {
    return value.toExponential(digits - 1).replace(/e([+-])(\d)$/, "e$10$2").replaceAll("-", "−");
  }
  const rounded = Number(value.toExponential(digits - 1));
  return signed(value, Math.max(digits - 1 - Math.floor(Math.log10(Math.abs(rounded))), 0));
}

function count(value, unit = "") {
  if (value === null || value === undefined || !Number.isFinite(value)) return number(value);
  for (const [factor, prefix] of PREFIXES) {
    if (Math.abs(value) >= factor * 0.9995) return `${number(value / factor)} ${prefix}${unit}`;
  }
  return `${Number.isInteger(value) ? String(value) : number(value)} ${unit}`.trim();
}

function percent(fraction) {
  if (fraction === null || fraction === undefined || !Number.isFinite(fraction)) return number(fraction);
  const value = fraction * 100, size = Math.abs(value);
  return `${signed(value, (size > 0 && size < 1) || (value > 99 && value < 100) ? 1 : 0)} %`;
}

function withUnit(value, unit) {
  if (unit === "%") return percent(value);
  if (unit === "B" || unit === "") return count(value, unit);
  return value === null ? MISSING : `${number(value)} ${unit}`;
}
