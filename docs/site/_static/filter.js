// A field above each table of the page of models, which hides the rows that do not contain its words.
document.addEventListener("DOMContentLoaded", () => {
  if (!document.querySelector("#models")) return;
  for (const table of document.querySelectorAll("#models table")) {
    const field = document.createElement("input");
    field.type = "search";
    field.className = "filter form-control";
    field.placeholder = "Filter, as in: flipout mnist";
    field.setAttribute("aria-label", "Filter the rows of the table below");
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/);
      for (const row of table.querySelectorAll("tbody tr")) {
        row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      }
    });
    (table.closest(".pst-scrollable-table-container") || table).before(field);
  }
});
