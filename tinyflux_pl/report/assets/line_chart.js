// Line charts: hover or arrow keys read values, legend buttons hide series, a switch makes the axis logarithmic.
class LineChart {
  constructor(figure, spec) {
    this.spec = spec;
    this.hidden = new Set();
    this.logarithmic = spec.log === "on";
    this.plot = figure.querySelector(".plot");
    this.tools = figure.querySelector(".tools");
    this.tip = element("div", { class: "tip", role: "status", hidden: "" });
    this.plot.append(this.tip);
    this.addSwitch();
    this.addLegend(figure.querySelector(".legend"));
    this.cursor = null;
    this.width = 0;
    new ResizeObserver(() => this.plot.clientWidth !== this.width && this.draw()).observe(this.plot);
    this.draw();
  }

  addSwitch() {
    if (!this.spec.log) return;
    const toggle = element("button", {
      type: "button", class: "switch", "aria-pressed": this.logarithmic, title: "logarithmic axis",
      onclick: () => {
        this.logarithmic = !this.logarithmic;
        toggle.setAttribute("aria-pressed", this.logarithmic);
        this.draw();
      },
    }, "log");
    this.tools.append(toggle);
  }

  addLegend(legend) {
    this.spec.series.forEach((series, index) => {
      const key = element("i", { class: series.dash ? "key dash" : "key" });
      key.style.setProperty("--colour", colourOf(series, index));
      const button = element("button", {
        type: "button", class: "entry", "aria-pressed": "true",
        onclick: () => {
          this.hidden[this.hidden.has(index) ? "delete" : "add"](index);
          button.setAttribute("aria-pressed", !this.hidden.has(index));
          this.draw();
        },
      }, key, series.name);
      if (this.spec.series.length > 1) legend.append(button);
    });
  }

  get visible() {
    return this.spec.series.map((series, index) => ({ ...series, index })).filter(({ index }) => !this.hidden.has(index));
  }

  usable(value) {
    return value !== null && value !== undefined && (!this.logarithmic || value > 0);
  }

  ranges() {
    const xs = [], ys = [];
    for (const { x, y, low, high, gaps } of this.visible) {
      x.forEach((step, k) => {
        for (const value of [y[k], low?.[k], high?.[k]]) if (this.usable(value)) { xs.push(step); ys.push(value); }
      });
      xs.push(...(gaps || []));
    }
    const { zero, most } = this.spec;
    if (!xs.length) return { x: [0, 1], y: this.logarithmic ? [0.1, 1] : [0, 1], empty: true };
    const extent = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    const x = extent(xs), y = ys.length ? extent(ys) : [0.1, 1];
    if (x[0] === x[1]) { x[0] -= 1; x[1] += 1; }
    if (this.logarithmic) return { x, y: y[0] === y[1] ? [y[0] / 2, y[1] * 2] : [y[0] * 0.96, y[1] * 1.04] };
    if (zero) y[0] = Math.min(0, y[0]);
    if (most !== undefined && most !== null) y[1] = Math.max(most, y[1]);
    const pad = (y[1] - y[0] || Math.abs(y[1]) || 1) * 0.05;
    return { x, y: [zero && y[0] === 0 ? 0 : y[0] - pad, y[1] === most ? most : y[1] + pad] };
  }

  draw() {
    this.width = this.plot.clientWidth;
    const { spec } = this, width = Math.max(240, this.width), height = spec.height || (width > 700 ? 300 : 230);
    const range = this.ranges();
    const bottom = height - 40, top = 12;
    const probe = this.logarithmic ? logScale(...range.y, bottom, top) : linearScale(...range.y, bottom, top, 5);
    const labels = probe.ticks.map((tick) => format(tick, spec.unit));
    const left = 14 + 6.6 * Math.max(3, ...labels.map((label) => label.length)), right = width - 14;
    this.scaleX = linearScale(...range.x, left, right, Math.max(2, Math.floor((right - left) / 64)), spec.whole);
    this.scaleY = probe;
    this.area = { left, right, top, bottom };
    const svg = element("svg", {
      viewBox: `0 0 ${width} ${height}`, width, height, role: "img", tabindex: "0",
      "aria-label": this.summary(),
      onpointermove: (event) => this.point(this.scaleInverse(event)), onpointerleave: () => this.point(null),
      onkeydown: (event) => this.walk(event), onblur: () => this.point(null),
    });
    svg.append(...this.axes(labels, height));
    for (const series of this.visible) svg.append(this.path(series));
    this.marker = element("g", { class: "marker" });
    svg.append(this.marker);
    if (range.empty) svg.append(element("text", { x: (left + right) / 2, y: (top + bottom) / 2, class: "none" }, "no series is shown"));
    this.svg?.remove();
    this.svg = svg;
    this.plot.prepend(svg);
  }

