// The one thing to do next in the loop, in words and as a button. Knows the status; draws no page.

import { ask, base, endedEarly, isActive, openTab, train } from "/ui/core.js";
import { answered, toLearnFrom } from "/ui/counts.js";
import { actionButton, h } from "/ui/page.js";
import { doingWhat, duration, plural, runTitle } from "/ui/words.js";

const IN_THE_LOOP = ["draw", "propose", "train"];
const LIMITS = "What a round has to keep is set in Setup, Advanced, Measuring. ";
const MEANWHILE = {
  draw: "You can label what is there already.",
  propose: "The pairs go to Review when it is done.",
  train: "Curves and samples appear below.",
};

/** Elements that say what comes next; while a run works on it, what it is. */
export function nextAction(status) {
  const active = status.runs.find((run) => isActive(run) && IN_THE_LOOP.includes(run.job));
  const canLabel = active?.job === "draw" && status.next.name !== "draw";
  if (active && !canLabel) return during(active);
  const next = STEPS[status.next.name](status);
  const last = status.runs.find((run) => ["propose", "train"].includes(run.job));
  return last && endedEarly(last) && last.round === status.next.round
    ? resume(last, next[1])
    : next;
}

/** What ended early goes on from where it was; what would begin anew stays beside it, and comes first after a
 * failure, which the same settings would mostly bring again. */
function resume(run, instead) {
  const text = `${run.message || `It ended at ${run.stage} ${run.step} of ${run.total}.`} What was changed since counts only for what begins anew.`;
  const own = actionButton(
    `Resume ${runTitle(run).toLowerCase()}`,
    "resume-next",
    () => ask(`${base}/runs/${run.id}/resume`, {}),
    true,
  );
  (run.state === "failed" ? own : instead).className = "sail-quiet";
  return [words(`${runTitle(run)}: ${run.state}`, text), instead, own];
}

const STEPS = {
  draw: () =>
    step(
      "Draw the first pairs",
      "Two images of each prompt, for people to choose from.",
      "Draw 60 pairs",
      start("draw", { count: 60 }),
    ),
  label: ({ labels }) =>
    step(
      "Label pairs for round 0",
      `${answered(labels)} ${labels.trainable} of at least ${labels.needed} pairs to learn from: with a winner, and not held out.`,
      "Go on labelling",
      () => openTab("label"),
    ),
  train: (status) =>
    step(
      `Train round ${status.next.round}`,
      goesOnFrom(status) + toLearnFrom(status.labels) + takes(status.next),
      `Train round ${status.next.round}`,
      () => train(),
    ),
  propose: (status) =>
    step(
      `Propose pairs for round ${status.next.round}`,
      goesOnFrom(status) + judgedBy(status) + takes(status.next),
      `Propose round ${status.next.round}`,
      start("propose"),
    ),
  review: ({ next, review }) =>
    step(
      review.pairs ? `Review what the model chose for round ${next.round}` : "The model found no clear pair",
      review.pairs
        ? `${plural(review.pairs, "self pair")}, ${review.unreviewed ? `${review.unreviewed} not looked at yet` : "all decided: set the mixup ratio there and train"}.`
        : `Round ${next.round} can be trained on people's pairs alone.`,
      "Review",
      () => openTab("review"),
    ),
};

const start =
  (job, more = {}) =>
  () =>
    ask(`${base}/runs`, { job, ...more });

const judgedBy = (status) => `The model judges new images by what round ${status.current} learned.`;

/** By how long runs took on this device before. */
const takes = ({ seconds }) => (seconds == null ? "" : ` About ${duration(seconds)} on this device.`);

/** Where the newest round is not what it goes on from. */
function goesOnFrom(status) {
  const last = status.rounds.at(-1);
  if (last?.accepted && status.current == null) return "The base model is current, so the loop goes on from it. ";
  if (!last || last.accepted) return "";
  if (status.current === last.round)
    return (
      `Round ${last.round} was not accepted and is current because somebody chose it. ` +
      `What is trained from it will hardly be accepted either. ${LIMITS}`
    );
  if (status.current == null) return `Round ${last.round} was not accepted, so the loop goes on from the base model. If you like what it draws, make it current anyway. ${LIMITS}`;
  return (
    `Round ${last.round} was not accepted, so the loop goes on from round ${status.current}. ` +
    "Another on the same labels will hardly fare better: label more pairs, compare and export what there is, or make it current anyway if you like what it draws. " +
    LIMITS
  );
}

function during(run) {
  const text = run.state === "waiting" ? "It starts when the device is free." : MEANWHILE[run.job];
  const title = run.state === "waiting" ? runTitle(run) : doingWhat(run);
  return [words(title, text), run.job === "draw" && button("Label", () => openTab("label"))];
}

const step = (title, text, label, run) => [words(title, text), button(label, run)];

const words = (title, text) => h("div", {}, h("h3", {}, title), h("p", { class: "sail-dim" }, text));

const button = (label, run) => actionButton(label, "next-action", run, true);
