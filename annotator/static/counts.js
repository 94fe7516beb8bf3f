// What is counted, in the same words everywhere. Drawn pairs are open or answered; answered ones are skipped or
// labelled; labelled ones have a winner or none; those with a winner are trained on or kept aside.

import { plural } from "/ui/words.js";

/** What became of the pairs that people answered. */
export function answered(labels) {
  if (labels.labelled + labels.skipped === 0) return "No pair is answered yet.";
  const winners = labels.winners - labels.flipped;
  const parts = [
    winners && `${winners} with a winner`,
    labels.labelled - winners && `${labels.labelled - winners} without (tie, both bad, or people disagree)`,
    labels.skipped && `${labels.skipped} skipped`,
  ];
  return `${plural(labels.labelled + labels.skipped, "pair")} answered: ${parts.filter(Boolean).join(", ")}.`;
}

/** What the model learns from, and why that is not all that was answered. */
export function toLearnFrom(labels) {
  const held = labels.winners - labels.trainable;
  const flipped = labels.flipped
    ? `, ${plural(labels.flipped, "pair")} of the model that people flipped among them`
    : "";
  const ties = labels.held_ties ? `; ${plural(labels.held_ties, "tie")}, where training changes little` : "";
  return `${plural(labels.winners, "pair has", "pairs have")} a winner${flipped}: ${labels.trainable} to learn from, ${held} kept aside to check the model${ties}.`;
}
