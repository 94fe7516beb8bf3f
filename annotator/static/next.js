// What to do next in the loop, in words and as buttons, or how far it is. Knows the status; draws no page.

import { ask, base, endedEarly, inTurn, openTab, train } from "/ui/core.js";
import { answered, toLearnFrom } from "/ui/counts.js";
import { actionButton, h } from "/ui/page.js";
import { runBlock, runButton } from "/ui/runs.js";
import { doingWhat, duration, plural, reached, roundName, runTitle } from "/ui/words.js";

const MORE_PAIRS = 20;
const LIMITS = "What a round has to keep is set in Setup, Advanced, Measuring. ";
const MEANWHILE = {
  draw: "You can label as soon as the first pair is there.",
  propose: "The pairs go to Review when it is done.",
  train: "Samples and curves show below as they come.",
};

/** Elements that say what comes next; while a run works on it, that run. How far it is by now `keepUp` says. */
export function nextAction(status) {
  const active = atWork(status);
  if (active) return during(active);
  const next = STEPS[status.next.name](status);
  const last = status.runs.find((run) => ["propose", "train"].includes(run.job));
  return last && endedEarly(last) && last.round === status.next.round ? resume(last, next) : next;
}

/** The run that the next step waits for. */
export function atWork(status) {
  // While more pairs are drawn one can go on with those that are there.
  const jobs = status.next.name === "draw" ? Object.keys(MEANWHILE) : ["propose", "train"];
  return inTurn(status.runs).find((run) => jobs.includes(run.job));
}

/** What ended early goes on from where it was; what would begin anew stays beside it, and comes first after a
 * failure, which the same settings would mostly bring again. */
function resume(run, next) {
  const begins = next.find((part) => part.dataset?.testid === "next-action");
  const isAnew = begins.textContent === runTitle(run);
  if (isAnew) begins.textContent = "Start over";
  const text = `${run.message || `How far it came: ${reached(run)}.`} Resume keeps the labels and settings that it began with${isAnew ? "; Start over takes those of now" : ""}.`;
  const own = runButton(run, "resume", `Resume ${doingWhat(run).toLowerCase()}`, "resume-next", true);
  (run.state === "failed" ? own : begins).className = "sail-quiet";
  (run.state === "failed" ? begins : own).className = "sail-primary";
  return [words(`${runTitle(run)}: ${run.state}`, text), begins, own];
}

const STEPS = {
  draw: () =>
    step(
      "Draw the first pairs",
      "Two images of each prompt, for people to choose from.",
      "Draw 60 pairs",
      start("draw", { count: 60 }),
    ),
  label: ({ labels }) => {
    const isOpen = open(labels) > 0;
    return step(
      "Label pairs for round 0",
      `${answered(labels)} ${labels.trainable} of at least ${labels.needed} pairs to learn from: with a winner, and not kept aside to check the model.`,
      isOpen ? "Go on labelling" : `Draw ${MORE_PAIRS} more pairs`,
      () => (isOpen ? openTab("label") : start("draw", { count: MORE_PAIRS })()),
    );
  },
  train: (status) =>
    step(
      `Train round ${status.next.round}`,
      goesOnFrom(status) + toLearnFrom(status.labels) + takes(status.next),
      `Train round ${status.next.round}`,
      () => train(),
    ),
  propose: (status) => {
    const { current, next, runs, labels } = status;
    const isCompared = runs.some((run) => run.job === "compare" && run.round === current);
    const left = open(labels);
    const compare = actionButton("Compare with base", "next-compare", () => openTab("compare"), !isCompared);
    const propose = actionButton(`Propose round ${next.round}`, "next-action", start("propose"), isCompared);
    const more = actionButton(left > 0 ? `Label ${plural(left, "more pair")}` : "Label 20 more", "next-label", async () => {
      if (left <= 0) await ask(`${base}/runs`, { job: "draw", count: MORE_PAIRS });
      openTab("label");
    });
    return [
      words(
        `Is ${roundName(current)} better?`,
        `${goesOnFrom(status)}Compare asks you blindly whether it draws better than base. ` +
          `To go on, propose round ${next.round}: the model draws new images and chooses among them itself, by what ` +
          `${roundName(current)} learned, and you check its choice in Review.${takes(next)}`,
      ),
      compare,
      propose,
      more,
    ];
  },
  review: ({ next, review }) =>
    step(
      review.pairs ? `Review what the model chose for round ${next.round}` : "The model found no clear pair",
      review.pairs
        ? `${plural(review.pairs, "pair")}, ${review.unreviewed ? `${review.unreviewed} not looked at yet` : "all decided: set the mixup ratio there and train"}.`
        : `Round ${next.round} can be trained on people's pairs alone.`,
      "Review",
      () => openTab("review"),
    ),
};

/** How many pairs nobody has answered, those that are still drawn included. */
const open = (labels) => labels.planned - labels.labelled - labels.skipped;

const start =
  (job, more = {}) =>
  () =>
    ask(`${base}/runs`, { job, ...more });

/** By how long runs took before. */
const takes = ({ seconds }) => (seconds == null ? "" : ` About ${duration(seconds)}, judging by earlier runs.`);

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

const during = (run) => [
  runBlock(run, "next"),
  run.state === "running" && h("p", { class: "sail-dim" }, MEANWHILE[run.job]),
  run.job === "draw" && button("Label", () => openTab("label")),
];

const step = (title, text, label, run) => [words(title, text), button(label, run)];

const words = (title, text) => h("div", {}, h("h3", {}, title), h("p", { class: "sail-dim" }, text));

const button = (label, run) => actionButton(label, "next-action", run, true);
