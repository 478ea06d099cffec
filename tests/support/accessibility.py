"""Checks how accessible a page in a browser is: with axe-core, and where axe-core cannot see."""

from __future__ import annotations

from typing import Any, Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, ViewportSize

Scheme = Literal["light", "dark"]
WIDE: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
NARROW: ViewportSize = {"width": 320, "height": 640}
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
COLOUR_RULES = ["color-contrast", "link-in-text-block"]
OPTIONS = {"resultTypes": ["violations"], "preload": False}
ALL_RULES = {**OPTIONS, "runOnly": TAGS}
Runs = tuple[tuple[ViewportSize, Scheme, dict[str, Any]], ...]
# Every rule runs at both widths and in both modes, and those about colours in every combination.
RUNS: Runs = (
    (WIDE, "light", ALL_RULES),
    (WIDE, "dark", {**OPTIONS, "runOnly": COLOUR_RULES}),
    (PHONE, "dark", ALL_RULES),
    (PHONE, "light", {**OPTIONS, "runOnly": COLOUR_RULES}),
)
LIGHT_RUNS: Runs = ((WIDE, "light", ALL_RULES), (PHONE, "light", ALL_RULES))
# Whether a page has the same colours in both modes.
LIGHT_ONLY = """
() => getComputedStyle(document.documentElement).colorScheme === "light" &&
  [...document.styleSheets, ...document.adoptedStyleSheets].every((sheet) =>
    ![sheet.media.mediaText, ...[...sheet.cssRules].map((rule) => rule.cssText)].some(
      (text) => text.includes("prefers-color-scheme")))
"""
# axe-core spends half its time on colours. It parses the background of every element behind every
# text again, and stores each private member of a colour in a WeakMap, which is slow to collect as
# garbage. Here, the members are properties, and each colour is parsed once.
AXE = f"""
(() => {{
  class WeakMap {{
    #key = Symbol();
    has(object) {{ return this.#key in object; }}
    get(object) {{ return object[this.#key]; }}
    set(object, value) {{ object[this.#key] = value; return this; }}
    delete(object) {{ return delete object[this.#key]; }}
  }}
  class WeakSet extends WeakMap {{
    add(object) {{ return this.set(object, true); }}
  }}
  {AXE_SCRIPT}
  const {{ Color }} = axe.commons.color;
  const {{ parseString }} = Color.prototype;
  const known = new Map();
  Color.prototype.parseString = function (text) {{
    if (!known.has(text)) {{
      const {{ r, g, b, alpha }} = parseString.call(new Color(0, 0, 0), text);
      known.set(text, {{ r, g, b, alpha }});
    }}
    return Object.assign(this, known.get(text));
  }};
}})()
"""
# Constructed style sheets are not subject to the page's Content-Security-Policy.
ADD_STYLE = """
(css) => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(css);
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
}
"""
# WCAG 2.2, success criterion 1.4.12
TEXT_SPACING = """
* { line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important; }
p { margin-bottom: 2em !important; }
"""
# What is wider than the window, or cut off by an element around it. Elements that people can
# scroll are excluded, and those that only screen readers use.
OVERFLOWING = """
() => {
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page");
  const isHidden = (element) => element.closest(".hidden, [hidden], .skip, .stack thead");
  for (const element of document.body.querySelectorAll("*")) {
    if (isHidden(element) || element.closest("svg")) continue;
    const style = getComputedStyle(element);
    const isCut = element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0;
    const start = element.outerHTML.slice(0, 99);
    if (isCut && ["hidden", "clip"].includes(style.overflowX)) found.push(`cut: ${start}`);
    const box = element.getBoundingClientRect();
    const scrolls = element.parentElement?.closest(".scroll, pre");
    if (!scrolls && box.width && (box.right > innerWidth + 1 || box.left < -1)) {
      found.push(`from ${box.left} to ${box.right}: ${start}`);
    }
  }
  return found;
}
"""
# Both sizes are read in one step, because a page may update itself.
FIXED_TEXTS = """
() => {
  const texts = [...document.body.querySelectorAll("*")].filter((element) =>
    [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) &&
    !["TITLE", "DESC", "OPTION"].includes(element.tagName.toUpperCase()));
  const size = (element) => parseFloat(getComputedStyle(element).fontSize);
  const before = texts.map(size);
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("html { font-size: 200%; }");
  document.adoptedStyleSheets = [sheet];
  const fixed = texts.filter((text, index) => Math.abs(size(text) - 2 * before[index]) > 0.2);
  document.adoptedStyleSheets = [];
  return fixed.map((element) => element.outerHTML.slice(0, 80));
}
"""


def violations(page: Page) -> list[str]:
    """Return what axe-core finds against WCAG 2.2 AA and best practices.

    It checks the page at both widths and in both modes, unless they have the same colours.
    """
    page.evaluate(AXE)
    found = []
    for size, scheme, options in LIGHT_RUNS if page.evaluate(LIGHT_ONLY) else RUNS:
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme)
        result: dict[str, Any] = page.evaluate("(options) => axe.run(document, options)", options)
        found += [
            f"{size['width']} {scheme} {rule['id']}: {node['html'][:200]}: {node['failureSummary']}"
            for rule in result["violations"]
            for node in rule["nodes"]
        ]
    return found


def open_details(page: Page) -> None:
    """Open all collapsed details of the page."""
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")


def overflowing(page: Page) -> list[str]:
    """Return what is wider than the window, or cut off."""
    found: list[str] = page.evaluate(OVERFLOWING)
    return found


def fixed_texts(page: Page) -> list[str]:
    """Return the texts whose size does not double with the browser's font size."""
    found: list[str] = page.evaluate(FIXED_TEXTS)
    return found


def repeated_names(page: Page) -> list[str]:
    """Return the accessible names that several buttons of the page have."""
    names: list[str] = page.get_by_role("button").evaluate_all(
        "(buttons) => buttons.map((button) => button.ariaLabel || button.innerText)"
    )
    return sorted({name for name in names if names.count(name) > 1})
