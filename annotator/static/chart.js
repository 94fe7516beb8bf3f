// Small line charts. Knows series of numbers; knows nothing of training.

import { h, svg } from "/ui/page.js";
import { ending, smoothed } from "/ui/smooth.js";
import { figure } from "/ui/words.js";

const WIDTH = 300;
const HEIGHT = 130;
const SPACE = { left: 44, right: 6, top: 8, bottom: 18 };

/** A figure of one or more series of [x, y], with a dashed line at `zero` and what the last values are. */
export function chart({ title, series, zero, format = figure }) {
  const points = series.flatMap((one) => one.points);
  const ys = [...points.map(([, y]) => y), zero].filter((y) => Number.isFinite(y));
  const scale = { x: range(points.map(([x]) => x)), y: padded(range(ys)) };
  const drawing = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "img",
    "aria-label": spoken(title, series, format),
  });
  if (Number.isFinite(zero)) drawing.append(line(scale, zero));
  for (const one of series) {
    drawing.append(path(scale, one.points, one.color, 0.25), path(scale, smoothed(one.points), one.color, 1));
  }
  const told = format(scale.y[0]) === format(scale.y[1]) ? closer : format;
  for (const y of scale.y) drawing.append(label(SPACE.left - 6, beside(y, scale), told(y), "end"));
  drawing.append(
    label(SPACE.left, HEIGHT - 4, String(scale.x[0]), "start"),
    label(WIDTH - SPACE.right, HEIGHT - 4, `step ${scale.x[1]}`, "end"),
  );
  return h(
    "figure",
    { class: "sail-chart", style: "margin:0" },
    h("figcaption", {}, h("strong", {}, title), legend(series, format)),
    drawing,
  );
}

function legend(series, format) {
  return h(
    "span",
    { class: "sail-legend" },
    series.map((one) =>
      h("span", {}, h("i", { style: `background:${one.color}` }), `${one.name} ${format(ending(one.points))}`),
    ),
  );
}

const spoken = (title, series, format) =>
  `${title}: ${series.map((one) => `${one.name} ${format(ending(one.points))}`).join(", ")}`;

/** Height of the label of y, kept inside the drawing. */
function beside(y, scale) {
  return Math.min(HEIGHT - SPACE.bottom, Math.max(SPACE.top + 6, place(scale, 0, y)[1] + 3));
}

function place(scale, x, y) {
  const width = WIDTH - SPACE.left - SPACE.right;
  const height = HEIGHT - SPACE.top - SPACE.bottom;
  return [
    SPACE.left + (width * (x - scale.x[0])) / (scale.x[1] - scale.x[0] || 1),
    SPACE.top + height * (1 - (y - scale.y[0]) / (scale.y[1] - scale.y[0] || 1)),
  ];
}

function path(scale, points, color, opacity) {
  const d = points
    .filter(([, y]) => Number.isFinite(y))
    .map(
      ([x, y], index) =>
        `${index ? "L" : "M"}${place(scale, x, y)
          .map((n) => n.toFixed(1))
          .join(" ")}`,
    )
    .join("");
  return svg("path", { d, stroke: color, opacity });
}

function line(scale, y) {
  const [, at] = place(scale, 0, y);
  return svg("line", { class: "sail-zero", x1: SPACE.left, x2: WIDTH - SPACE.right, y1: at, y2: at });
}

function label(x, y, text, anchor) {
  return svg("text", { x, y, "text-anchor": anchor }, document.createTextNode(text));
}

const range = (values) => (values.length ? [Math.min(...values), Math.max(...values)] : [0, 1]);
const padded = ([low, high]) => (high > low ? [low, high] : [low - 0.5, high + 0.5]);

/** Of two ends of an axis that would read alike, as in the first steps of a training. */
const closer = (value) => value.toPrecision(4).replaceAll("-", "\u2212");
