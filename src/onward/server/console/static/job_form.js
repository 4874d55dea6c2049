// The form of a new job: rows for more inputs, and the dialog that browses locations.
export function start(form) {
  const add = form.querySelector("[data-add-input]");
  add?.addEventListener("click", () => {
    const spare = form.querySelector("[data-spare][hidden]");
    if (spare) { spare.hidden = false; spare.querySelector("input").focus(); }
    if (!form.querySelector("[data-spare][hidden]")) add.hidden = true;
  });
  form.querySelector("[aria-invalid=true]")?.closest("details")?.setAttribute("open", "");
  form.querySelector("[aria-invalid=true]")?.focus();

  // Who types a time means the clock in the room.
  const zone = form.querySelector("[data-zone]");
  if (!zone.value) zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone;

  // The plan, and the times of a schedule, follow what is typed, a moment after the last key.
  const plan = document.getElementById("plan");
  const times = document.getElementById("times");
  let waiting = 0;
  function look(event) {
    clearTimeout(waiting);
    const of = event.target.matches("[name=cron], [name=timezone]") ? times : plan;
    waiting = setTimeout(() => window.htmx.trigger(of, "refresh"), 500);
  }
  form.addEventListener("input", look);
  form.addEventListener("change", look);

  const dialog = document.getElementById("browser");
  const places = document.getElementById("places");
  let field = null;
  function show(location, cursor = "") {
    const query = new URLSearchParams({ location, cursor });
    // What had the focus is gone with the places before: it goes to the first of the new ones.
    window.htmx.ajax("GET", `${dialog.dataset.places}?${query}`, { target: places })
      .then(() => places.querySelector(".places button, nav button:last-of-type")?.focus());
  }
  form.addEventListener("click", (event) => {
    const button = event.target.closest("[data-browse]");
    if (!button) return;
    field = document.getElementById(button.dataset.browse);
    document.getElementById("browser-title").textContent = button.dataset.title;
    show(field.value);
    dialog.showModal();
  });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("[data-place], [data-choose]");
    if (!button) return;
    if (button.dataset.choose !== undefined) {
      field.value = button.dataset.choose;
      field.dispatchEvent(new Event("input", { bubbles: true }));
      dialog.close();
      field.focus();
    } else show(button.dataset.place, button.dataset.cursor ?? "");
  });
}
