// What every page does in the browser. Without it pages still load, forms still work.
import { showTimes } from "./times.js";
import { startRefreshing } from "./refresh.js";
import { startKeeping } from "./keeping.js";
import { startAsking } from "./asking.js";
import { startCopying } from "./copying.js";

const body = document.body;

export function toast(text) {
  const place = document.getElementById("toast");
  if (!place) return;
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(place.timer);
  place.timer = setTimeout(() => place.classList.remove("shown"), 4000);
}

// htmx: the session's token goes with everything that changes something.
document.addEventListener("htmx:config:request", (event) => {
  event.detail.ctx.request.headers["X-CSRF-Token"] = body.dataset.csrf;
});
document.addEventListener("htmx:response:error", (event) => {
  const { status } = event.detail.ctx.response;
  if (status === 401) location.reload();
  else if (status !== 422) toast(body.dataset.failed);
});
document.addEventListener("htmx:error", () => toast(body.dataset.failed));
document.addEventListener("htmx:after:swap", () => { showTimes(document); prepare(document); });

const features = {
  "[data-log]": () => import("./log.js"),
  "[data-charts]": () => import("./charts.js"),
  "[data-curves]": () => import("./curves.js"),
  "[data-job-form]": () => import("./job_form.js"),
  "[data-select-all]": () => import("./selecting.js"),
};
function prepare(root) {
  for (const [selector, load] of Object.entries(features))
    for (const element of root.querySelectorAll(selector))
      if (!element.prepared) {
        element.prepared = true;
        load().then((module) => module.start(element));
      }
}

document.addEventListener("toast", (event) => toast(event.detail));

// A form that was sent is not sent again by a second click (its key makes that harmless anyway).
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method === "dialog") return;
  const button = event.submitter;
  if (button) setTimeout(() => { button.disabled = true; }, 0);
});
addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("button:disabled")) button.disabled = false;
});

const menu = document.querySelector("details.menu");
const narrow = matchMedia("(max-width: 860px)");
function fold() { menu.open = !narrow.matches; }
if (menu) { fold(); narrow.addEventListener("change", fold); }

showTimes(document);
startRefreshing();
startKeeping();
startAsking();
startCopying(toast);
prepare(document);
