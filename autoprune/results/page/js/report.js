// Puts the parts of the report into their places.
(() => {
  for (const figure of DATA.figures) drawFigure(byId(figure.key), figure);
  if (DATA.take !== null) state.open(TRIALS[DATA.take]);
  if (byId("scatter")) {
    drawScatter(byId("scatter"), byId("scatter-controls"), byId("scatter-legend"));
    drawFilters(byId("filters"));
    if (!drawParallel(byId("parallel"))) byId("parallel-part").hidden = true;
    drawListing(byId("listing"));
  }
  if (byId("config-place")) drawConfig(byId("config-place"));
  for (const button of document.querySelectorAll("[data-look-at]")) {
    const trial = TRIALS.find((one) => one.number === Number(button.dataset.lookAt));
    if (!trial || !byId("config-place")) continue;
    button.hidden = false;
    button.addEventListener("click", () => {
      state.place(0, trial);
      byId("config").scrollIntoView({behavior: window.matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth"});
    });
  }
  document.documentElement.dataset.ready = "yes";
})();
