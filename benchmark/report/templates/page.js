"use strict";
// The theme: what the reader chose last, else what the system prefers.
const root = document.documentElement;
const stored = {
  get() { try { return localStorage.getItem("theme"); } catch { return null; } },
  set(theme) { try { localStorage.setItem("theme", theme); } catch { /* a sandbox has no storage */ } },
};
if (stored.get()) root.dataset.theme = stored.get();
const toggle = document.querySelector(".theme");
toggle.hidden = false;
toggle.addEventListener("click", () => {
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  stored.set(root.dataset.theme);
});

// Sorting: by the number that a cell begins with, else as text; cells without a value come last.
const key = (row, at) => row.cells[at].textContent.trim();
const number = (text) => parseFloat(text.replace(/[,<≤]/g, ""));
function compare(a, b, sign) {
  const [x, y] = [number(a), number(b)];
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return sign * (Number.isNaN(x) ? a.localeCompare(b) : x - y);
}
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((head, at) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.ariaSort === "ascending" ? -1 : 1;
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => compare(key(a, at), key(b, at), sign)));
    });
  });
  // Filtering: rows that hold every word.
  if (body.rows.length < 8) continue;
  const filter = document.createElement("input");
  filter.type = "search";
  filter.className = "filter";
  filter.placeholder = "filter rows";
  filter.setAttribute("aria-label", "Show only rows that hold these words");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
  table.parentNode.before(filter);
}
