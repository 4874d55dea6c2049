// Parts that come anew are as the server has them: what the viewer opened in them is opened again.
// Only what has an id can be known again.
export function startKeeping() {
  const opened = new Map();
  document.addEventListener("htmx:before:swap", () => {
    for (const each of document.querySelectorAll("details[id]")) opened.set(each.id, each.open);
  });
  document.addEventListener("htmx:after:swap", () => {
    for (const each of document.querySelectorAll("details[id]"))
      if (opened.has(each.id)) each.open = opened.get(each.id);
    opened.clear();
  });
}
