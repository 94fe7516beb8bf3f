// One run: what it does, how far it is, stop and resume, what ends it by force, the end of its log.

import { ask, base, isActive } from "/ui/core.js";
import { actionButton, h } from "/ui/page.js";
import { dayAndTime, doingWhat, duration, howFar, reached, runTitle } from "/ui/words.js";

const TROUBLED = ["failed", "interrupted"];

/** While one waits for it, it looks the same wherever it is shown, and `keepUp` says how far it is; in the list of runs
 * it says afterwards how it ended. `place` tells it from the same run shown elsewhere on the page. */
export function runBlock(run, place = run.id) {
  return h(
    "div",
    { class: "sail-run", "data-testid": `run-${place}`, "data-state": run.state },
    ...(isActive(run) ? going(run, place) : over(run, place)),
    (TROUBLED.includes(run.state) || run.quiet_min || run.overdue) && log(run),
  );
}

/** All that a block says of a run but how far it is: where this stays, a button that is pressed or has the focus
 * stays as well. */
export const standing = (run) => [run.id, run.state, run.overdue, !run.quiet_min, !isActive(run) && [run.message, run.at, run.step]];

/** How far a run is by now, in the block that is in `place`. */
export function keepUp(place, run, status) {
  place.querySelector('[data-part="far"]').textContent = howFar(run, status);
  const bar = place.querySelector("progress");
  if (bar && run.total > 1) Object.assign(bar, { max: run.total, value: run.step });
  // Nobody knows how far it is.
  else bar?.removeAttribute("value");
}

const going = (run, place) => [
  h(
    "div",
    { class: "sail-row" },
    h("h3", { class: "sail-grow" }, run.state === "waiting" ? runTitle(run) : doingWhat(run)),
    run.state !== "stopping" &&
      runButton(run, "stop", run.state === "waiting" ? "Leave the queue" : "Stop", `stop-${place}`),
  ),
  run.state !== "waiting" && h("progress", { "aria-label": doingWhat(run) }),
  // It counts on, so nobody is read it out.
  h("p", { class: "sail-dim", "data-part": "far", "aria-live": "off" }),
  run.overdue && force(run, place),
];

const over = (run, place) => [
  h(
    "div",
    { class: "sail-row" },
    h("strong", {}, runTitle(run)),
    h("span", { class: "sail-chip", "data-state": run.state }, run.state),
    h("span", { class: "sail-dim sail-grow" }, run.state === "done" ? whenDone(run) : reached(run)),
    run.state !== "done" && runButton(run, "resume", "Resume", `resume-${place}`),
  ),
  run.message && h("p", { class: TROUBLED.includes(run.state) ? "sail-error" : "sail-dim" }, run.message),
];

const whenDone = ({ at, took }) => dayAndTime(at) + (took == null ? "" : ` · took ${duration(took)}`);

/** Resumes, stops or ends a run. Two runs may be in the same words, so the button says in its markup which is meant. */
export function runButton(run, verb, label, id, primary = false) {
  const own = actionButton(label, id, () => ask(`${base}/runs/${run.id}/${verb}`, {}), primary);
  own.dataset.run = run.id;
  return own;
}

/** For a run that does not answer a stop, which keeps all others waiting. Asks once more. */
function force(run, place) {
  const offer = h("button", { type: "button", class: "sail-quiet", "data-testid": `force-${place}` }, "End it now");
  const back = h("button", { type: "button", class: "sail-quiet" }, "Back");
  const kept =
    "Its process is ended at once. What is drawn, or trained up to the last checkpoint, is kept, and Resume goes on from there.";
  const asked = h("div", { class: "sail-row", hidden: true }, h("span", { class: "sail-grow" }, kept), runButton(run, "end", "End it", `end-${place}`), back);
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
