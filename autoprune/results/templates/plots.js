(() => {
  "use strict";
  // Okabe-Ito marks read on both grounds; only ink and lines change with the scheme.
  const LIGHT = {text: "#1b1f24", muted: "#5b6570", line: "#e3e6ea", ground: "#ffffff"};
  const DARK = {text: "#e6e8eb", muted: "#9aa3ad", line: "#2f363e", ground: "#1c2025"};
  const FONT = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const coarse = window.matchMedia("(pointer: coarse)").matches;
  let printing = false;

  function themed(entry, width) {
    const ink = dark.matches && !printing ? DARK : LIGHT;
    const layout = structuredClone(entry.figure.layout);
    const axis = {gridcolor: ink.line, linecolor: ink.muted, tickcolor: ink.muted};
    layout.font = {...layout.font, color: ink.text, family: FONT};
    layout.xaxis = {...layout.xaxis, ...axis};
    layout.yaxis = {...layout.yaxis, ...axis};
    layout.hoverlabel = {bgcolor: ink.ground, bordercolor: ink.muted, align: "left", font: {color: ink.text, family: FONT}};
    layout.modebar = {bgcolor: "rgba(0,0,0,0)", color: ink.muted, activecolor: ink.text};
    layout.annotations = (layout.annotations || []).map((a) => ({...a, arrowcolor: ink.muted}));
    // On a narrow screen the legend takes two lines, that of the bars three.
    const bars = entry.figure.data[0].type === "bar";
    const extra = width < 500 && !printing ? (bars ? 44 : 22) : 0;
    layout.margin = {...layout.margin, t: layout.margin.t + extra};
    layout.height = entry.height + extra;
    layout.dragmode = coarse ? false : "zoom";
    if (printing) layout.width = 660;
    return layout;
  }

  function draw() {
    for (const entry of figures) {
      const place = document.getElementById(entry.id);
      const options = {
        responsive: true,
        displaylogo: false,
        displayModeBar: coarse ? false : "hover",
        modeBarButtons: [["toImage", "resetScale2d"]],
        toImageButtonOptions: {filename: entry.id, format: "svg"},
      };
      Plotly.react(place, structuredClone(entry.figure.data), themed(entry, place.clientWidth), options);
    }
  }

  draw();
  dark.addEventListener("change", draw);
  window.addEventListener("beforeprint", () => { printing = true; draw(); });
  window.addEventListener("afterprint", () => { printing = false; draw(); });
})();
