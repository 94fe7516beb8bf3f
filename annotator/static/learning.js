// Is it learning? The answer in words, from a run's curves and from what was measured after it. Draws nothing.

import { ending } from "/ui/smooth.js";
import { FEW, interval, percent } from "/ui/words.js";

const ENOUGH_STEPS = 20;
const LEARNED = 0.6;
const COIN = 0.53;
const WORN = 0.25; // of the losers' change: winners that lose more than this are worn down with them
const NARROW = 0.75;

/** From the metrics of the steps so far: the figures at which their curves end. */
export function whileTraining(metrics) {
  if (metrics.length < ENOUGH_STEPS) return "It is too early to say whether it learns.";
  const end = (field) => ending(metrics.map((line) => [line.step, line[field]]));
  const right = end("accuracy");
  const ranked = `it ranks ${percent(right)} of the pairs it trains on as they were judged`;
  if (right < COIN) return `It has not learned yet: ${ranked}, and a coin would rank 50 %.`;
  const [winner, loser] = [end("winner_gain"), end("loser_gain")];
  const ground =
    winner >= 0
      ? "and it draws nearer to the winners"
      : winner > -WORN * Math.abs(loser)
        ? "and it leaves the losers behind while the winners stay where they were"
        : "but it moves away from the winners as well, which wears the model down: a lower learning rate (Setup, Advanced) would help";
  return `${right < LEARNED ? "It begins to learn" : "It is learning"}: ${ranked}, ${ground}.`;
}

/** Of a trained round, from what was measured for the gate. */
export function afterTraining(round) {
  return [held(round.judge_accuracy), varied(round)].filter(Boolean).join(" ");
}

function held(share) {
  const { value, low, n } = share;
  if (value == null) return "No pair was kept aside to check it, so nobody knows how often it agrees with people.";
  const figure = `Of pairs that it had never seen it chose ${interval(share)} as people did`;
  if (low > 0.5) return `${figure}: better than chance.`;
  return n < FEW
    ? `${figure}: too few to tell it from chance. More labels will tell.`
    : `${figure}: this could be chance. Look at the samples, and label more pairs.`;
}

function varied({ diversity_ratio: ratio, accepted }) {
  if (ratio == null) return "";
  return ratio < NARROW
    ? `Its images of one prompt vary less than the base model's (× ${ratio.toFixed(2)})${accepted ? ", as a taste makes them" : ""}.`
    : `Its images of one prompt vary about as much as the base model's (× ${ratio.toFixed(2)}).`;
}
