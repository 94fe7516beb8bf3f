// Counts, shares, times and runs in words. Knows the status; draws nothing.

import { inTurn } from "/ui/core.js";

export const plural = (count, one, many = `${one}s`) =>
  `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
export const percent = (share) => `${(100 * share).toFixed(0)} %`;
export const FEW = 20;
/** A model that is wrong so often is hardly better than guessing. */
export const POOR = 0.4;
/** A share of n: what was counted where n is small, since "0 % of 1" sounds like a verdict. */
export const outOf = ({ value, n }) => `${n < FEW ? Math.round(2 * value * n) / 2 : percent(value)} of ${n}`;
/** With its 95 % interval. */
export function interval(share) {
  if (share?.value == null) return "not measured";
  return `${outOf(share)} (95 % interval ${Math.round(100 * share.low)} to ${percent(share.high)})`;
}

export function duration(seconds) {
  if (seconds == null) return "";
  if (seconds < 1.5) return "1 s";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export const dayAndTime = (seconds) =>
  new Date(1000 * seconds).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });

export function size(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

export function figure(value) {
  if (!Number.isFinite(value)) return "";
  const size = Math.abs(value);
  // Of what is small the first digit that is not 0.
  const digits = size >= 10 ? 0 : size >= 0.01 || size === 0 ? 2 : Math.min(6, Math.ceil(-Math.log10(size)));
  const text = value.toFixed(digits);
  // A minus, not a hyphen, after which a line may break.
  return text.replaceAll("-", "\u2212");
}

// Rounds and runs

/** A round in a sentence; `null` is the base model. */
export const roundName = (round) => (round == null ? "base" : `round ${round}`);
/** The same at the beginning of one, or by itself. */
export const roundTitle = (round) => (round == null ? "Base" : `Round ${round}`);

const JOBS = { propose: "Propose", train: "Train", export: "Export", compare: "Comparisons of" };
const TITLES = { draw: "Draw pairs", try: "Try a prompt" };
export function runTitle(run) {
  return TITLES[run.job] ?? `${JOBS[run.job]} round ${run.round}`;
}

const DOING = {
  propose: "Proposing",
  train: "Training",
  export: "Exporting",
  compare: "Drawing comparisons of",
};
/** What is done, and in front of a count: "step 3 of 20". */
const STAGES = {
  start: ["starting"],
  load: ["loading the model"],
  "download (MB)": ["fetching the model", "fetching megabyte"],
  "draw and judge": ["drawing and judging", "prompt"],
  train: ["training", "step"],
  "draw held-out prompts (base)": ["drawing with base", "drawing with base, prompt"],
  "draw held-out prompts (policy)": ["drawing with the new round", "drawing with the new round, prompt"],
  "judge human pairs": ["checking it on a pair", "checking it on pair"],
  "judge open pairs": ["judging an unanswered pair", "judging unanswered pair"],
  export: ["writing files", "part"],
};
const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);
function stageName({ stage, total }) {
  const [alone, counted = alone] = STAGES[stage] ?? [stage];
  return total > 1 ? counted : alone;
}
const count = ({ step, total }) => `${step.toLocaleString("en")} of ${total.toLocaleString("en")}`;

/** How far it came, as a sentence begins; "" of a run that said nothing yet. */
export function reached(run) {
  if (run.stage === "draw") return `${count(run)} ${["compare", "try"].includes(run.job) ? "images" : "prompts"}`;
  return capital(stageName(run)) + (run.total > 1 ? ` ${count(run)}` : "");
}

const DRAWING = { draw: "Drawing pairs", try: "Drawing a try" };
/** What a run at work does, without how far it is. */
export const doingWhat = (run) => DRAWING[run.job] ?? `${DOING[run.job]} round ${run.round}`;

/** That a run at work says nothing, for how long. */
const quietFor = (run) => `nothing heard for ${duration(60 * run.quiet_min)}`;

/** What the device does for another project. */
export const doingElsewhere = (run) => `${doingWhat(run)} in ${run.project}`;

/** In three parts, of which the middle one says least where there is little room. */
export function doingInParts(run) {
  if (run.state === "waiting") return [`${runTitle(run)}: waiting`, "", ""];
  const what = doingWhat(run);
  const quiet = run.quiet_min ? ` · ${quietFor(run)}` : "";
  const left = run.seconds_left != null && run.total ? ` · ${duration(run.seconds_left)} left` : "";
  // "Drawing pairs" says already that they are drawn.
  const stage = !run.stage || run.stage === "draw" ? "" : `${stageName(run)} `;
  if (run.total > 1) return [`${what} · `, stage, `${count(run)}${quiet || left}`];
  // A run that was asked to stop before it said anything has no stage.
  return stage ? [`${what} · `, stage.trim(), quiet] : [what, "", quiet];
}

const doing = (run) => doingInParts(run).join("");

// What somebody waits for

/** What it waits for, or how far it is and how long about it still takes. */
export function howFar(run, status) {
  if (run.state === "waiting") return run.ahead ? waitsFor(run, status) : "Starting.";
  if (run.state === "stopping") return "Stopping.";
  const now = `${reached(run)}${pace(run)}.`;
  if (run.quiet_min) return `${now} ${capital(quietFor(run))}.`;
  return run.seconds_left ? `${now} About ${duration(run.seconds_left)} left.` : now;
}

function pace({ per_second, quiet_min }) {
  if (!per_second || quiet_min) return "";
  return per_second < 1 ? `, ${(1 / per_second).toFixed(1)} s each` : `, ${per_second.toFixed(1)} a second`;
}

function waitsFor(run, status) {
  if (run.ahead > 1) return `Waits its turn: ${plural(run.ahead, "run")} before it.`;
  const now = inTurn(status.runs).find((other) => other.state !== "waiting");
  const what = now ? doing(now) : status.elsewhere.length ? doingElsewhere(status.elsewhere[0]) : "another run";
  return `Waits its turn, since one run is done at a time. Now: ${what}.`;
}
