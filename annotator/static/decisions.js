// Decisions on self pairs: on the page at once, and in the outbox until the server has them. Knows pairs; knows
// no card.

import { base, poll, trouble } from "/ui/core.js";
import { Outbox } from "/ui/outbox.js";
import { Sending } from "/ui/sending.js";
import { plural } from "/ui/words.js";

const UNDOABLE = 200;

/** Of what the app has kept now, that some of it was of a round that is reviewed already. */
export function tellLate({ acknowledged, review }, sent) {
  const late = sent.filter(({ uuid, shown }) => acknowledged.includes(uuid) && shown.run !== review?.run).length;
  if (late)
    trouble(
      `Sent after the review was over: ${plural(late, "decision")}. Flipped ones count from the next round on.`,
      "review",
    );
}

/**
 * `changed` is called with pairs that look different now, `heard` with what the server says, `moved` as decisions
 * come and go.
 */
export function decisions({ changed, heard, moved }) {
  const outbox = new Outbox("sail.reviews");
  const how = { name: "A decision in Review", heard: hear, changed: () => moved(), sent: poll };
  const sending = new Sending(outbox, `${base}/reviews`, how);
  let past = []; // actions, for undo

  /** Of each pair what stands of it from now on, and what the server is told. */
  function set(entries) {
    for (const { pair, said } of entries) pair.said = said;
    outbox.put(...entries.map(({ pair, said, told }) => ({ self_pair: pair.id, ...told, shown: { run: pair.run, said } })));
    changed(entries.map(({ pair }) => pair));
    sending.send();
  }

  /** An action, its uuid where another one may take it back, and what takes it back. */
  function remember(action) {
    past = [...past, action].slice(-UNDOABLE);
    changed([]);
  }

  /** What stood before stands again. What was said of a pair since, here or elsewhere, stays. */
  function takeBack(entries) {
    const own = entries.filter(({ pair, said }) => pair.said?.uuid === said?.uuid);
    set(
      own.map(({ pair, before, told }) => {
        const undo = { uuid: crypto.randomUUID(), decision: "undo", undoes: told.uuid };
        return { pair, said: before, told: undo };
      }),
    );
    return own.map(({ pair }) => pair);
  }

  function hear(answer, sent) {
    tellLate(answer, sent);
    heard(answer);
  }

  sending.holdTraining();

  return {
    /** Say of each pair which side is better, `drop`, or null: nothing. */
    say(choices) {
      const at = Date.now() / 1000;
      const entries = choices.map(([pair, choice]) => {
        const [uuid, before] = [crypto.randomUUID(), pair.said];
        const said = choice && { uuid, choice, by: "you", at, in_bulk: false };
        return { pair, before, said, told: { uuid, decision: choice, seen: before?.uuid ?? "" } };
      });
      remember({ back: () => takeBack(entries) });
      set(entries);
    },
    remember,
    /** Other pairs are on the page: of these what this person decided on earlier visits, and `more` of it, can be
     * undone. What stood before that the server knows. */
    recall(pairs, more) {
      const own = pairs.filter(({ said }) => said?.by === "you" && !said.in_bulk);
      const actions = own.map((pair) => {
        const { said } = pair;
        return { at: said.at, back: () => takeBack([{ pair, before: null, said, told: { uuid: said.uuid } }]) };
      });
      past = [...actions, ...more].sort((one, two) => one.at - two.at).slice(-UNDOABLE);
      changed([]);
    },
    /** The pairs of the last action, as they were before it; null where there is none. */
    undo: () => past.pop()?.back() ?? null,
    undoable: () => past.length > 0,
    /** The action of that uuid cannot be undone here any more. */
    forget(uuid) {
      past = past.filter((one) => one.uuid !== uuid);
      changed([]);
    },
    /** By pair what was said, here or on an earlier visit, and is not with the server. */
    unsent: () => new Map(outbox.answers().map((one) => [one.self_pair, one.shown.said])),
    send: () => sending.send(),
    inOrder: (work) => sending.inOrder(work),
    afterAll: (work) => sending.afterAll(work),
    /** Whether all that was said here is with the server. */
    idle: () => sending.idle,
    /** Whether nobody answered the last request. */
    failing: () => sending.failures > 0,
  };
}
