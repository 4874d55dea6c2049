// The box above a list of boxes, and the bar of actions that counts them.
export function start(form) {
  const all = form.querySelector("[data-all]");
  const bar = form.querySelector("[data-bar]");
  const boxes = () => [...form.querySelectorAll("input[name=job]")];
  function count() {
    const chosen = boxes().filter((box) => box.checked).length;
    bar.hidden = chosen === 0;
    bar.querySelector("[data-count]").textContent = chosen;
    if (all) { all.checked = chosen > 0 && chosen === boxes().length; all.indeterminate = chosen > 0 && !all.checked; }
  }
  form.addEventListener("change", (event) => {
    if (event.target === all) for (const box of boxes()) box.checked = all.checked;
    count();
  });
  document.addEventListener("htmx:after:swap", count);
  count();
}
