// A tab of the leaderboard: which rows a reader wants, their ranks among themselves, and how they differ.
document.addEventListener("ready", ({ target, detail: table }) => {
  const panel = target.closest("[data-board]");
  if (!panel) return;
  const [jump, ...fields] = panel.querySelectorAll("select");
  const rows = table.rows({ order: "index" }).nodes().toArray().map((row, i) => ({
    at: row.dataset.at.split("."), // which option of each field it has
    ours: !row.classList.contains("published"),
    cell: (name) => table.cell(i, `${name}:name`).node(),
    number: (name) => Number(table.cell(i, `${name}:name`).node().dataset.order),
  }));
  const said = (row, i) => [...fields[i].options].find((option) => option.value === row.at[i]).text;
  const protocol = fields.map((_, i) => i).filter((i) => fields[i].dataset.label !== "rows");
  const scores = ["accuracy", "many", "medium", "few"].filter((name) => table.column(`${name}:name`).any());
  let league; // the one that was opened: what a widened one is compared with

  const rank = (shown) => {
    const values = shown.map((row) => row.number("accuracy")).filter((value) => value >= 0);
    for (const row of rows) {
      const own = row.number("accuracy");
      const place = row.shown && own >= 0 ? 1 + values.filter((value) => value > own).length : null;
      const single = row.cell("accuracy").classList.contains("single");
      row.cell("rank").textContent = place ? (single ? `(${place})` : place) : "n/a";
      row.cell("rank").dataset.order = place ?? 9999;
    }
  };

  const embolden = (shown, score) => {
    const known = shown.filter((row) => row.number(score) >= 0).sort((a, b) => b.number(score) - a.number(score));
    const measured = known.find((row) => row.ours && "ties" in row.cell(score).dataset);
    const printed = known.find((row) => !row.ours);
    const tied = measured ? measured.cell(score).dataset.ties.split(" ") : [];
    for (const row of known) {
      const bold = row.ours
        ? row === measured || tied.includes(String(rows.indexOf(row)))
        : row.number(score) === printed.number(score);
      row.cell(score).classList.toggle("strong", bold);
    }
  };

  const tell = (shown) => {
    if (!shown.length) return "No row has all of this: set a field to any.";
    const values = protocol.map((i) => [fields[i].dataset.label, [...new Set(shown.map((row) => said(row, i)))]]);
    const unlike = values.filter(([, set]) => set.length > 1).map(([label, set]) => `${label} (${set.join(", ")})`);
    const count = `${shown.length} of ${rows.length} rows`;
    if (!unlike.length) return `${count}, one protocol: ${values.map((value) => value.join(" ")).join(", ")}.`;
    return `${count}, unlike in ${unlike.join("; ")}: a rank among them says as much of that as of the methods.`;
  };

  const show = () => {
    for (const row of rows) {
      row.shown = fields.every(({ value }, i) => value === "" || value === row.at[i]);
      const unlike = protocol.filter((i) => row.at[i] !== league[i]);
      row.cell("protocol").textContent = unlike.map((i) => `${fields[i].dataset.label} ${said(row, i)}`).join(", ");
    }
    const shown = rows.filter((row) => row.shown);
    rank(shown);
    for (const score of scores) embolden(shown, score);
    fields.forEach((field, i) => field.classList.toggle("widened", field.value !== league[i]));
    table.column("protocol:name").visible(shown.some((row) => protocol.some((i) => row.at[i] !== league[i])), false);
    table.search.fixed("league", (_text, _row, i) => rows[i].shown);
    table.rows().invalidate("dom").draw();
    panel.querySelector("output").textContent = tell(shown);
    jump.value = fields.map(({ value }) => value).join(".");
    if (jump.selectedIndex < 0) jump.value = "";
  };

  const open = () => {
    league = jump.value.split(".");
    fields.forEach((field, i) => (field.value = league[i]));
    show();
  };
  jump.addEventListener("change", open);
  for (const field of fields) field.addEventListener("change", show);
  panel.querySelector("button.widen").addEventListener("click", () => {
    for (const field of fields) field.value = "";
    show();
  });
  panel.querySelector(".league").hidden = false;
  jump.selectedIndex = 1; // the first is the name of what has none
  open();
});

// A tab has an address, and what is said on hover is said on a tap or a key as well.
const goTo = () => {
  const tab = document.getElementById(`tab-${decodeURIComponent(location.hash.slice(1))}`);
  if (tab) tab.checked = true;
};
goTo();
addEventListener("hashchange", goTo);
document.addEventListener("change", ({ target }) => {
  if (target.name === "tab") history.replaceState(null, "", `#${target.id.slice(4)}`);
});
document.addEventListener("click", ({ target }) => {
  const told = target.closest("button.range")?.closest("[title]");
  if (!told) return;
  const tip = document.getElementById("tip");
  tip.textContent = told.title;
  tip.showPopover();
});
