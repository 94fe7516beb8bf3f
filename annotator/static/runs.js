// One run as a row: what it does, how far it is, stop and resume, what ends it by force, the end of its log.

import { ask, base, isActive } from "/ui/core.js";
import { actionButton, h } from "/ui/page.js";
import { dayAndTime, duration, plural, quietFor, runTitle, stageName } from "/ui/words.js";

const TROUBLED = ["failed", "interrupted"];

export function runRow(run) {
  const own = h(
    "div",
    { class: "sail-run", "data-testid": `run-${run.id}`, "data-state": run.state },
    h(
      "div",
      { class: "sail-row" },
      h("strong", {}, runTitle(run)),
      h("span", { class: "sail-chip", "data-state": run.state }, run.state),
      runFigures(),
      control(run),
    ),
    runBar(run),
    run.overdue && force(run),
    reason(run),
    (TROUBLED.includes(run.state) || run.quiet_min || run.overdue) && log(run),
  );
  keepUp(own, run);
  return own;
}

/** Resumes, stops or ends a run. Two runs may be in the same words, so the button says in its markup which is meant. */
export function runButton(run, verb, label, id, primary = false) {
  const own = actionButton(label, id, () => ask(`${base}/runs/${run.id}/${verb}`, {}), primary);
  own.dataset.run = run.id;
  return own;
}

/** How far it is by now, in the same row. */
export function keepUp(row, run) {
  row.querySelector('[data-part="figures"]').textContent = figures(run);
  goTo(row.querySelector("progress"), run.total > 1 && run);
}

/** A bar at `step` of `total`; without them nobody knows how far it is. */
export function goTo(bar, far) {
  if (!bar) return;
  if (far) Object.assign(bar, { max: far.total, value: far.step });
  else bar.removeAttribute("value");
}

function figures(run) {
  if (run.state === "done") {
    const when = dayAndTime(run.at);
    return run.took == null ? when : `${when} · took ${duration(run.took)}`;
  }
  if (run.state === "waiting") return run.ahead ? `${plural(run.ahead, "run")} before it` : "starts now";
  if (run.total < 2) return [stageName(run), quietFor(run)].filter(Boolean).join(" · ");
  const parts = [`${stageName(run)} ${run.step} of ${run.total}`];
  if (run.per_second)
    parts.push(
      run.per_second >= 1
        ? `${run.per_second.toFixed(1)} a second`
        : `${(1 / run.per_second).toFixed(1)} s each`,
    );
  if (run.quiet_min) parts.push(quietFor(run));
  else if (run.seconds_left != null && isActive(run)) parts.push(`about ${duration(run.seconds_left)} left`);
  return parts.join(" · ");
}

/** Where `keepUp` says how far it is. It counts on, so nobody is read it out. */
export const runFigures = () => h("span", { class: "sail-dim sail-grow", "data-part": "figures", "aria-live": "off" });

export function runBar(run) {
  return ["running", "stopping"].includes(run.state) ? h("progress", { "aria-label": runTitle(run) }) : null;
}

function reason(run) {
  if (!run.message || isActive(run)) return null;
  return h("p", { class: TROUBLED.includes(run.state) ? "sail-error" : "sail-dim" }, run.message);
}

function control(run) {
  if (run.state === "waiting") return button(run, "Leave the queue", "stop");
  if (run.state === "running") return button(run, "Stop", "stop");
  if (["stopped", ...TROUBLED].includes(run.state)) return button(run, "Resume", "resume");
  return null;
}

const button = (run, label, verb) => runButton(run, verb, label, `${verb}-${run.id}`);

/** For a run that does not answer a stop, which keeps all others waiting. Asks once more. */
function force(run) {
  const offer = h("button", { type: "button", class: "sail-quiet", "data-testid": `force-${run.id}` }, "End it now");
  const back = h("button", { type: "button", class: "sail-quiet" }, "Back");
  const kept =
    "Its process is ended at once. What is drawn, or trained up to the last checkpoint, is kept, and Resume goes on from there.";
  const asked = h("div", { class: "sail-row", hidden: true }, h("span", { class: "sail-grow" }, kept), button(run, "End it", "end"), back);
  const show = (yes) => {
    [offer.parentElement.hidden, asked.hidden] = [yes, !yes];
    // What was pressed is hidden now.
    (yes ? asked.querySelector("button") : offer).focus();
  };
  offer.addEventListener("click", () => show(true));
  back.addEventListener("click", () => show(false));
  const text = h("span", { class: "sail-dim sail-grow" }, "It does not answer, and other runs wait for it.");
  return h("div", {}, h("div", { class: "sail-row" }, text, offer), asked);
}

function log(run) {
  const text = h("pre", {}, "…");
  const details = h("details", {}, h("summary", {}, "End of its log"), text);
  details.addEventListener("toggle", async () => {
    if (!details.open) return;
    const found = await ask(`${base}/runs/${run.id}`).catch(() => null);
    text.textContent = found ? found.log || "The log is empty." : "The app does not answer.";
  });
  return details;
}
