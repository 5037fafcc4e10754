// Makes each table.sortable sortable, searchable and its columns optional, once it comes into view; the event
// "ready" then tells of it. Without scripts, or in a browser that cannot unpack the code, it stays as it is.
(async () => {
  const tables = document.querySelectorAll("table.sortable");
  if (!tables.length || !window.DecompressionStream) return;
  const unpack = (id) => {
    const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const style = document.createElement("style");
  style.textContent = await unpack("tables-style");
  document.head.prepend(style);
  const code = new Blob([await unpack("tables-code")], { type: "text/javascript" });
  const { ITable, default: DataTable } = await import(URL.createObjectURL(code));

  // Numbers: the first click sorts down, and what has none stands last either way.
  const against = (way) => (a, b) => (a === null || b === null ? (a === null) - (b === null) : way * (a - b));
  const known = (value) => (Number.isNaN(Number.parseFloat(value)) ? null : Number.parseFloat(value));
  DataTable.type("known", { className: "", order: { pre: known, asc: against(1), desc: against(-1) } });
  const column = (head, i) => {
    const down = !head.classList.contains("text") && head.dataset.name !== "rank";
    const type = head.classList.contains("text") ? {} : { type: "known" };
    return { targets: i, orderSequence: down ? ["desc", "asc"] : ["asc", "desc"], ...type };
  };

  // A control stands beneath its method however the rows are sorted and searched.
  const take = (table) => {
    const found = [];
    let place = -1;
    for (const row of [...table.tBodies[0].rows]) {
      if (place < 0 || !row.classList.contains("control")) place += 1;
      else (found[place] ??= []).push(row), row.remove();
    }
    return found;
  };
  const give = (dt, controls) => {
    const fit = () => {
      for (const row of controls.flat()) {
        [...row.cells].forEach((cell, i) => (cell.hidden = !dt.column(i).visible()));
      }
    };
    controls.forEach((rows, place) => dt.row(place).child(rows).show());
    dt.on("column-visibility", fit);
    fit();
  };

  const make = (table) => {
    const many = table.tBodies[0].rows.length > 5;
    const controls = take(table);
    const { dt } = new ITable(table, {
      paging: false,
      info: false,
      order: [],
      autoWidth: false,
      columnDefs: [...table.tHead.rows[0].cells].map(column),
      layout: {
        topStart: { buttons: [{ extend: "colvis", text: "Columns", columns: ":gt(0)" }, "copy", "csv"] },
        topEnd: many ? { search: { text: "", placeholder: "Search" } } : null,
        bottomStart: null,
        bottomEnd: null,
      },
    });
    give(dt, controls);
    table.dispatchEvent(new CustomEvent("ready", { bubbles: true, detail: dt }));
  };
  const coming = new IntersectionObserver(
    (seen) => {
      for (const { target, isIntersecting } of seen) {
        if (isIntersecting) coming.unobserve(target), make(target);
      }
    },
    { rootMargin: "100%" },
  );
  tables.forEach((table) => coming.observe(table));
})();
