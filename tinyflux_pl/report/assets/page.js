// What a reader does on the page: switch the scheme, copy, search, sort, choose, and move through the steps.
const root = document.documentElement;
for (const button of document.querySelectorAll("[data-scheme]")) {
  button.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a page from a file may have no clipboard: a selection can still be copied
    const area = element("textarea", { "aria-hidden": "true", class: "offscreen" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

const copiers = [...document.querySelectorAll("button.copy")];
for (const button of copiers) {
  button.addEventListener("click", async () => {
    await copy(button.parentElement.querySelector("code").textContent);
    for (const other of copiers) {
      other.textContent = other === button ? "copied" : "copy";
      other.classList.toggle("done", other === button);
    }
  });
}

for (const input of document.querySelectorAll("input[data-search]")) {
  const rows = [...document.querySelectorAll(`#${input.dataset.search} tbody tr`)];
  const count = input.parentElement.querySelector("output");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length}`;
  });
}

// A header cell's button sorts by its column: numbers by data-value, empty cells last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => header.querySelector("button")?.addEventListener("click", () => {
    const rising = header.getAttribute("aria-sort") !== "ascending";
    headers.forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.value ?? "";
    const compared = (a, b) => {
      const [first, second] = [key(a), key(b)];
      if (!first || !second) return Number(!first) - Number(!second);
      const order = first - second;
      return (Number.isNaN(order) ? first.localeCompare(second) : order) * (rising ? 1 : -1);
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compared));
  }));
}

// Pictures over steps: a slider shows one step, or a strip shows them all.
for (const box of document.querySelectorAll(".pictures")) {
  const slider = box.querySelector("input[type=range]"), label = box.querySelector("output");
  const modes = [...box.querySelectorAll("[data-mode]")], play = box.querySelector(".play");
  const steps = (slider?.dataset.steps || "").split(" ");
  const show = () => {
    label.textContent = `step ${Number(steps[slider.value]).toLocaleString("en")}`;
    slider.setAttribute("aria-valuetext", label.textContent);
    for (const shot of box.querySelectorAll(".shot")) shot.classList.toggle("on", shot.dataset.step === steps[slider.value]);
  };
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; if (play) play.textContent = "▶ play"; };
  slider?.addEventListener("input", () => { stop(); show(); });
  play?.addEventListener("click", () => {
    if (timer) { stop(); return; }
    play.textContent = "❚❚ pause";
    timer = setInterval(() => {
      slider.value = (Number(slider.value) + 1) % steps.length;
      show();
      if (Number(slider.value) === steps.length - 1) stop();
    }, 600);
    if (Number(slider.value) === steps.length - 1) { slider.value = 0; show(); }
  });
  for (const button of modes) button.addEventListener("click", () => {
    stop();
    box.dataset.view = button.dataset.mode;
    modes.forEach((other) => other.setAttribute("aria-pressed", other === button));
  });
}

// A select shows the block of its choice among its siblings.
for (const select of document.querySelectorAll("select[data-shows]")) {
  const blocks = [...document.querySelectorAll(`[data-shown-by="${select.dataset.shows}"]`)];
  select.addEventListener("change", () => {
    for (const block of blocks) block.hidden = block.dataset.choice !== select.value;
  });
}

// The navigation marks the section in view.
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
links.values().next().value?.setAttribute("aria-current", "true");
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-10% 0px -80% 0px" });
for (const section of document.querySelectorAll("main section[id]")) seen.observe(section);
