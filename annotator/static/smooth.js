// A series of figures that jump, evened out: what a curve shows last, and what is said of it, are one figure. Knows
// numbers alone.

const SMOOTHING = 0.85;

/** Points [x, y], each y drawn towards those before it; without those that are no number. */
export function smoothed(points) {
  let mean = null;
  return points
    .filter(([, y]) => Number.isFinite(y))
    .map(([x, y]) => [x, (mean = mean == null ? y : SMOOTHING * mean + (1 - SMOOTHING) * y)]);
}

/** Where the evened curve ends; NaN where there is none. */
export const ending = (points) => smoothed(points).at(-1)?.[1] ?? NaN;
