// A click on a column's name sorts the rows by it, a second one the other way; empty cells stay last.
const body = document.querySelector("tbody");

function compare(one, two, sign) {
  if (one === "" || two === "") return (one === "") - (two === "");
  const numbers = [Number(one), Number(two)];
  return sign * (numbers.some(Number.isNaN) ? one.localeCompare(two) : numbers[0] - numbers[1]);
}

function sortBy(heading, column) {
  const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of document.querySelectorAll("th")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b), sign)));
}

document.querySelectorAll("th").forEach((heading, column) => {
  heading.querySelector("button")?.addEventListener("click", () => sortBy(heading, column));
});
