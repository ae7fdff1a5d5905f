// Tables that sort and filter. Without this file every page is whole, in the order of the board.
"use strict";

// What a cell is sorted by: a number with its unit where it begins with one, else its text; null where it is empty.
function key(cell) {
  const text = cell.textContent.trim();
  if (text === "" || text === "–") return null;
  const found = text.replace("−", "-").replace("+", "").match(/^(?:[<≈≥≤] )?(-?\d+(?:[.,\d]*\d)?)(?: ([kMG]))?(?![\w-])/);
  if (!found) return text.toLowerCase();
  const unit = { k: 1e3, M: 1e6, G: 1e9 }[found[2]] || 1;
  return Number(found[1].replaceAll(",", "")) * unit - (text.startsWith("<") ? 1e-9 : 0);
}

function compare(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1;
}

const rowsOf = (body) => [...body.rows].filter((row) => !row.classList.contains("group"));

// Rows stay in their group; those without a value stay last either way.
function sort(table, column, ascending) {
  for (const body of table.tBodies) {
    const rows = rowsOf(body).map((row) => [key(row.cells[column]), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return ascending ? compare(a, b) : compare(b, a);
    });
    body.append(...rows.map(([, row]) => row));
  }
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending);
    });
  });
}

function labelled(words, control) {
  const label = document.createElement("label");
  label.append(words, control);
  return label;
}

function choices(table, name) {
  const select = document.createElement("select");
  const values = [...new Set([...table.tBodies[0].rows].map((row) => row.dataset[name]))].sort();
  select.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
  select.name = name;
  return select;
}

function filterable(table) {
  const rows = [...table.tBodies].flatMap(rowsOf);
  const facets = (table.dataset.facets || "").split(",").filter(Boolean).map((name) => choices(table, name));
  if (rows.length < 8 && !facets.length) return;
  const search = document.createElement("input");
  search.type = "search";
  search.autocomplete = "off";
  const said = document.createElement("output");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, n) => {
      const fits = words.every((word) => texts[n].includes(word)) &&
        facets.every((select) => !select.value || row.dataset[select.name] === select.value);
      row.hidden = !fits;
      shown += fits;
    });
    for (const body of table.tBodies) {
      const heading = body.querySelector(".group");
      if (heading) heading.hidden = rowsOf(body).every((row) => row.hidden);
    }
    said.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} rows`;
  };
  const tools = document.createElement("div");
  tools.className = "tools";
  tools.append(labelled("Filter", search), ...facets.map((select) => labelled(select.name, select)), said);
  search.setAttribute("aria-label", `Filter the rows of: ${table.caption.textContent}`);
  search.addEventListener("input", apply);
  facets.forEach((select) => select.addEventListener("change", apply));
  table.parentElement.before(tools);
}

for (const table of document.querySelectorAll("table[data-sort]")) {
  sortable(table);
  filterable(table);
}
