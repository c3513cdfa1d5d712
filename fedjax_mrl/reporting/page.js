"use strict";
// Every column title becomes a button that sorts its table; again turns the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const upwards = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", upwards ? "ascending" : "descending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [row.cells[place], row]);
      rows.sort(([a], [b]) => compare(a, b, upwards ? 1 : -1));
      body.append(...rows.map(([, row]) => row));
    });
  });
}
function compare(a, b, sign) {
  if (a.dataset.empty || b.dataset.empty) { // what is empty stays below
    return (a.dataset.empty ? 1 : 0) - (b.dataset.empty ? 1 : 0);
  }
  const numbers = [a, b].map((cell) => Number(cell.dataset.order));
  if ("order" in a.dataset && "order" in b.dataset) {
    return sign * (numbers[0] - numbers[1]);
  }
  return sign * a.textContent.localeCompare(b.textContent, "en", { numeric: true });
}
