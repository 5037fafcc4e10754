// Makes each table.sortable sortable and searchable, with optional columns, when it comes into view; then sends
// the event "ready". Without scripts, or in a browser that cannot unpack the code, the table stays plain.
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

  // Numbers: the first click sorts descending; cells without a number are last in both directions.
  const by = (sign) => (a, b) => (a === null || b === null ? (a === null) - (b === null) : sign * (a - b));
  const known = (value) => (Number.isNaN(Number.parseFloat(value)) ? null : Number.parseFloat(value));
  DataTable.type("known", { className: "", order: { pre: known, asc: by(1), desc: by(-1) } });
  const column = (head, i) => {
    const down = !head.classList.contains("text") && head.dataset.name !== "rank";
    const type = head.classList.contains("text") ? {} : { type: "known" };
    return { targets: i, orderSequence: down ? ["desc", "asc"] : ["asc", "desc"], ...type };
  };

  // A control stays below its method however the rows are sorted and searched.
  const detach = (table) => {
    const found = [];
    let method = -1;
    for (const row of [...table.tBodies[0].rows]) {
      if (method < 0 || !row.classList.contains("control")) method += 1;
      else (found[method] ??= []).push(row), row.remove();
    }
    return found;
  };
  const attach = (dt, controls) => {
    const fit = () => {
      for (const row of controls.flat()) {
        [...row.cells].forEach((cell, i) => (cell.hidden = !dt.column(i).visible()));
      }
    };
    controls.forEach((rows, method) => dt.row(method).child(rows).show());
    dt.on("column-visibility", fit);
    fit();
  };

  // What is copied or saved has the controls, too.
  const text = (row) => [...row.cells].map((cell) => cell.textContent.replace(/\s+/g, " ").trim());
  const insert = (dt, controls, data) => {
    const methods = dt.rows({ search: "applied", order: "applied" }).indexes().toArray();
    data.body = data.body.flatMap((row, i) => [row, ...(controls[methods[i]] ?? []).map(text)]);
  };

  const make = (table) => {
    const many = table.tBodies[0].rows.length > 5;
    const controls = detach(table);
    const exportOptions = { customizeData: (data) => insert(dt, controls, data) };
    const buttons = [
      { extend: "colvis", text: "Columns", columns: ":gt(0)" },
      { extend: "copy", exportOptions },
      { extend: "csv", exportOptions },
    ];
    const { dt } = new ITable(table, {
      paging: false,
      info: false,
      order: [],
      autoWidth: false,
      columnDefs: [...table.tHead.rows[0].cells].map(column),
      layout: {
        topStart: { buttons },
        topEnd: many ? { search: { text: "", placeholder: "Search" } } : null,
        bottomStart: null,
        bottomEnd: null,
      },
    });
    attach(dt, controls);
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
