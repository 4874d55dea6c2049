// Live parts: an element with data-refresh (seconds) and hx-trigger="refresh" asks again, but not
// while nobody looks, while a dialog is open, or while the viewer types in it.
export function startRefreshing() {
  let ticks = 0;
  setInterval(() => {
    ticks += 1;
    if (document.hidden || document.querySelector("dialog[open]")) return;
    for (const element of document.querySelectorAll("[data-refresh]")) {
      if (ticks % Number(element.dataset.refresh)) continue;
      const focus = document.activeElement;
      if (focus && element.contains(focus) && focus.matches("select, input:not([type=checkbox]), textarea")) continue;
      window.htmx.trigger(element, "refresh");
    }
  }, 1000);
}
