// Curves of metrics on one axis of steps over all attempts; they grow while the job runs.
const POINTS = 600;

export function start(box) {
  const place = box.querySelector(".charts");
  const nothing = box.querySelector("[data-nothing]");
  const drawn = new Map();

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }
  function options(width) {
    const line = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    return {
      width, height: 190, legend: { show: true, live: true }, cursor: { y: false },
      scales: { x: { time: false } },
      axes: [{ ...line, size: 34 }, { ...line, size: 58 }],
      series: [{ label: box.dataset.step }, { stroke: colour("--accent"), width: 1.75, points: { show: false }, spanGaps: false }],
    };
  }
  function chart(name) {
    const section = document.createElement("section");
    section.className = "chart";
    const title = document.createElement("h3");
    title.textContent = name;
    const plot = document.createElement("div");
    plot.className = "plot";
    section.append(title, plot);
    place.append(section);
    const settings = options(plot.clientWidth || 340);
    settings.series[1].label = name;
    const made = new window.uPlot(settings, [[], []], plot);
    new ResizeObserver(() => made.setSize({ width: plot.clientWidth, height: 190 })).observe(plot);
    drawn.set(name, made);
    return made;
  }
  async function show() {
    const answer = await fetch(`${box.dataset.charts}?points=${POINTS}`, { headers: { accept: "application/json" } });
    if (!answer.ok) return;
    const { series } = await answer.json();
    nothing.hidden = series.length > 0;
    for (const { name, points } of series) {
      const made = drawn.get(name) ?? chart(name);
      made.root.closest(".chart").dataset.points = points.length;
      const last = points.at(-1);
      // A canvas says nothing by itself.
      made.root.setAttribute("role", "img");
      made.root.setAttribute("aria-label", last ? `${name} ${last[1]} (${box.dataset.step} ${last[0]})` : name);
      made.setData([points.map((point) => point[0]), points.map((point) => point[1])]);
    }
  }
  show();
  if (box.hasAttribute("data-live"))
    setInterval(() => { if (!document.hidden) show(); }, 2000);
}
