// Shared by every part of the page: elements, numbers, scales. All text goes in as text, never as HTML.
"use strict";
const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 8;

function element(name, attributes = {}, ...children) {
  const inSvg = ["svg", "g", "path", "line", "rect", "circle", "text", "title"].includes(name);
  const node = inSvg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function dataOf(id) {
  const block = document.getElementById(id);
  return block ? JSON.parse(block.textContent) : null;
}

const UNITS = {
  percent: (value) => `${trim((100 * value).toFixed(Math.abs(value) < 0.1 ? 1 : 0))} %`,
  bytes: (value) => scaled(value, [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]], "B"),
  plain: (value) => scaled(value, [[1e9, "G"], [1e6, "M"], [1e4, "k", 1e3]], ""),
};

function scaled(value, scales, unit) {
  for (const [least, prefix, divisor] of scales) {
    if (Math.abs(value) >= least) return `${significant(value / (divisor || least))} ${prefix}`;
  }
  return unit ? `${significant(value)} ${unit}` : significant(value);
}

function significant(value, digits = 4) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e").replace("-", "−");
  return trim(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size + 1))))).replace("-", "−");
}

const trim = (text) => (text.includes(".") && !text.includes("e") ? text.replace(/\.?0+$/, "") : text);
const format = (value, unit) => (value === null || value === undefined ? "–" : (UNITS[unit] || UNITS.plain)(value));

// A scale maps a value to a pixel; `ticks` are round numbers within it.
function linearScale(low, high, start, end, count, whole = false) {
  const span = high - low || 1;
  const rough = span / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const round = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const step = whole ? Math.max(1, round) : round;
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
  const scale = (value) => start + ((value - low) / span) * (end - start);
  return Object.assign(scale, { ticks, low, high });
}

function logScale(low, high, start, end) {
  const [first, last] = [Math.log10(low), Math.log10(high)];
  const span = last - first || 1;
  const factors = span < 1.2 ? [1, 2, 3, 5, 7] : span < 3 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = Math.floor(first); power <= Math.ceil(last); power++) {
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  const scale = (value) => start + ((Math.log10(value) - first) / span) * (end - start);
  return Object.assign(scale, { ticks, low, high });
}

function colourOf(series, index) {
  if (typeof series.ramp === "number") return `color-mix(in oklab, var(--ramp-0), var(--ramp-1) ${Math.round(100 * series.ramp)}%)`;
  return `var(--series-${(series.colour ?? index) % COLOURS})`;
}
