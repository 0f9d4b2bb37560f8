// Draws a figure that Python described: points, lines, steps or lying bars, on axes that fit the width at hand.
// Colours are classes (css/chart.css), so that themes and print need no second drawing.
function drawFigure(place, figure) {
  if (!figure.series.some((series) => series.points.length)) return;
  const bars = figure.series[0].shape === "bars";
  whenNear(place, bars ? figure.y.names.length * 22 : 290, () => drawnAtWidth(place, (width) => {
    fill(place, legendOf(figure), bars ? drawBars(figure, width) : drawXY(figure, width));
  }));
}

function legendOf(figure) {
  const named = figure.series.filter((series) => series.name && series.points.length);
  if (!named.length || (named.length === 1 && figure.series[0].shape === "bars")) return [];
  return [h("ul", {class: "legend", "aria-hidden": "true"}, named.map((series) =>
    h("li", {}, keyOf(series), series.name)))];
}

function keyOf(series) {
  const body = series.shape === "points" ? s("path", {d: MARKS[series.mark](4.5), class: markClass(series), transform: "translate(9 7)"})
    : series.shape === "bars" ? s("rect", {x: 2, y: 2, width: 13, height: 10, rx: 2, class: `fill-${series.color}`})
    : s("path", {d: "M1 7H17", class: `line-${series.color}`});
  return s("svg", {width: 18, height: 14, "aria-hidden": "true"}, body);
}

function markClass(series) {
  return series.mark === "cross" || series.mark === "ring" ? `mark open-${series.color}` : `mark fill-${series.color}`;
}

function axisText(axis, value) {
  if (axis.names.length) return axis.names[value] ?? "";
  if (axis.drop) return tidy(number(value * (DATA.percent ? 100 : 1)));
  if (axis.unit === "%") return `${Number((value * 100).toPrecision(4))} %`.replace("-", "−");
  if (axis.unit === "" || axis.unit === "B") return tidy(count(value, axis.unit));
  return tidy(number(value));
}

function tidy(text) {
  return text.replace(/(\.\d*?)0+(?= |$)/, "$1").replace(/\.(?= |$)/, "");
}

function axisTitle(axis) {
  return axis.unit && !["%", "B"].includes(axis.unit) ? `${axis.title} (${axis.unit})` : axis.title;
}

function drawXY(figure, width) {
  const all = figure.series.flatMap((series) => series.points);
  const xs = all.map((p) => p[0]), ys = all.flatMap((p) => [p[1], p[3], p[4]].filter((v) => v !== null));
  const joined = figure.diagonal !== null ? [...xs, ...ys] : null;
  const yDomain = domainOf(figure.y, joined || ys), xDomain = domainOf(figure.x, joined || xs);
  const height = clamp(width * 0.62, 230, 340);
  const labels = (figure.y.log ? logScale : linearScale)(yDomain, [height - 40, 26]).ticks(5).map((v) => axisText(figure.y, v));
  const left = clamp(Math.max(...labels.map((t) => textWidth(t))) + 12, 34, 150), right = width - 12, bottom = height - 40, top = 26;
  const x = (figure.x.log ? logScale : linearScale)(xDomain, [left, right]);
  const y = (figure.y.log ? logScale : linearScale)(yDomain, [bottom, top]);
  const svg = s("svg", {class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "presentation"});
  const xTicks = figure.x.names.length ? figure.x.names.map((_, i) => i) : x.ticks(Math.max(2, Math.floor(width / 90)));
  const yTicks = figure.y.names.length ? figure.y.names.map((_, i) => i) : y.ticks(5);
  svg.append(axes(x, y, xTicks, yTicks, figure.x, figure.y, {left, right, top, bottom}));
  if (figure.diagonal !== null) svg.append(diagonals(x, y, figure.diagonal, {left, right, top, bottom}));
  for (const series of figure.series) svg.append(drawSeries(series, x, y));
  const hit = figure.series.flatMap((series) => series.points.filter((p) => p[2]).map((p) => ({px: x(p[0]), py: y(p[1]), text: pointText(figure, p)})));
  hoverPoints(svg, hit, figure);
  return svg;
}

function pointText(figure, [x, y, name, low, high]) {
  const value = (axis, number) => axis.names.length ? axis.names[Math.round(number)] : withUnit(number, axis.unit);
  const spread = low !== null && high !== null && high > low ? ` (${value(figure.y, low)}–${value(figure.y, high)})` : "";
  return `${name}\n${figure.x.title || "at"}: ${value(figure.x, x)}\n${figure.y.title}: ${value(figure.y, y)}${spread}`;
}

function domainOf(axis, values) {
  if (axis.names.length) return [-0.3, axis.names.length - 0.7];
  if (axis.log) return logSpanOf(values);
  return spanOf(values, 0.06, axis.zero);
}

function axes(x, y, xTicks, yTicks, xAxis, yAxis, box) {
  const middle = (box.left + box.right) / 2, ends = {first: box.left, last: box.right};
  const letters = xAxis.names.length > 1 ? clamp(Math.floor((box.right - box.left) / (xAxis.names.length - 1) / 9.5), 5, 22) : 22;
  return s("g", {class: "axes"},
    yTicks.map((value) => s("g", {transform: `translate(0 ${y(value).toFixed(1)})`},
      s("line", {x1: box.left, x2: box.right, class: "grid"}),
      s("text", {x: box.left - 7, dy: "0.32em", "text-anchor": "end"}, shortened(axisText(yAxis, value), 24)))),
    xTicks.map((value) => {
      const text = shortened(axisText(xAxis, value), letters), half = textWidth(text) / 2;
      const at = x(value), anchor = at + half > ends.last + 8 ? "end" : at - half < 2 ? "start" : "middle";
      return s("g", {transform: `translate(${at.toFixed(1)} ${box.bottom})`},
        s("line", {y2: 4, class: "tick"}), s("text", {y: 17, "text-anchor": anchor}, text));
    }),
    s("line", {x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "base"}),
    s("text", {x: middle, y: box.bottom + 34, "text-anchor": "middle", class: "axis-title"}, axisTitle(xAxis)),
    s("text", {x: 2, y: 12, class: "axis-title"}, `↑ ${axisTitle(yAxis)}`));
}

