// A page of figures alone.
(() => {
  const data = JSON.parse(byId("data").textContent);
  for (const figure of data.figures) drawFigure(byId(figure.key), figure);
})();
