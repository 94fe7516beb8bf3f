// How a review stands, in words: what is decided, what the audit says, why there is nothing to review. Knows no card.

import { isActive, openTab } from "/ui/core.js";
import { actionButton, text, title } from "/ui/page.js";
import { runBlock } from "/ui/runs.js";
import { decisionOf } from "/ui/selfpair.js";
import { FEW, interval, plural, POOR } from "/ui/words.js";

/** How many pairs are decided, and how. */
export function counted({ pairs, round, audit }) {
  if (!pairs.length) return `The model found no pair for round ${round}.`;
  const count = (name) => pairs.filter((pair) => decisionOf(pair) === name).length;
  const open = count(null);
  const decided = audit.done
    ? [`${count("approve")} approved`, `${count("flip")} flipped (people’s choice now)`, `${count("drop")} dropped`]
    : [`${pairs.length - open} decided`];
  const rest = open ? `${open} not reviewed` : "all reviewed";
  return `${plural(pairs.length, "pair")} that the model chose for round ${round}: ${decided.join(", ")}, ${rest}.`;
}

/** What it means that a round is trained meanwhile; empty where none is. */
export function late(runs) {
  const training = runs.find((run) => run.job === "train" && isActive(run));
  return training
    ? `Round ${training.round} is trained on what was decided before. What you flip now counts from the next round on; the rest only where this training is stopped and the round trained anew.`
    : "";
}

/** Of an audit among `all` pairs, the heading and what is under it. */
export function auditSays({ pairs, decided, done, error }, all) {
  if (!all)
    return [
      "The model found no pair",
      "None of the images it drew differ clearly enough to it. Label more pairs, or train another round on yours alone.",
    ];
  if (!done)
    return [
      `Audit: ${decided} of ${pairs} decided`,
      `${which(pairs, all)}. Say which image is better, without knowing what the model chose. Then you see how often it is wrong.`,
    ];
  const wrong = Math.round(error.value * error.n);
  // Of a few the count above says all there is to say.
  const share = error.n < FEW ? "" : `That is ${interval(error)}. `;
  return [
    `Audit: the model was wrong in ${wrong} of ${error.n}`,
    `${share}“Neither” counted as wrong; changes from now on do not alter this figure.${advice(error)}`,
  ];
}

const which = (pairs, all) =>
  pairs < all ? `${plural(pairs, "pair")} of ${all}, chosen at random` : all === 1 ? "The one pair there is" : `All ${all} pairs, as there are so few`;

function advice({ value }) {
  if (value < POOR) return "";
  const says = value > 0.5 ? "The model disagreed with you more often than not." : "That is hardly better than guessing.";
  return ` ${says} Learn little from its pairs: lower their share, or label more first.`;
}

/** The run that brings pairs to review. */
export const proposing = ({ runs }) => runs.find((run) => run.job === "propose" && isActive(run));

/** In the place of pairs, where there are none; how far a run is by now is said by `keepUp`. */
export function nothing(status) {
  const run = proposing(status);
  const words = run
    ? `The model draws new images and chooses among them.${run.state === "stopping" ? "" : " Its pairs come here when it is done."}`
    : status.next.name === "propose"
      ? `The model of round ${status.current} has not drawn anything to choose from for round ${status.next.round} yet.`
      : "After round 0 new images are drawn, and the model picks winners itself. They come here before it learns from them.";
  return [
    run ? runBlock(run, "review") : title("Nothing to review yet"),
    text(words),
    !run && actionButton("Open Rounds", "review-rounds", () => openTab("rounds"), true),
  ];
}
