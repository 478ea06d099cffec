// Renders /openapi.json into the page.
"use strict";

const place = document.getElementById("docs");
const options = {
  disableSearch: true,  // it needs a worker from a blob: URL
  hideDownloadButton: true,
  expandResponses: "200,201",
  requiredPropsFirst: true,
  sortRequiredPropsFirst: true,
  scrollYOffset: 0,
  nativeScrollbars: true,
  theme: {
    colors: {
      primary: { main: "#1f4f8f", light: "#1f4f8f" },
      success: { main: "#116329" },
      error: { main: "#a40e26" },
      text: { primary: "#1f2328", secondary: "#4a5058" },
      http: {
        get: "#116329", post: "#1f4f8f", put: "#6b3d00", delete: "#a40e26",
        options: "#4a5058", head: "#4a5058", patch: "#6b3d00", basic: "#4a5058", link: "#1f4f8f",
      },
    },
    typography: {
      fontFamily: "system-ui, sans-serif",
      headings: { fontFamily: "system-ui, sans-serif" },
      code: { fontFamily: "ui-monospace, monospace", color: "#8a1c2b" },
    },
  },
};

// Redoc uses headings for their size, so their levels have gaps. Assistive technology gets levels
// without gaps.
function closeGaps() {
  let level = 0;
  for (const heading of place.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    level = Math.min(Number(heading.tagName[1]), level + 1);
    heading.setAttribute("aria-level", String(level));
  }
}

// A sample that is wider than its box has to scroll by keyboard as well.
function makeSamplesFocusable() {
  for (const sample of place.querySelectorAll("pre:not([tabindex])")) {
    sample.tabIndex = 0;
  }
}

function improve() {
  closeGaps();
  makeSamplesFocusable();
}

Redoc.init(place.dataset.document, options, place, () => {
  improve();
  new MutationObserver(improve).observe(place, { childList: true, subtree: true });
});
