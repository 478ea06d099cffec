// Updates the regions of a page that are marked `data-live`. Every page also works without it.
"use strict";

(() => {
  const regions = () => [...document.querySelectorAll("[data-live]")];
  const button = document.getElementById("live");
  if (!button || !regions().length) return;

  // Milliseconds between two updates, at least. Without the stream, the page is requested this often.
  const every = 1000 * Math.min(...regions().map((region) => Number(region.dataset.every)));
  const listenAgainAfter = 30000; // milliseconds after the server refused the stream
  const connection = document.getElementById("connection");
  const announcement = document.getElementById("announcement");
  let etag = null;
  let failures = 0;
  let timer = null;
  let stream = null; // of signals: something has changed
  let listenAgainAt = 0;
  let updatedAt = 0;
  let isUpdating = false;
  let isOutdated = false; // there was a signal during an update
  let isLeaving = false; // a form was submitted, whose response a reload would discard
  let isOn = sessionStorage.getItem("live") !== "off";

  const schedule = (delay) => {
    clearTimeout(timer);
    if (isOn && !document.hidden) timer = setTimeout(update, delay);
  };

  const isListening = () => stream !== null && stream.readyState === EventSource.OPEN;

  // Opens the stream of a visible page, and closes that of any other.
  function listen() {
    if (!isOn || document.hidden) {
      if (stream) stream.close();
      stream = null;
      return;
    }
    if (stream || Date.now() < listenAgainAt) return;
    stream = new EventSource(button.dataset.stream);
    stream.onopen = changed; // something may have changed before
    stream.onmessage = changed;
    stream.onerror = () => {
      if (stream && stream.readyState === EventSource.CLOSED) {
        // All places are taken, or the session has ended, which `update` notices.
        stream = null;
        listenAgainAt = Date.now() + listenAgainAfter;
      }
      changed();
    };
  }

  function changed() {
    if (isUpdating) isOutdated = true;
    else if (!failures) schedule(Math.max(0, updatedAt + every - Date.now()));
  }

  async function update() {
    isUpdating = true;
    isOutdated = false;
    const headers = { "X-Live": "1" };
    if (etag) headers["If-None-Match"] = etag;
    const before = failures;
    try {
      const response = await fetch(location.href, { headers, cache: "no-store", redirect: "manual" });
      if (response.status === 401 || response.type === "opaqueredirect") {
        if (!isLeaving) location.reload();
        return;
      }
      if (response.status === 200) {
        const text = await response.text();
        if (isOn) show(new DOMParser().parseFromString(text, "text/html"));
        etag = response.headers.get("ETag");
      } else if (response.status !== 304) throw new Error(response.statusText);
      failures = 0;
    } catch {
      failures += 1;
    }
    isUpdating = false;
    updatedAt = Date.now();
    showConnection(before);
    listen();
    if (failures || isOutdated || !isListening()) schedule(every * Math.min(2 ** failures, 16));
  }

  function show(page) {
    const known = problems(document);
    let isAllShown = true;
    for (const region of regions()) {
      const name = region.dataset.live;
      const next = page.querySelector(`[data-live="${CSS.escape(name)}"]`);
      if (!next) continue;
      if (isSelected(region)) isAllShown = false;
      else replace(region, next);
    }
    if (!isAllShown) etag = null; // so that the next response contains the skipped regions
    document.title = page.title || document.title;
    const news = [...problems(document)].filter(([key, { count }]) => !known.has(key) || count > known.get(key).count);
    if (news.length) announcement.textContent = news.map(([, { text }]) => text).join(" ");
  }

  // The problems by key. The count of a problem grows, for example with each dead letter.
  const problems = (page) =>
    new Map(
      [...page.querySelectorAll("#problems li")].map((item) => [
        item.dataset.key,
        { count: Number(item.dataset.count), text: item.textContent },
      ]),
    );

  // A region with selected text is not changed.
  function isSelected(region) {
    const selection = getSelection();
    return !selection.isCollapsed && region.contains(selection.anchorNode);
  }

  // Changes the region in place, so that focus, scroll positions, pictures and open details stay.
  // If the focused element disappears, the next element around it gets the focus.
  function replace(region, next) {
    const around = [];
    for (let one = document.activeElement; one && region.contains(one); one = one.parentElement) around.push(one);
    changeChildren(region, next);
    if (!around.length || around.includes(document.activeElement)) return;
    const left = around.find((one) => one.isConnected);
    if (left.tabIndex < 0) left.tabIndex = -1;
    left.focus({ preventScroll: true });
  }

  function change(node, next) {
    if (node.nodeType !== Node.ELEMENT_NODE) {
      if (node.data !== next.data) node.data = next.data;
      return;
    }
    const isUsers = (name) => name === "tabindex" || (name === "open" && node.tagName === "DETAILS");
    for (const { name } of [...node.attributes]) {
      if (!next.hasAttribute(name) && !isUsers(name)) node.removeAttribute(name);
    }
    for (const { name, value } of next.attributes) {
      if (node.getAttribute(name) !== value && !isUsers(name)) node.setAttribute(name, value);
    }
    changeChildren(node, next);
  }

  function changeChildren(node, next) {
    let at = node.firstChild;
    for (const child of next.childNodes) {
      const match = findMatch(at, child);
      if (!match) {
        node.insertBefore(document.importNode(child, true), at);
        continue;
      }
      at = removeUpTo(at, match);
      change(match, child);
      at = match.nextSibling;
    }
    removeUpTo(at, null);
  }

  // Elements match by id; those without an id by their tag, and texts by their position.
  function findMatch(at, child) {
    const isMatch = (node) => node.nodeName === child.nodeName && (node.id || "") === (child.id || "");
    if (child.nodeType !== Node.ELEMENT_NODE) return at && isMatch(at) ? at : null;
    for (let node = at; node; node = node.nextSibling) {
      if (isMatch(node)) return node;
      if (!child.id && node.id) return null;
    }
    return null;
  }

  function removeUpTo(at, end) {
    while (at !== end) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
    return end;
  }

  function showConnection(before) {
    button.classList.toggle("lost", failures > 0);
    if (failures && !before) connection.textContent = "The server does not respond. This page is not up to date.";
    else if (!failures && before) connection.textContent = "";
    if (!failures && before) announcement.textContent = "The server responds again.";
  }

  function showSwitch() {
    button.setAttribute("aria-pressed", String(isOn));
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    isOn = !isOn;
    sessionStorage.setItem("live", isOn ? "on" : "off");
    failures = 0;
    connection.textContent = "";
    button.classList.remove("lost");
    showSwitch();
    listenAgainAt = 0;
    listen();
    schedule(0);
  });
  document.addEventListener("visibilitychange", () => {
    listen();
    schedule(0);
  });
  document.addEventListener("submit", () => {
    isLeaving = true;
  });
  addEventListener("pageshow", () => {
    isLeaving = false; // also if the browser returns to this page
  });
  addEventListener("pagehide", () => stream && stream.close());
  showSwitch();
  listen();
  schedule(every);
})();

// Opens the collapsed details that the URL's fragment names.
const unfold = () => {
  const part = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (part && part.tagName === "DETAILS") part.open = true;
};
addEventListener("hashchange", unfold);
addEventListener("DOMContentLoaded", unfold);
