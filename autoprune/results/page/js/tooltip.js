// One small card for all figures; it follows the pointer or the point that the keyboard is on.
const tooltip = (() => {
  let card = null;
  function make() {
    card = document.body.appendChild(h("div", {class: "tooltip", hidden: true, "aria-hidden": "true"}));
  }
  return {
    // content: a node or text with newlines; x and y in the window.
    show(content, x, y) {
      if (!card) make();
      card.replaceChildren(...(typeof content === "string" ? content.split("\n").map((line, i) =>
        h("div", {class: i ? null : "tooltip-head"}, line)) : [content]));
      card.hidden = false;
      const {width, height} = card.getBoundingClientRect();
      const left = x + 14 + width > window.innerWidth ? x - 14 - width : x + 14;
      const top = y + 14 + height > window.innerHeight ? y - 14 - height : y + 14;
      card.style.left = `${clamp(left, 4, Math.max(4, window.innerWidth - width - 4))}px`;
      card.style.top = `${clamp(top, 4, Math.max(4, window.innerHeight - height - 4))}px`;
    },
    hide() {
      if (card) card.hidden = true;
    },
  };
})();
window.addEventListener("scroll", () => tooltip.hide(), {passive: true});
