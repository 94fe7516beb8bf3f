// Counts, shares, times and runs in words. Knows the status; draws nothing.

import { isActive } from "/ui/core.js";

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
const STAGES = {
  start: "starting",
  load: "loading the model",
  train: "step",
  "draw and judge": "drawing and judging, prompt",
  "judge human pairs": "checking it on people's pairs,",
  "judge open pairs": "judging pairs that nobody answered yet,",
  "draw held-out prompts (base)": "drawing prompts kept aside, by base,",
  "draw held-out prompts (policy)": "drawing prompts kept aside, by the new round,",
};
/** What it is at, in words for people. */
export const stageName = ({ stage }) => STAGES[stage] ?? stage;
const DRAWING = { draw: "Drawing pairs", try: "Drawing a try" };
/** What a run at work does, without how far it is. */
export const doingWhat = (run) => DRAWING[run.job] ?? `${DOING[run.job]} round ${run.round}`;

/** That a run at work says nothing, for how long; "" while it does. */
export const quietFor = (run) => (run.quiet_min ? `nothing heard for ${duration(60 * run.quiet_min)}` : "");

/** What the device does for another project. */
export const doingElsewhere = (run) => `${doingWhat(run)} in ${run.project}`;

/** In three parts, of which the middle one says least where there is little room. */
export function doingInParts(run) {
  if (run.state === "waiting") return [`${runTitle(run)}: waiting`, "", ""];
  const what = doingWhat(run);
  const quiet = run.quiet_min ? ` · ${quietFor(run)}` : "";
  const left = run.seconds_left != null && run.total ? ` · ${duration(run.seconds_left)} left` : "";
  // "Drawing pairs" says already that they are drawn.
  const stage = run.stage === "draw" ? "" : `${stageName(run)} `;
  if (run.total > 1) return [`${what} · `, stage, `${run.step} of ${run.total}${quiet || left}`];
  // A run that was asked to stop before it said anything has no stage.
  return run.stage ? [`${what} · `, stageName(run), quiet] : [what, "", ""];
}

export const doing = (run) => doingInParts(run).join("");

// What somebody waits for

const DOWNLOAD = "download (MB)";
const DRAWS = ["draw", "draw and judge"];

/** One sentence: what it waits for and how long about, or how far it is. */
export function howFar(run, status) {
  if (run.state === "waiting") return run.ahead ? waitsFor(run, status) : "Starting.";
  if (run.state === "stopping") return "Stopping.";
  if (!DRAWS.includes(run.stage)) return loading(run);
  return `${run.step} of ${run.total} ${run.job === "propose" ? "prompts" : "drawn"}.${left(run)}`;
}

/** One sentence about a run that does not draw yet. */
export function loading(run) {
  if (run.stage !== DOWNLOAD) return `Loading the model.${run.quiet_min ? left(run) : " This takes some seconds."}`;
  const mb = (count) => count.toLocaleString("en");
  return `Fetching the model: ${mb(run.step)} of ${mb(run.total)} MB.${left(run)}`;
}

function left(run) {
  if (run.quiet_min) return ` Nothing heard for ${duration(60 * run.quiet_min)}: see its log in Rounds.`;
  return run.seconds_left ? ` About ${duration(run.seconds_left)} left.` : "";
}

function waitsFor(run, status) {
  const now = status.runs.find((other) => isActive(other) && other.state !== "waiting");
  const what = now ? doing(now) : status.elsewhere.length ? doingElsewhere(status.elsewhere[0]) : "another run";
  const more = run.ahead > 1 ? ` ${plural(run.ahead - 1, "more run")} before it.` : "";
  return `Waits its turn, since one run is done at a time. Now: ${what}.${more}`;
}
