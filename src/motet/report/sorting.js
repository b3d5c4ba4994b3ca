"use strict";
// Tables sort by a click on a header: up, down, and back to the order in which they came.
// Cells without a value stay below. Without this script the page is the same, but for the sorting.

const DIGITS = { "⁰": 0, "¹": 1, "²": 2, "³": 3, "⁴": 4, "⁵": 5, "⁶": 6, "⁷": 7, "⁸": 8, "⁹": 9, "⁻": "-" };

function words(cell) {
  // What a cell says first: the small print below it and the key before it are left out.
  const copy = cell.cloneNode(true);
  for (const other of copy.querySelectorAll("small, svg")) other.remove();
  return copy.textContent.replace(/[\s\u202f\u00a0]+/g, " ").trim();
}

function value(cell) {
  if (!cell) return null;
  if (cell.dataset.v !== undefined) return cell.dataset.v === "" ? null : Number(cell.dataset.v);
  const text = words(cell);
  if (text === "" || text === "–") return null;
  if (/^[−+-]?∞/.test(text)) return /^[−-]/.test(text) ? -Infinity : Infinity;
  const plain = text.replace(/−/g, "-").replace(/^[<+]\s?/, "").replace(/(\d) (?=\d{3}(\D|$))/g, "$1");
  const found = /^(-?\d+(?:\.\d+)?)(?:·10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?(?=$|[×% [+]|\s)/.exec(plain);
  if (!found) return text;
  const power = found[2] ? [...found[2]].map((sign) => DIGITS[sign]).join("") : 0;
  return Number(found[1]) * 10 ** Number(power);
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return a === b ? 0 : sign * (a < b ? -1 : 1);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortable(table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  if (rows.length < 2) return;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      const order = next === undefined ? "ascending" : next;
      for (const other of heads) other.removeAttribute("aria-sort");
      if (order) head.setAttribute("aria-sort", order);
      const keys = new Map(rows.map((row) => [row, value(row.cells[column])]));
      const sign = order === "descending" ? -1 : 1;
      const sorted = order ? [...rows].sort((a, b) => compare(keys.get(a), keys.get(b), sign)) : rows;
      body.append(...sorted);
    });
  });
}

function openTo(hash) {
  // A link into a closed list opens it. Browsers of today do so by themselves.
  const target = hash.length > 1 && document.getElementById(hash.slice(1));
  for (let at = target && target.parentElement; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  if (target) target.scrollIntoView({ block: "nearest" });
}

function onPaper(printing) {
  // Paper can't be opened: whatever was closed is open while the page prints.
  for (const one of document.querySelectorAll(printing ? "details:not([open])" : "details[data-printed]")) {
    one.open = printing;
    one.toggleAttribute("data-printed", printing);
  }
}

document.querySelectorAll("table.sortable").forEach(sortable);
addEventListener("hashchange", () => openTo(location.hash));
openTo(location.hash);
const paper = matchMedia("print");
paper.addEventListener("change", () => onPaper(paper.matches));
onPaper(paper.matches);
