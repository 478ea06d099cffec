// Keeps the parts of a page that are marked `data-live` as the record is. Everything works without it.
"use strict";

(() => {
  const regions = () => [...document.querySelectorAll("[data-live]")];
  const button = document.getElementById("live");
  if (!button || !regions().length) return;

  const every = 1000 * Math.min(...regions().map((region) => Number(region.dataset.every)));
  let etag = null;
  let failures = 0;
  let timer = null;
  let isOn = sessionStorage.getItem("live") !== "off";

  const schedule = (delay) => {
    clearTimeout(timer);
    if (isOn && !document.hidden) timer = setTimeout(ask, delay);
  };

  async function ask() {
    const headers = { "X-Live": "1" };
    if (etag) headers["If-None-Match"] = etag;
    try {
      const answer = await fetch(location.href, { headers, cache: "no-store", redirect: "manual" });
      if (answer.status === 401 || answer.type === "opaqueredirect") return location.reload();
      if (answer.status === 200) {
        const text = await answer.text();
        if (isOn) show(new DOMParser().parseFromString(text, "text/html"));
        etag = answer.headers.get("ETag");
      } else if (answer.status !== 304) throw new Error(answer.statusText);
      failures = 0;
    } catch {
      failures += 1;
    }
    say();
    schedule(every * Math.min(2 ** failures, 16));
  }

  function show(page) {
    let isAllShown = true;
    for (const region of regions()) {
      const name = region.dataset.live;
      const next = page.querySelector(`[data-live="${CSS.escape(name)}"]`);
      if (!next || isSame(region, next)) continue;
      if (isInUse(region)) isAllShown = false;
      else replace(region, next);
    }
    if (!isAllShown) etag = null; // what was left out is asked for again
    document.title = page.title || document.title;
  }

  // Tokens of forms differ every time, and what was opened by hand is no news.
  function isSame(region, next) {
    const plain = (element) => {
      const copy = element.cloneNode(true);
      for (const field of copy.querySelectorAll("input[name=csrf_token]")) field.remove();
      for (const part of copy.querySelectorAll("details")) part.removeAttribute("open");
      return copy.innerHTML;
    };
    return plain(region) === plain(next);
  }

  // Nothing is taken from under a selection.
  function isInUse(region) {
    const selection = getSelection();
    return !selection.isCollapsed && region.contains(selection.anchorNode);
  }

  function replace(region, next) {
    const open = new Set([...region.querySelectorAll("details[open][id]")].map((part) => part.id));
    const focused = region.contains(document.activeElement) ? path(region, document.activeElement) : null;
    region.replaceChildren(...document.importNode(next, true).childNodes);
    for (const part of region.querySelectorAll("details[id]")) part.open = open.has(part.id);
    if (focused) find(region, focused)?.focus({ preventScroll: true });
  }

  // An element's name among its kind: its label, where it leads, or its words.
  const nameOf = (element) =>
    element.getAttribute("aria-label") || element.getAttribute("href") || element.textContent.trim();
  const path = (region, element) => ({ tag: element.tagName, name: nameOf(element), of: element.closest("[id]")?.id });
  const find = (region, wanted) =>
    [...region.querySelectorAll(wanted.tag)].find(
      (element) => nameOf(element) === wanted.name && element.closest("[id]")?.id === wanted.of,
    );

  function say() {
    button.setAttribute("aria-pressed", String(isOn));
    button.classList.toggle("lost", isOn && failures > 0);
    button.textContent = !isOn ? "Paused" : failures ? "No answer" : "Live";
    button.title = isOn ? "The page follows the record; press to hold it still" : "The page is held still; press to follow the record";
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    isOn = !isOn;
    sessionStorage.setItem("live", isOn ? "on" : "off");
    failures = 0;
    say();
    schedule(0);
  });
  document.addEventListener("visibilitychange", () => schedule(0));
  say();
  schedule(every);
})();

// A link to a part of this page opens it, if it is folded up.
const unfold = () => {
  const part = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (part && part.tagName === "DETAILS") part.open = true;
};
addEventListener("hashchange", unfold);
addEventListener("DOMContentLoaded", unfold);