  axes(labels, height) {
    const { left, right, top, bottom } = this.area, parts = [];
    this.scaleY.ticks.forEach((tick, k) => {
      const y = this.scaleY(tick);
      parts.push(element("line", { x1: left, x2: right, y1: y, y2: y, class: "rule" }));
      parts.push(element("text", { x: left - 8, y: y + 4, class: "tick end" }, labels[k]));
    });
    for (const tick of this.scaleX.ticks) {
      const x = this.scaleX(tick);
      parts.push(element("line", { x1: x, x2: x, y1: bottom, y2: bottom + 4, class: "axis" }));
      parts.push(element("text", { x, y: bottom + 17, class: "tick middle" }, format(tick, this.spec.xUnit)));
    }
    parts.push(element("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }));
    parts.push(element("text", { x: right, y: height - 6, class: "label end" }, this.spec.xLabel));
    return parts;
  }

  path(series) {
    const group = element("g", { class: "series" });
    group.style.setProperty("--colour", colourOf(series, series.index));
    const at = (k, values) => [this.scaleX(series.x[k]).toFixed(1), this.scaleY(values[k]).toFixed(1)];
    if (series.low) {
      const rows = series.x.map((_, k) => k).filter((k) => this.usable(series.low[k]) && this.usable(series.high[k]));
      const outline = [...rows.map((k) => at(k, series.high)), ...rows.reverse().map((k) => at(k, series.low))];
      if (outline.length > 2) group.append(element("path", { d: `M${outline.map((p) => p.join()).join("L")}Z`, class: "band" }));
    }
    let d = "", pen = false, points = 0;
    series.y.forEach((value, k) => {
      if (!this.usable(value)) { pen = false; return; }
      d += `${pen ? "L" : "M"}${at(k, series.y).join()}`;
      pen = true;
      points++;
    });
    group.append(element("path", { d, class: series.dash ? "line dash" : "line" }));
    if (points <= 24) series.y.forEach((value, k) => {
      if (this.usable(value)) { const [cx, cy] = at(k, series.y); group.append(element("circle", { cx, cy, r: 2.6, class: "dot" })); }
    });
    for (const gap of series.gaps || []) {
      const mark = element("text", { x: this.scaleX(gap), y: this.area.bottom - 3, class: "gap" }, "×");
      mark.append(element("title", {}, `${series.name}: not finite at ${gap}`));
      group.append(mark);
    }
    return group;
  }

  summary() {
    const parts = this.visible.map(({ name, y }) => {
      const values = y.filter((value) => value !== null);
      return values.length ? `${name} from ${format(values[0], this.spec.unit)} to ${format(values.at(-1), this.spec.unit)}` : `${name}: no value`;
    });
    return `${this.spec.title}. ${parts.join("; ")}. Arrow keys read the values.`;
  }

  positions() {
    return [...new Set(this.visible.flatMap(({ x, y }) => x.filter((_, k) => y[k] !== null)))].sort((a, b) => a - b);
  }

  scaleInverse(event) {
    const box = this.svg.getBoundingClientRect(), { left, right } = this.area;
    const pixel = ((event.clientX - box.left) / box.width) * this.svg.viewBox.baseVal.width;
    const { low, high } = this.scaleX;
    return low + ((pixel - left) / (right - left)) * (high - low);
  }

  walk(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") return this.point(null);
    if (!steps) return undefined;
    event.preventDefault();
    const all = this.positions();
    const now = this.cursor === null ? (steps > 0 ? -1 : all.length) : all.indexOf(this.cursor);
    return this.point(all[Math.min(all.length - 1, Math.max(0, now + steps))]);
  }

  // Show the values nearest to x: of each visible series its closest point.
  point(x) {
    this.marker.replaceChildren();
    this.tip.hidden = true;
    this.cursor = null;
    const all = this.positions();
    if (x === null || x === undefined || !all.length) return;
    this.cursor = all.reduce((best, step) => (Math.abs(step - x) < Math.abs(best - x) ? step : best));
    const { top, bottom } = this.area, at = this.scaleX(this.cursor);
    this.marker.append(element("line", { x1: at, x2: at, y1: top, y2: bottom, class: "cursor" }));
    const rows = [];
    const reach = (this.scaleX.high - this.scaleX.low) / 40;
    for (const series of this.visible) {
      const k = nearest(series, this.cursor);
      if (k < 0 || Math.abs(series.x[k] - this.cursor) > reach) continue;
      const key = element("i", { class: series.dash ? "key dash" : "key" });
      key.style.setProperty("--colour", colourOf(series, series.index));
      const band = series.low && this.usable(series.low[k]) ? ` [${format(series.low[k], this.spec.unit)}, ${format(series.high[k], this.spec.unit)}]` : "";
      rows.push(element("div", { class: "row" }, key, element("span", {}, series.name), element("b", {}, format(series.y[k], this.spec.unit) + band)));
      if (!this.usable(series.y[k])) continue;
      const dot = element("circle", { cx: this.scaleX(series.x[k]), cy: this.scaleY(series.y[k]), r: 4, class: "dot on" });
      dot.style.setProperty("--colour", colourOf(series, series.index));
      this.marker.append(dot);
    }
    this.tip.replaceChildren(element("div", { class: "at" }, `${this.spec.xLabel} ${format(this.cursor, this.spec.xUnit)}`), ...rows);
    this.tip.hidden = false;
    const share = this.plot.clientWidth / this.svg.viewBox.baseVal.width, room = this.plot.clientWidth - this.tip.offsetWidth - 4;
    const side = at * share + 14 > room ? at * share - this.tip.offsetWidth - 14 : at * share + 14;
    this.tip.style.left = `${Math.max(4, Math.min(room, side))}px`;
  }
}

function nearest({ x, y }, step) {
  let best = -1;
  x.forEach((value, k) => {
    if (y[k] !== null && (best < 0 || Math.abs(value - step) < Math.abs(x[best] - step))) best = k;
  });
  return best;
}

for (const figure of document.querySelectorAll("figure.chart")) {
  new LineChart(figure, dataOf(figure.dataset.chart));
}
