// Updates the regions of a page that are marked `data-live`. Every page also works without it.
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
    if (isOn && !document.hidden) timer = setTimeout(update, delay);
  };

  async function update() {
    const headers = { "X-Live": "1" };
    if (etag) headers["If-None-Match"] = etag;
    try {
      const response = await fetch(location.href, { headers, cache: "no-store", redirect: "manual" });
      if (response.status === 401 || response.type === "opaqueredirect") return location.reload();
      if (response.status === 200) {
        const text = await response.text();
        if (isOn) show(new DOMParser().parseFromString(text, "text/html"));
        etag = response.headers.get("ETag");
      } else if (response.status !== 304) throw new Error(response.statusText);
      failures = 0;
    } catch {
      failures += 1;
    }
    showState();
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
    if (!isAllShown) etag = null; // so that the next response contains the skipped regions
    document.title = page.title || document.title;
  }

  // Form tokens differ in every response, and users open and close details.
  function isSame(region, next) {
    const plain = (element) => {
      const copy = element.cloneNode(true);
      for (const field of copy.querySelectorAll("input[name=csrf_token]")) field.remove();
      for (const part of copy.querySelectorAll("details")) part.removeAttribute("open");
      return copy.innerHTML;
    };
    return plain(region) === plain(next);
  }

  // A region with selected text is not replaced.
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

  // Identifies an element among those with the same tag: by its label, its link, or its text.
  const nameOf = (element) =>
    element.getAttribute("aria-label") || element.getAttribute("href") || element.textContent.trim();
  const path = (region, element) => ({ tag: element.tagName, name: nameOf(element), of: element.closest("[id]")?.id });
  const find = (region, wanted) =>
    [...region.querySelectorAll(wanted.tag)].find(
      (element) => nameOf(element) === wanted.name && element.closest("[id]")?.id === wanted.of,
    );

  function showState() {
    button.setAttribute("aria-pressed", String(isOn));
    button.classList.toggle("lost", isOn && failures > 0);
    button.textContent = !isOn ? "Paused" : failures ? "No response" : "Live";
    button.title = isOn ? "This page updates by itself. Press to pause." : "Updates are paused. Press to resume.";
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    isOn = !isOn;
    sessionStorage.setItem("live", isOn ? "on" : "off");
    failures = 0;
    showState();
    schedule(0);
  });
  document.addEventListener("visibilitychange", () => schedule(0));
  showState();
  schedule(every);
})();

// Opens the collapsed details that the URL's fragment names.
const unfold = () => {
  const part = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (part && part.tagName === "DETAILS") part.open = true;
};
addEventListener("hashchange", unfold);
addEventListener("DOMContentLoaded", unfold);
