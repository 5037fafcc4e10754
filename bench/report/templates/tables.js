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
  const { ITable } = await import(URL.createObjectURL(code));
  const make = (table) => {
    const many = table.tBodies[0].rows.length > 8;
    const { dt } = new ITable(table, {
      paging: false,
      info: false,
      order: [],
      autoWidth: false,
      layout: {
        topStart: { buttons: [{ extend: "colvis", text: "Columns", columns: ":gt(0)" }, "copy", "csv"] },
        topEnd: many ? { search: { text: "", placeholder: "Search" } } : null,
        bottomStart: null,
        bottomEnd: null,
      },
    });
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
