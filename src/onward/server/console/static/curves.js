// Reading a drawn chart: the pointer or the arrow keys choose an increment, whose values are said.
// The numbers are those of the table beneath; nothing is asked of the server.
export function start(box) {
  const plots = box.querySelector("[data-plots]");
  const reading = box.querySelector("[data-reading]");
  const heads = [...box.querySelectorAll("[data-numbers] thead th")].map((each) => each.textContent);
  const rows = [...box.querySelectorAll("[data-numbers] tbody tr")];
  const idle = reading.textContent;
  let chosen = -1;

  // A style sheet shows one of two drawings.
  function drawn() { return [...plots.querySelectorAll("svg")].find((each) => each.getBoundingClientRect().width); }
  function place(svg, row) { return svg.querySelector(`circle[data-at="${row.dataset.at}"]`)?.getAttribute("cx"); }
  function show(index) {
    chosen = index;
    const svg = drawn();
    const cursor = svg.querySelector(".cursor");
    const x = index < 0 ? null : place(svg, rows[index]);
    cursor.toggleAttribute("hidden", x === null || x === undefined);
    if (index < 0) { reading.textContent = idle; return; }
    if (x) cursor.setAttribute("transform", `translate(${x})`);
    const values = [...rows[index].cells].map((cell, column) => `${heads[column]} ${cell.textContent}`);
    const text = values.join(" · ");
    if (reading.textContent !== text) reading.textContent = text;
  }
  plots.addEventListener("keydown", (event) => {
    const last = rows.length - 1;
    const to = { ArrowRight: Math.min(chosen + 1, last), ArrowLeft: Math.max(chosen - 1, 0), Home: 0, End: last, Escape: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
  plots.addEventListener("pointermove", (event) => {
    const svg = drawn();
    const at = event.clientX - svg.getBoundingClientRect().left;
    const far = rows.map((row) => Math.abs(Number(place(svg, row) ?? Infinity) - at));
    show(far.indexOf(Math.min(...far)));
  });
  plots.addEventListener("pointerleave", () => show(-1));
  plots.addEventListener("blur", () => show(-1));
}
