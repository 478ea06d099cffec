// Updates the parts of the page that are marked `data-live`, so that nobody has to reload it. A part
// that contains the focus or selected text is left alone.
"use strict";

const isInUse = (part) => {
  const selection = getSelection();
  return part.contains(document.activeElement) || (!selection.isCollapsed && part.contains(selection.anchorNode));
};

setInterval(async () => {
  if (document.hidden) return;
  const response = await fetch(location.href, { cache: "no-store" }).catch(() => null);
  if (!response?.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = page.getElementById(part.id);
    if (!next || isInUse(part) || next.innerHTML === part.innerHTML) continue;
    part.replaceChildren(...document.importNode(next, true).childNodes);
  }
}, 2000);
