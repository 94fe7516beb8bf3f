// Decisions on self pairs: on the page at once, with the server one after the other, and rolled back where
// they are not kept. Knows pairs; knows no card.

import { ask, base, beforeTraining, Refused } from "/ui/core.js";

const UNDOABLE = 200;

/**
 * `changed` is called with pairs that look different now, `kept` with what the server says of all, `failed` with
 * one sentence where a decision was not kept.
 */
export function decisions({ changed, kept, failed }) {
  // One after the other: two requests may overtake each other, and the last decision on a pair holds.
  let sent = Promise.resolve();
  let lost = 0; // decisions that were not kept
  let waiting = 0; // requests on their way
  let past = []; // what was said before each action, for undo

  function inOrder(work) {
    waiting++;
    const answer = sent.then(work).finally(() => waiting--);
    sent = answer.catch(() => {});
    return answer;
  }

  function send(said) {
    const reviews = said.map(({ pair, value }) => ({
      uuid: crypto.randomUUID(),
      self_pair: pair.id,
      decision: value?.choice ?? null,
    }));
    const answer = inOrder(() => ask(`${base}/reviews`, { reviews }));
    sent = answer.then(
      () => said.forEach(({ pair, value }) => (pair.kept = value)),
      () => lost++,
    );
    return answer;
  }

  async function set(entries) {
    const said = entries.map(([pair, choice]) => {
      const value = choice && { choice, by: "you", at: Date.now() / 1000, in_bulk: false };
      pair.said = value;
      pair.lost = false;
      return { pair, value, turn: ++pair.turn };
    });
    changed(said.map(({ pair }) => pair));
    try {
      const answer = await send(said);
      kept(answer);
    } catch (error) {
      // A later decision on the same pair is still on its way, and speaks for itself.
      for (const { pair, turn } of said)
        if (turn === pair.turn) {
          pair.said = pair.kept;
          pair.lost = true;
        }
      past = [];
      changed(said.map(({ pair }) => pair));
      const silent = "The app does not answer, so a decision was not kept. Try again.";
      failed(error instanceof Refused ? error.message : silent);
    }
  }

  beforeTraining(async () => {
    const before = lost;
    await sent;
    if (lost > before) throw new Refused("A decision in Review was not kept. Decide again, then train.");
  });

  return {
    /** Say of each pair which side is better, `drop`, or null to take it back. */
    say(entries) {
      past = [...past, entries.map(([pair]) => [pair, pair.said?.choice ?? null])].slice(-UNDOABLE);
      set(entries);
    },
    /** The pairs of the last action, as they were before it; null where there is none. */
    undo() {
      const entries = past.pop();
      if (!entries) return null;
      set(entries);
      return entries.map(([pair]) => pair);
    },
    /** Other pairs are on the page: what was said of the old ones cannot be undone here. */
    forget() {
      past = [];
    },
    inOrder,
    /** Whether all that was said here is with the server, or rolled back. */
    idle: () => waiting === 0,
  };
}
