// The live log: its last lines, earlier ones when the viewer scrolls up, new ones as they come, search.
const KEPT = 5000; // lines in the page; the log itself may have any number
const FIRST = 500;

export function start(view) {
  const tools = document.querySelector("[data-log-tools]");
  const said = document.querySelector("[data-log-said]");
  const follow = tools.querySelector("[data-log-follow]");
  const wrap = tools.querySelector("[data-log-wrap]");
  const search = tools.querySelector("[data-log-search]");
  const base = `/api/v1/jobs/${encodeURIComponent(view.dataset.log)}/log`;
  let attempt = null;
  let first = 0; // where the first shown line begins
  let last = -1; // where the last shown line begins
  let end = 0; // where the shown lines end
  let stream = null;
  let loading = false;
  let found = null;

  function line(each) {
    const element = document.createElement("span");
    element.className = "line";
    element.dataset.at = each.at;
    // Only ever text: what a script prints is nobody's markup.
    element.textContent = (each.continues ? "… " : "") + each.text + (each.cut ? ` … (+${each.cut.toLocaleString()} B)` : "") + "\n";
    return element;
  }
  function clear() { view.replaceChildren(); first = end = 0; last = -1; }
  function say(text) { said.textContent = text; }
  function empty() {
    if (!view.childElementCount) view.dataset.empty = view.dataset.none; else delete view.dataset.empty;
  }
  function append(lines) {
    for (const each of lines) {
      // An open line comes again, longer, at the same place.
      if (each.at === last) view.lastElementChild?.remove();
      if (each.at < last) continue;
      view.append(line(each));
      last = each.at;
    }
    while (view.childElementCount > KEPT) view.firstElementChild.remove();
    const top = view.querySelector("[data-at]");
    if (top) first = Number(top.dataset.at);
    empty();
    if (follow.checked) view.scrollTop = view.scrollHeight;
  }
  async function ask(query) {
    const which = attempt === null ? "" : `&attempt=${attempt}`;
    const answer = await fetch(`${base}${query}${which}`, { headers: { accept: "application/json" } });
    if (!answer.ok) throw new Error(String(answer.status));
    return answer.json();
  }
  async function showEnd() {
    clear();
    const range = await ask(`?tail=${FIRST}`);
    attempt = range.attempt;
    append(range.lines);
    end = range.next;
    empty();
    if (view.hasAttribute("data-live")) listen();
  }
  async function showFrom(offset) {
    hush();
    clear();
    const range = await ask(`?offset=${offset}&limit=262144`);
    attempt = range.attempt;
    append(range.lines);
    end = range.next;
  }
  async function showMore() {
    if (loading || stream) return;
    loading = true;
    try {
      const range = await ask(`?offset=${end}&limit=262144`);
      if (range.next > end) { append(range.lines); end = range.next; }
    } finally { loading = false; }
  }
  async function showEarlier() {
    if (loading || !first) return;
    loading = true;
    try {
      const range = await ask(`?before=${first}&limit=65536`);
      const height = view.scrollHeight;
      const lines = range.lines.filter((each) => each.at < first).map(line);
      view.prepend(...lines);
      first = lines.length ? Number(lines[0].dataset.at) : 0;
      view.scrollTop += view.scrollHeight - height;
      // The page holds so many lines: what is far below goes, and comes again when it is wanted.
      if (view.childElementCount > 2 * KEPT) await showFrom(first);
    } finally { loading = false; }
  }
  function hush() { stream?.close(); stream = null; }
  function listen() {
    hush();
    const which = attempt === null ? "" : `&attempt=${attempt}`;
    stream = new EventSource(`${base}/follow?offset=${Math.max(end, 0)}${attempt === null ? "" : which}`);
    stream.addEventListener("lines", (event) => {
      const told = JSON.parse(event.data);
      if (told.attempt !== undefined && attempt !== null && told.attempt !== attempt) divide(told.attempt);
      append(told.lines);
      if (told.next !== undefined) end = told.next;
    });
    stream.addEventListener("attempt-ended", () => {
      // The next attempt has a log of its own: follow whichever is the newest.
      hush();
      setTimeout(async () => {
        const before = attempt;
        attempt = null;
        const range = await ask(`?tail=${FIRST}`).catch(() => null);
        if (!range) return;
        attempt = range.attempt;
        if (attempt !== before) { last = -1; divide(attempt); append(range.lines); end = range.next; }
        if (!range.ended) listen();
      }, 1500);
    });
    stream.addEventListener("end", hush);
  }
  function divide(number) {
    const element = document.createElement("span");
    element.className = "attempt";
    element.textContent = `${view.dataset.attempt} ${number}`;
    view.append(element);
    attempt = number;
    last = -1;
  }

  view.addEventListener("scroll", () => {
    if (view.scrollTop < 40) showEarlier();
    const below = view.scrollHeight - view.clientHeight - view.scrollTop;
    if (below > 40) follow.checked = false;
    else showMore();
  });
  follow.addEventListener("change", () => { if (follow.checked) showEnd(); });
  wrap.addEventListener("change", () => view.classList.toggle("nowrap", !wrap.checked));
  tools.querySelector("[data-log-start]").addEventListener("click", () => { follow.checked = false; showFrom(0).then(() => { view.scrollTop = 0; }); });
  tools.querySelector("[data-log-end]").addEventListener("click", () => { follow.checked = true; showEnd(); });
  search.addEventListener("input", () => { found = null; });
  search.addEventListener("submit", async (event) => {
    event.preventDefault();
    const q = search.querySelector("input").value;
    if (!q) return;
    let from = found === null ? 0 : found + 1;
    for (;;) {
      const answer = await ask(`/search?q=${encodeURIComponent(q)}&from=${from}&limit=1`);
      const [hit] = answer.hits;
      if (hit) {
        found = hit.at;
        follow.checked = false;
        await showFrom(hit.line);
        mark(hit);
        say(`${hit.before}${hit.match}${hit.after}`);
        return;
      }
      if (answer.next === null || answer.next === undefined) break;
      from = answer.next; // a large log is looked through in parts
    }
    found = null;
    say(view.dataset.missing);
    view.dispatchEvent(new CustomEvent("toast", { bubbles: true, detail: view.dataset.missing }));
  });
  function mark(hit) {
    const element = view.querySelector(`[data-at="${hit.line}"]`) ?? view.querySelector("[data-at]");
    if (!element) return;
    const text = element.textContent;
    const at = text.toLowerCase().indexOf(hit.match.toLowerCase());
    if (at >= 0) {
      const marked = document.createElement("mark");
      marked.textContent = text.slice(at, at + hit.match.length);
      element.replaceChildren(text.slice(0, at), marked, text.slice(at + hit.match.length));
    }
    view.scrollTop = element.offsetTop - view.offsetTop - 60;
  }
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && view.hasAttribute("data-live") && !stream && follow.checked) showEnd();
  });
  showEnd().catch(() => empty());
}
