for (const head of document.querySelectorAll("table.sortable th")) {
  head.tabIndex = 0;
  const sort = () => {
    const column = head.cellIndex, body = head.closest("table").tBodies[0];
    const falling = head.getAttribute("aria-sort") === "ascending";
    const value = row => row.cells[column].textContent;
    const number = row => /^[-+]?\d+(\.\d+)?(e[-+]?\d+)?%?$/.test(value(row)) ? parseFloat(value(row)) : NaN;
    const order = (a, b) => number(a) - number(b)
      || value(a).localeCompare(value(b), undefined, { numeric: true });
    const rows = [...body.rows].sort((a, b) => falling ? order(b, a) : order(a, b));
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    body.append(...rows);
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}
