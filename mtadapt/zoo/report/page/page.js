"use strict";
// Sorting: a click on a head sorts by it, the next one the other way, the third gives the first order back.
const words = new Intl.Collator("en", { numeric: true });

function values(row, column, kind) {
  let place = 0;
  for (const cell of row.cells) {
    if (column < place + cell.colSpan) {
      const text = cell.dataset.value ?? cell.textContent.trim();
      return text === "" ? null : kind === "number" ? Number(text) : text;
    }
    place += cell.colSpan;
  }
  return null;
}

function sort(table, head) {
  const kind = head.dataset.kind, column = head.cellIndex, body = table.tBodies[0];
  const order = kind === "number" ? ["none", "descending", "ascending"] : ["none", "ascending", "descending"];
  const next = order[(order.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
  for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", next);
  const sign = next === "ascending" ? 1 : -1;
  const rows = table.rowsAtFirst.map((row) => [row, values(row, column, kind)]);
  if (next !== "none") {
    rows.sort(([, a], [, b]) => {
      if (a === null || b === null) return (a === null) - (b === null);  // what is missing stays below
      return sign * (kind === "number" ? a - b : words.compare(a, b));
    });
  }
  body.append(...rows.map(([row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  table.rowsAtFirst = [...table.tBodies[0].rows];
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => sort(table, button.closest("th")));
  }
}

// Filters: what has a name that is not chosen is hidden, and so is a group of bars without a bar.
const form = document.querySelector(".filters");

function filter() {
  let all = true;
  const hidden = {};
  for (const set of form.querySelectorAll("fieldset")) {
    const off = [...set.querySelectorAll("input:not(:checked)")].map((box) => box.value);
    hidden[set.dataset.filter] = new Set(off);
    all &&= off.length === 0;
  }
  for (const each of document.querySelectorAll("main [data-paradigm], main [data-checkpoint], main [data-setting]")) {
    each.toggleAttribute("hidden", Object.entries(hidden).some(([name, off]) => off.has(each.dataset[name])));
  }
  for (const group of document.querySelectorAll(".group")) {
    group.hidden = !group.querySelector(".bar:not([hidden])");
  }
  form.querySelector("button").disabled = all;
}

if (form.querySelector("fieldset")) {
  form.hidden = false;
  form.addEventListener("change", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  filter();  // a browser keeps the boxes when a page is loaded again
}
