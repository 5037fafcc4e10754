// A tab of the leaderboard: filters rows by protocol, ranks the shown ones, and writes the headline of their league.
document.addEventListener("ready", ({ target, detail: table }) => {
  const panel = target.closest("[data-board]");
  if (!panel) return;
  const jump = panel.querySelector(".league select");
  const fields = [...panel.querySelectorAll(".fields select")];
  const has = (name) => table.column(`${name}:name`).any();
  const rows = table.rows({ order: "index" }).nodes().toArray().map((row, i) => ({
    at: row.dataset.at.split("."), // its option of each field
    ours: !row.classList.contains("published"),
    cell: (name) => table.cell(i, `${name}:name`).node(),
    number: (name) => Number.parseFloat((has(name) && table.cell(i, `${name}:name`).node().dataset.order) || "NaN"),
  }));
  const value = (row, i) => [...fields[i].options].find((option) => option.value === row.at[i]).text;
  const protocol = fields.map((_, i) => i).filter((i) => fields[i].dataset.label !== "rows");
  const first = panel.dataset.rank; // the metric that ranks: accuracy, or balanced accuracy
  const metrics = [first, "published", "many", "medium", "few"].filter(has);
  let league; // the code of the league that was opened

  // Measured and published rows are ranked separately; published ones sort last.
  const rank = (alike) => {
    for (const [ours, metric, offset] of [[true, first, 0], [false, "published", 10000]]) {
      const known = (row) => alike && row.shown && row.number(metric) >= 0 && !row.cell(metric).classList.contains("doubtful");
      const group = rows.filter((row) => row.ours === ours);
      const values = group.filter(known).map((row) => row.number(metric));
      for (const row of group) {
        const own = row.number(metric);
        const place = known(row) ? 1 + values.filter((other) => other > own).length : null;
        const single = ours && row.cell(first).classList.contains("single");
        row.cell("rank").textContent = place ? (single ? `(${place})` : place) : "n/a";
        row.cell("rank").dataset.order = place ? offset + place : "";
      }
    }
  };

  const embolden = (shown, metric, alike) => {
    const known = shown.filter((row) => row.number(metric) >= 0).sort((a, b) => b.number(metric) - a.number(metric));
    const measured = known.find((row) => row.ours && "ties" in row.cell(metric).dataset);
    const trusted = (row) => (metric === "published" || !row.ours) && !row.cell(metric).classList.contains("doubtful");
    const published = known.find(trusted);
    const tied = measured ? measured.cell(metric).dataset.ties.split(" ") : [];
    for (const row of known) {
      const best = row.ours && (row === measured || tied.includes(String(rows.indexOf(row))));
      const highest = published && trusted(row) && row.number(metric) === published.number(metric);
      row.cell(metric).classList.toggle("strong", Boolean(alike && (best || highest)));
    }
  };

  const listed = (values) => [...values.slice(0, 4), ...(values.length > 4 ? [`${values.length - 4} more`] : [])].join(", ");

  // Only one league has a headline: rows that differ in fields of the protocol have no winner.
  const describe = (shown, differing) => {
    const option = jump.selectedOptions[0];
    const one = option?.dataset.headline;
    const unlike = differing.map((i) => `${fields[i].dataset.label} (${listed([...new Set(shown.map((row) => value(row, i)))])})`);
    const summary = !shown.length
      ? "No row has all of this: set a field to any."
      : unlike.length
        ? `${shown.length} rows of several protocols: no winner is named.`
        : `${shown.length} of ${rows.length} rows, of one protocol.`;
    panel.querySelector(".protocol").textContent = one ? `, ${option.text.replace(/ \(\d+\)$/, "")}` : "";
    panel.querySelector(".headline").textContent = one ? one[0].toUpperCase() + one.slice(1) : summary;
    panel.querySelector(".agreement").textContent = one ? option.dataset.agreement : unlike.length ? `They differ in ${unlike.join("; ")}.` : "";
  };

  const show = () => {
    for (const row of rows) {
      row.shown = fields.every(({ value }, i) => value === "" || value === row.at[i]);
      row.unlike = protocol.filter((i) => row.at[i] !== league[i]); // to the league that was opened
      row.cell("protocol").textContent = row.unlike.map((i) => `${fields[i].dataset.label} ${value(row, i)}`).join(", ");
    }
    const shown = rows.filter((row) => row.shown);
    const differing = protocol.filter((i) => new Set(shown.map((row) => row.at[i])).size > 1);
    rank(!differing.length);
    for (const metric of metrics) embolden(shown, metric, !differing.length);
    fields.forEach((field, i) => field.classList.toggle("widened", field.value !== league[i]));
    table.column("protocol:name").visible(shown.some((row) => row.unlike.length), false);
    table.search.fixed("league", (_text, _row, i) => rows[i].shown);
    table.rows().invalidate("dom").draw();
    const code = fields.map(({ value }) => value).join(".");
    jump.value = fields.every(({ value }) => value === "") ? "all" : code;
    if (jump.selectedIndex < 0) jump.value = "";
    for (const figures of panel.querySelectorAll("[data-league]")) figures.hidden = figures.dataset.league !== code;
    describe(shown, differing);
  };

  const open = () => {
    if (jump.value !== "all") league = jump.value.split(".");
    fields.forEach((field, i) => (field.value = jump.value === "all" ? "" : league[i]));
    show();
  };
  jump.addEventListener("change", open);
  for (const field of fields) field.addEventListener("change", show);
  jump.value = panel.dataset.first;
  open();
});

// A tab has an address; a tap or a key shows the same explanation as hovering.
const goTo = () => {
  const tab = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!tab?.matches(".tab")) return;
  document.querySelector(".tab.open")?.classList.remove("open");
  tab.classList.add("open");
  for (const choice of tab.querySelectorAll("[data-goto]")) choice.value = tab.id;
  scrollTo(0, 0);
};
goTo();
addEventListener("hashchange", goTo);
document.addEventListener("change", ({ target }) => {
  if ("goto" in target.dataset) location.hash = target.value;
});
document.addEventListener("click", ({ target }) => {
  const explained = target.closest("button.note")?.closest("[title]");
  if (!explained) return;
  const tip = document.getElementById("tip");
  tip.textContent = explained.title;
  tip.showPopover();
});