function diagonals(x, y, band, box) {
  const [low, high] = [Math.max(x.domain[0], y.domain[0]), Math.min(x.domain[1], y.domain[1])];
  const line = (factor, kind) => {
    const from = Math.max(low, low / factor), to = Math.min(high, high / factor);
    return s("path", {d: `M${x(from)} ${y(from * factor)}L${x(to)} ${y(to * factor)}`, class: kind});
  };
  return s("g", {}, line(1, "diagonal"), band > 1 ? [line(band, "band"), line(1 / band, "band")] : []);
}

function drawSeries(series, x, y) {
  const group = s("g", {});
  const at = series.points.map((p) => [x(p[0]), y(p[1])]);
  if (series.shape === "line" || series.shape === "steps") {
    const path = at.map(([px, py], i) => {
      if (!i) return `M${px.toFixed(1)} ${py.toFixed(1)}`;
      return series.shape === "steps" ? `H${px.toFixed(1)}V${py.toFixed(1)}` : `L${px.toFixed(1)} ${py.toFixed(1)}`;
    }).join("");
    group.append(s("path", {d: path, class: `line-${series.color}`}));
    if (at.length < 3 || series.points.some((p) => p[5])) {
      series.points.forEach((p, i) => group.append(s("circle", {cx: at[i][0], cy: at[i][1], r: p[5] ? 4.2 : 2.2, class: `fill-${series.color}`})));
    }
  }
  series.points.forEach((p, i) => {
    if (p[3] !== null && p[4] !== null && p[4] > p[3]) {
      group.append(s("line", {x1: at[i][0], x2: at[i][0], y1: y(p[3]), y2: y(p[4]), class: `error-${series.color}`}));
    }
    if (series.shape === "points") {
      group.append(s("path", {d: MARKS[series.mark](p[5] ? 5 : 3.6), transform: `translate(${at[i][0].toFixed(1)} ${at[i][1].toFixed(1)})`, class: markClass(series)}));
    }
  });
  return group;
}

function hoverPoints(svg, points, figure) {
  if (!points.length) return;
  const ring = s("circle", {r: 8, class: "halo", visibility: "hidden"});
  svg.append(ring);
  let at = -1;
  const ordered = [...points].sort((a, b) => a.px - b.px || a.py - b.py);
  const show = (point, spoken) => {
    ring.setAttribute("cx", point.px); ring.setAttribute("cy", point.py); ring.setAttribute("visibility", "visible");
    const box = svg.getBoundingClientRect();
    tooltip.show(point.text, box.left + point.px, box.top + point.py);
    if (spoken) announce(point.text.replaceAll("\n", ", "));
  };
  const hide = () => { ring.setAttribute("visibility", "hidden"); tooltip.hide(); };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const near = nearest(points, event.clientX - box.left, event.clientY - box.top, 26);
    if (near) show(near, false); else hide();
  });
  svg.addEventListener("pointerleave", hide);
  svg.setAttribute("tabindex", "0");
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-roledescription", "chart");
  svg.setAttribute("aria-label", `${axisTitle(figure.y)} over ${axisTitle(figure.x)}; arrow keys read its ${points.length} values`);
  svg.addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1}[event.key];
    if (event.key === "Escape") { hide(); return; }
    if (!step) return;
    event.preventDefault();
    at = clamp(at + step, 0, ordered.length - 1);
    show(ordered[at], true);
  });
  svg.addEventListener("blur", hide);
}

function nearest(points, x, y, reach) {
  let best = null, least = reach * reach;
  for (const point of points) {
    const away = (point.px - x) ** 2 + (point.py - y) ** 2;
    if (away < least) { least = away; best = point; }
  }
  return best;
}

function drawBars(figure, width) {
  const names = figure.y.names, series = figure.series.filter((one) => one.points.length), thick = series.length > 1 ? 9 : 14;
  const row = series.length * thick + 8, top = 4;
  const most = width < 480 ? 18 : 34;
  const shown = names.map((name) => shortened(name, most));
  const left = Math.min(Math.max(...shown.map((t) => textWidth(t, 12))) + 10, width * 0.42), right = width - 56;
  const height = top + names.length * row + 6;
  const x = linearScale([0, Math.max(...series.flatMap((one) => one.points.map((p) => p[0])), 1e-12)], [left, right]);
  const svg = s("svg", {class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "presentation"});
  names.forEach((name, i) => {
    svg.append(s("text", {x: left - 8, y: top + i * row + (row - 8) / 2, dy: "0.36em", "text-anchor": "end"}, s("title", {}, name), shown[i]));
  });
  series.forEach((one, k) => one.points.forEach((p) => {
    const y = top + p[1] * row + k * thick, end = x(Math.max(p[0], 0));
    svg.append(s("rect", {x: left, y, width: Math.max(end - left, 0.5), height: thick - 2, rx: 2, class: `fill-${one.color}`}, s("title", {}, p[2])));
    svg.append(s("text", {x: end + 5, y: y + (thick - 2) / 2, dy: "0.36em", class: "value"}, withUnit(p[0], figure.x.unit)));
  }));
  return svg;
}
