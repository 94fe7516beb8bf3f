// How far a run is that somebody waits for, in words. Knows the status; draws no page.

import { doing, duration, isActive, plural } from "/ui/core.js";

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
  if (run.stage !== DOWNLOAD) return "Loading the model. This takes some seconds.";
  const mb = (count) => count.toLocaleString("en");
  return `Fetching the model: ${mb(run.step)} of ${mb(run.total)} MB.${left(run)}`;
}

const left = (run) => (run.seconds_left ? ` About ${duration(run.seconds_left)} left.` : "");

function waitsFor(run, status) {
  const now = status.runs.find((other) => isActive(other) && other.state !== "waiting");
  const what = now ? doing(now) : (status.elsewhere[0] ?? "another run");
  const more = run.ahead > 1 ? ` ${plural(run.ahead - 1, "more run")} before it.` : "";
  return `Waits for the device, which does one run at a time. Now: ${what}.${more}`;
}
