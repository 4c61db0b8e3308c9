"use strict";
{
const table = document.getElementById("methods-table");
const body = table.tBodies[0];
const original = [...body.rows];
const texts = cell => cell.textContent.trim();
const value = (row, place) => {
  const cell = row.cells[place];
  if (place === 0) return cell.querySelector("summary").textContent.trim();
  const found = texts(cell).match(/-?\d+(\.\d+)?/);
  return found ? Number(found[0]) : texts(cell) === "–" || texts(cell) === "" ? null : texts(cell);
};
const compare = (a, b) =>
  typeof a === "number" ? (typeof b === "number" ? a - b : -1) :
  typeof b === "number" ? 1 : a < b ? -1 : a > b ? 1 : 0;
const sort = (head, direction) => {
  const place = head.cellIndex;
  for (const other of table.tHead.rows[0].cells)
    if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const keyed = original.map((row, order) => [value(row, place), order, row]);
  keyed.sort((a, b) =>
    a[0] === null || b[0] === null
      ? (a[0] === null) - (b[0] === null) || a[1] - b[1]
      : sign * compare(a[0], b[0]) || a[1] - b[1]);
  body.append(...keyed.map(one => one[2]));
};
for (const head of table.tHead.rows[0].cells) {
  if (head.classList.contains("bars")) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  head.setAttribute("aria-sort", "none");
  const text = /^(method|mark|notes|rank)$/.test(button.textContent);
  button.addEventListener("click", () => {
    const now = head.getAttribute("aria-sort");
    const first = text ? "ascending" : "descending";
    const second = text ? "descending" : "ascending";
    sort(head, now === first ? second : first);
  });
}

const search = document.getElementById("filter");
const enough = document.getElementById("enough");
const count = document.getElementById("count");
const least = Number(enough.dataset.least);
const parts = new Map();
for (const part of document.querySelectorAll("[data-m]")) {
  const key = part.dataset.m;
  parts.has(key) ? parts.get(key).push(part) : parts.set(key, [part]);
}
const filter = () => {
  const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of original) {
    const name = row.cells[0].querySelector("summary").textContent.toLowerCase();
    const seeds = row.dataset.seeds === undefined ? least : Number(row.dataset.seeds);
    const keep = wanted.every(word => name.includes(word)) && (!enough.checked || seeds >= least);
    shown += keep;
    for (const part of parts.get(row.dataset.m)) part.classList.toggle("off", !keep);
  }
  count.textContent = shown + " of " + original.length + " rows";
};
search.addEventListener("input", filter);
enough.addEventListener("change", filter);
document.querySelector(".filters").hidden = false;
document.querySelector(".controls").addEventListener("submit", event => event.preventDefault());

let pointed = null;
const point = key => {
  if (key === pointed) return;
  pointed = key;
  for (const part of document.querySelectorAll(".on")) part.classList.remove("on");
  document.body.classList.toggle("focus", key !== null);
  if (key !== null) for (const part of parts.get(key)) part.classList.add("on");
};
document.addEventListener("pointerover", event => {
  const part = event.target.closest ? event.target.closest("[data-m]") : null;
  point(part ? part.dataset.m : null);
});
document.addEventListener("focusin", event => {
  const part = event.target.closest("[data-m]");
  if (part) point(part.dataset.m);
});
}
