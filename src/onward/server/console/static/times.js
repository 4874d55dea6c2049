// Moments in the viewer's zone and language; the exact one, with its zone, is the title.
const language = document.documentElement.lang;
const full = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });
const exact = new Intl.DateTimeFormat(language, { dateStyle: "full", timeStyle: "long" });
const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
const units = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60]];

export function ago(moment, now = Date.now()) {
  const seconds = (moment - now) / 1000;
  for (const [unit, length] of units)
    if (Math.abs(seconds) >= length) return relative.format(Math.trunc(seconds / length), unit);
  return relative.format(Math.trunc(seconds), "second");
}

export function showTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    element.textContent = element.dataset.show === "ago" ? ago(moment) : full.format(moment);
    element.title = exact.format(moment);
  }
}
setInterval(() => {
  for (const element of document.querySelectorAll('time[data-show="ago"]'))
    element.textContent = ago(new Date(element.dateTime));
}, 10000);
