// How far a run is that somebody waits for, in words. Knows the status; draws no page.

import { doing, duration, isActive, plural } from "/ui/core.js";

/** One sentence: what it waits for and how long about, or how far it is. */
export function howFar(run, status) {
  if (run.state === "waiting") return run.ahead ? waitsFor(run, status) : "Starting.";
  if (run.state === "stopping") return "Stopping.";
  if (run.stage !== "draw") return "Loading the model. This takes some seconds.";
  const left = run.seconds_left ? ` About ${duration(run.seconds_left)} left.` : "";
  return `${run.step} of ${run.total} drawn.${left}`;
}

function waitsFor(run, status) {
  const now = status.runs.find((other) => isActive(other) && other.state !== "waiting");
  const what = now ? doing(now) : (status.elsewhere[0] ?? "another run");
  const more = run.ahead > 1 ? ` ${plural(run.ahead - 1, "more run")} before it.` : "";
  return `Waits for the device, which does one run at a time. Now: ${what}.${more}`;
}
