// A tab of the leaderboard: which rows a reader wants, what their league says, and how they differ.
document.addEventListener("ready", ({ target, detail: table }) => {
  const panel = target.closest("[data-board]");
  if (!panel) return;
  const jump = panel.querySelector(".league select");
  const fields = [...panel.querySelectorAll(".fields select")];
  const has = (name) => table.column(`${name}:name`).any();
  const rows = table.rows({ order: "index" }).nodes().toArray().map((row, i) => ({
    at: row.dataset.at.split("."), // which option of each field it has
    ours: !row.classList.contains("published"),
    cell: (name) => table.cell(i, `${name}:name`).node(),
    number: (name) => Number.parseFloat((has(name) && table.cell(i, `${name}:name`).node().dataset.order) || "NaN"),
  }));
  const said = (row, i) => [...fields[i].options].find((option) => option.value === row.at[i]).text;
  const protocol = fields.map((_, i) => i).filter((i) => fields[i].dataset.label !== "rows");
  const first = panel.dataset.rank; // what ranks: accuracy, or balanced accuracy
  const scores = [first, "published", "many", "medium", "few"].filter(has);
  let league; // the one that was opened: what a widened one is compared with

  // Measured rows are ranked among themselves, and so are those that are only published; those come last.
  const rank = (shown) => {
    for (const [ours, score, after] of [[true, first, 0], [false, "published", 10000]]) {
      const values = shown.filter((row) => row.ours === ours).map((row) => row.number(score));
      for (const row of rows.filter((row) => row.ours === ours)) {
        const own = row.number(score);
        const place = row.shown && own >= 0 ? 1 + values.filter((value) => value > own).length : null;
        const single = ours && row.cell(first).classList.contains("single");
        row.cell("rank").textContent = place ? (single ? `(${place})` : place) : "n/a";
        row.cell("rank").dataset.order = place ? after + place : "";
      }
    }
  };

  const embolden = (shown, score) => {
    const known = shown.filter((row) => row.number(score) >= 0).sort((a, b) => b.number(score) - a.number(score));
    const measured = known.find((row) => row.ours && "ties" in row.cell(score).dataset);
    const sure = (row) => (score === "published" || !row.ours) && !row.cell(score).classList.contains("doubtful");
    const printed = known.find(sure);
    const tied = measured ? measured.cell(score).dataset.ties.split(" ") : [];
    for (const row of known) {
      const best = row.ours && (row === measured || tied.includes(String(rows.indexOf(row))));
      const highest = printed && sure(row) && row.number(score) === printed.number(score);
      row.cell(score).classList.toggle("strong", Boolean(best || highest));
    }
  };

  const listed = (values) => [...values.slice(0, 4), ...(values.length > 4 ? [`${values.length - 4} more`] : [])].join(", ");

  // A headline is a league's: rows of different protocols have no winner.
  const tell = (shown) => {
    const option = jump.selectedOptions[0];
    const one = option?.dataset.headline;
    const unlike = protocol
      .map((i) => [fields[i].dataset.label, new Set(shown.map((row) => said(row, i)))])
      .filter(([, values]) => values.size > 1)
      .map(([label, values]) => `${label} (${listed([...values])})`);
    const told = !shown.length
      ? "No row has all of this: set a field to any."
      : unlike.length
        ? `${shown.length} rows of several protocols: no winner is named.`
        : `${shown.length} of ${rows.length} rows, of one protocol.`;
    panel.querySelector(".protocol").textContent = one ? `, ${option.text.replace(/ \(\d+\)$/, "")}` : "";
    panel.querySelector(".headline").textContent = one ? one[0].toUpperCase() + one.slice(1) : told;
    panel.querySelector(".agreement").textContent = one ? option.dataset.agreement : unlike.length ? `They differ in ${unlike.join("; ")}.` : "";
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
    const place = fields.map(({ value }) => value).join(".");
    jump.value = fields.every(({ value }) => value === "") ? "all" : place;
    if (jump.selectedIndex < 0) jump.value = "";
    for (const drawn of panel.querySelectorAll("[data-league]")) drawn.hidden = drawn.dataset.league !== place;
    tell(shown);
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

// A tab has an address, and what is said on hover is said on a tap or a key as well.
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
  const told = target.closest("button.note")?.closest("[title]");
  if (!told) return;
  const tip = document.getElementById("tip");
  tip.textContent = told.title;
  tip.showPopover();
});
