"""A real browser that notices what a person would complain about, and what they would not see."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Playwright, Request, Response

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDTHS = {"wide": (1440, 900), "narrow": (390, 844)}
PATIENCE_MS = 60_000
"""For one thing to happen on a busy machine."""

WCAG = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
"""The rules of axe-core that a page is held to."""
_AXE = Axe()

_FAINT = """() => {
  // Every visible text against what is painted behind it: WCAG 2's contrast.
  const parts = (text) => {
    const found = text.match(/^color\\(srgb ([^)]*)\\)$/);
    if (found) {
      const [r, g, b, , a] = found[1].split(/[ ]+/);
      return [r * 255, g * 255, b * 255, a === undefined ? 1 : Number(a)];
    }
    const [r, g, b, a] = text.replace(/^rgba?\\(|\\)$/g, "").split(/[,\\/ ]+/).map(Number);
    return [r, g, b, a === undefined ? 1 : a];
  };
  const over = (front, back) =>
    [0, 1, 2].map((i) => front[i] * front[3] + back[i] * (1 - front[3]));
  const behind = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      const colour = parts(getComputedStyle(each).backgroundColor);
      if (colour[3]) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reduceRight((back, front) => over(front, back), [255, 255, 255]);
  };
  const light = (rgb) => rgb.map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const faint = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || element.closest("svg, script, :disabled, .toast")) continue;
    if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const back = behind(element);
    const front = over(parts(getComputedStyle(element).color), back);
    const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) faint.add(`${node.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return [...faint];
}"""

_WIDE = """() => {
  // What sticks out of the page to the right.
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.querySelectorAll("body *")]
    .filter((e) => e.getBoundingClientRect().right > width + 1 && !e.closest(".scroll, pre, .tabs"))
    .map((e) => `${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 40)}`).slice(0, 5)
    .concat(`the page is ${document.documentElement.scrollWidth} wide`);
}"""

SHOWN_FOLDER = "/srv/training"
_RENAME = """([from, to]) => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode())
    if (node.data.includes(from)) node.data = node.data.replaceAll(from, to);
}"""

_UNREACHABLE = """() =>
  // What is wider than its place, or is a table that will be between the two widths, where no key
  // scrolls it or nobody is told what it is.
  [...document.querySelectorAll("main *, dialog[open] *")]
    .filter((e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX) && !e.closest(".tabs")
      && e.clientWidth && (e.scrollWidth > e.clientWidth + 1 || e.querySelector("table")))
    .filter((e) => e.tabIndex < 0 || !(e.matches("pre, textarea, input")
      || e.ariaLabel || document.getElementById(e.getAttribute("aria-labelledby"))))
    .map((e) => `no key scrolls ${e.outerHTML.slice(0, 120)}`)"""

_FOCUS_LOST = """() => {
  // What has the focus is in the window, not covered, and drawn otherwise than the rest.
  const element = document.activeElement;
  if (element === document.body) return "";  // the browser's own bars come after the last
  const box = element.getBoundingClientRect();
  const shown = element.closest("label") ?? element;
  const line = [element, shown].some((e) => getComputedStyle(e).outlineStyle !== "none");
  const x = Math.min(Math.max(box.left + box.width / 2, 1), innerWidth - 1);
  const y = Math.min(Math.max(box.top + Math.min(box.height / 2, 20), 1), innerHeight - 1);
  const top = document.elementFromPoint(x, y);
  const inside = box.bottom > 0 && box.top < innerHeight;
  if (line && inside && (element.contains(top) || shown.contains(top))) return "";
  return `${element.outerHTML.slice(0, 160)} line ${line} inside ${inside} under ${
    top?.outerHTML.slice(0, 80)}`;
}"""


@dataclass
class Sight:
    """One window. `complaints` must be empty in the end."""

    context: BrowserContext
    page: Page
    complaints: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()
    """Parts of complaints that are none just now."""

    def watch(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self._complain(f"error: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._answered)

    @contextmanager
    def expecting(self, *parts: str) -> Iterator[None]:
        """Complaints that contain one of these are part of the story."""
        before, self.expected = self.expected, parts
        try:
            yield
        finally:
            self.expected = before

    def look(self, language: str, theme: str) -> None:
        """As if chosen with the switch: kept in cookies."""
        self.context.add_cookies(
            [
                {"name": name, "value": value, "domain": "127.0.0.1", "path": "/"}
                for name, value in (("language", language), ("theme", theme))
            ]
        )

    def resize(self, width: str) -> None:
        across, down = WIDTHS[width]
        self.page.set_viewport_size({"width": across, "height": down})

    def picture(self, path: Path, *, folder: Path) -> None:
        """As a palette picture: pages have few colours, and a repository keeps every byte.

        `folder` is the test's own; the picture names one that a reader might have.
        """
        self.page.evaluate(_RENAME, [str(folder), SHOWN_FOLDER])
        path.parent.mkdir(parents=True, exist_ok=True)
        shot = Image.open(io.BytesIO(self.page.screenshot(animations="disabled", caret="hide")))
        shot = shot.convert("RGB")
        # The most common colours exactly: a palette that is averaged would tint every ground.
        counts = shot.getcolors(shot.width * shot.height) or []
        common = [colour for _, colour in sorted(counts, reverse=True)[:256]]
        palette = Image.new("P", (1, 1))
        palette.putpalette(bytes(part for colour in common for part in colour))
        shot.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)

    def sticks_out(self) -> list[str]:
        found: list[str] = self.page.evaluate(_WIDE)
        return found

    def is_faint(self) -> list[str]:
        found: list[str] = self.page.evaluate(_FAINT)
        return found

    def violations(self) -> list[str]:
        """Of WCAG 2, A and AA, as far as axe-core can tell; and what only a mouse scrolls."""
        options = {"runOnly": {"type": "tag", "values": WCAG}, "resultTypes": ["violations"]}
        found = _AXE.run(self.page, options=options).response["violations"]
        unreachable: list[str] = self.page.evaluate(_UNREACHABLE)
        return unreachable + [
            f"{each['id']}: {each['help']}: {node['html'][:200]}"
            for each in found
            for node in each["nodes"]
        ]

    def tab_to(self, selector: str, *, key: str = "Tab", most: int = 80) -> None:
        """From where the focus is, by Tab alone; on the way it is always in sight."""
        for _ in range(most):
            self.page.keyboard.press(key)
            lost = self.page.evaluate(_FOCUS_LOST)
            assert not lost, f"on the way to {selector} the focus is not seen: {lost}"
            if self.page.evaluate("(s) => document.activeElement.matches(s)", selector):
                return
        raise AssertionError(f"{key} does not lead to {selector}")

    def back_to(self, selector: str) -> None:
        self.tab_to(selector, key="Shift+Tab")

    def reach(self, text: str, *, most: int = 80) -> bool:
        """Whether Tab, pressed again and again, comes to something that says `text`."""
        self.page.evaluate("document.activeElement?.blur(); scrollTo(0, 0)")
        for _ in range(most):
            self.page.keyboard.press("Tab")
            # As it is seen: not what a style hides.
            said = self.page.evaluate("document.activeElement?.innerText?.trim() ?? ''")
            if said == text:
                return True
        return False

    def _said(self, message: ConsoleMessage) -> None:
        # Chromium says "warning" of what it merely advises.
        if message.type == "error":
            self._complain(f"console: {message.text} ({message.location.get('url')})")

    def _failed(self, request: Request) -> None:
        # A page that is left breaks off its streams.
        if "ERR_ABORTED" not in (request.failure or ""):
            self._complain(f"request: {request.method} {request.url} {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self._complain(f"answer: {response.status} {response.request.method} {response.url}")

    def _complain(self, text: str) -> None:
        if not any(part in text for part in self.expected):
            self.complaints.append(text)


@contextmanager
def sight(playwright: Playwright) -> Iterator[Sight]:
    """A window that speaks English, in a light room."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    try:
        across, down = WIDTHS["wide"]
        context = browser.new_context(
            viewport={"width": across, "height": down}, locale="en-GB", color_scheme="light",
            reduced_motion="reduce",
        )  # fmt: skip
        context.set_default_timeout(PATIENCE_MS)
        found = Sight(context, context.new_page())
        found.watch()
        yield found
    finally:
        browser.close()


def texts(page: Page, selector: str) -> list[str]:
    """Of all elements, as they are now."""
    found: Any = page.locator(selector).all_text_contents()
    return [str(text).strip() for text in found]
