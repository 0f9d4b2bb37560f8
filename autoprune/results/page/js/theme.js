// Light, dark, or what the system says; kept for the next visit where the browser lets a file remember.
(() => {
  const button = byId("theme");
  if (!button) return;
  const remembered = () => { try { return localStorage.getItem("autoprune-theme"); } catch { return null; } };
  const remember = (value) => { try { localStorage.setItem("autoprune-theme", value); } catch { /* a file may not */ } };
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const shown = () => document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  const label = () => {
    const next = shown() === "dark" ? "light" : "dark";
    button.setAttribute("aria-label", `Use the ${next} theme`);
    button.title = `Use the ${next} theme`;
  };
  const saved = remembered();
  if (saved === "dark" || saved === "light") document.documentElement.dataset.theme = saved;
  button.hidden = false;
  label();
  dark.addEventListener("change", label);
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = shown() === "dark" ? "light" : "dark";
    remember(document.documentElement.dataset.theme);
    label();
  });
})();
