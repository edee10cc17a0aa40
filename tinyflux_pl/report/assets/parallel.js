// Parallel coordinates: an axis a key or result, a line a job; hover or focus singles a job out.
class ParallelCoordinates {
  constructor(box, { axes, jobs }) {
    Object.assign(this, { box, axes, jobs });
    this.tip = element("div", { class: "tip", role: "status", hidden: "" });
    box.append(this.tip);
    new ResizeObserver(() => box.clientWidth !== this.width && this.draw()).observe(box);
    this.draw();
  }

  scaleOf(axis, top, bottom) {
    if (axis.words) {
      const words = [...new Set(axis.words)];
      const at = (k) => (words.length === 1 ? (top + bottom) / 2 : bottom - (k / (words.length - 1)) * (bottom - top));
      return { at: (job) => at(words.indexOf(axis.words[job])), ticks: words.map((word, k) => [at(k), word]), text: (job) => axis.words[job] };
    }
    const values = axis.numbers.filter((value) => value !== null);
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (low === high && axis.unit === "percent") [low, high] = [0, 1];
    if (low === high) { low -= Math.abs(low) * 0.1 || 1; high += Math.abs(high) * 0.1 || 1; }
    const scale = axis.log ? logScale(low, high, bottom, top) : linearScale(low, high, bottom, top, 5);
    const at = (job) => (axis.numbers[job] === null ? null : scale(axis.numbers[job]));
    return { at, ticks: scale.ticks.map((tick) => [scale(tick), format(tick, axis.unit)]), text: (job) => format(axis.numbers[job], axis.unit) };
  }

  draw() {
    this.width = this.box.clientWidth;
    const width = Math.max(this.width, 150 * this.axes.length), height = 320, top = 44, bottom = height - 18;
    this.svg?.remove();
    this.svg = element("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": "parallel coordinates of the jobs" });
    const gap = (width - 130) / Math.max(1, this.axes.length - 1);
    this.scales = this.axes.map((axis) => this.scaleOf(axis, top, bottom));
    const xs = this.axes.map((_, k) => 56 + k * gap);
    this.jobs.forEach((job, j) => this.svg.append(this.line(job, j, xs)));
    this.axes.forEach((axis, k) => {
      const end = k === this.axes.length - 1;
      this.svg.append(element("line", { x1: xs[k], x2: xs[k], y1: top, y2: bottom, class: "axis" }));
      const anchor = k === 0 ? "start" : end ? "end" : "middle";
      const name = element("text", { x: k === 0 ? 4 : end ? width - 4 : xs[k], y: 20, class: "name", "text-anchor": anchor }, axis.name);
      this.svg.append(name);
      for (const [y, text] of this.scales[k].ticks) this.svg.append(element("text", { x: xs[k] + 10, y: y + 4, class: "tick" }, text));
    });
    this.box.prepend(this.svg);
  }

  line(job, j, xs) {
    let d = "", pen = null;
    xs.forEach((x, k) => {
      const y = this.scales[k].at(j);
      if (y === null) { pen = null; return; }
      const middle = pen ? (pen[0] + x) / 2 : 0;
      d += pen ? `C${middle} ${pen[1]} ${middle} ${y} ${x} ${y}` : `M${x} ${y}`;
      pen = [x, y];
    });
    const text = this.axes.map((axis, k) => `${axis.name} ${this.scales[k].text(j)}`).join(", ");
    const path = element("path", {
      d, class: "job", tabindex: "0", role: "img", "aria-label": `${job.label}: ${text}`,
      onpointerenter: (event) => this.single(path, job, j, event), onpointerleave: () => this.all(),
      onfocus: () => this.single(path, job, j, null), onblur: () => this.all(),
    });
    path.style.setProperty("--colour", `var(--series-${job.colour % COLOURS})`);
    return path;
  }

  single(path, job, j, event) {
    this.all();
    this.svg.classList.add("focused");
    path.classList.add("on");
    const rows = this.axes.map((axis, k) => element("div", { class: "row" }, element("span", {}, axis.name), element("b", {}, this.scales[k].text(j))));
    this.tip.replaceChildren(element("div", { class: "at" }, job.label), ...rows);
    this.tip.hidden = false;
    const left = event ? event.clientX - this.box.getBoundingClientRect().left + this.box.scrollLeft + 16 : 12;
    this.tip.style.left = `${Math.max(4, Math.min(left, this.box.scrollLeft + this.box.clientWidth - this.tip.offsetWidth - 4))}px`;
  }

  all() {
    this.svg.classList.remove("focused");
    for (const path of this.svg.querySelectorAll(".on")) path.classList.remove("on");
    this.tip.hidden = true;
  }
}

for (const box of document.querySelectorAll("[data-parallel]")) {
  new ParallelCoordinates(box, dataOf(box.dataset.parallel));
}
