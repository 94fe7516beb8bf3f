// Answers of this person that the current judge contradicts, to be given again without being told what they were.

import { act, ask, askAnew, base, beforeTraining, patience, Refused, trouble } from "/ui/core.js";
import { enlargeButton } from "/ui/enlarge.js";
import { GUARD_MS, TOO_FAST } from "/ui/keys.js";
import { h } from "/ui/page.js";
import { plural } from "/ui/words.js";

const ANSWERS = { left: "Left", tie: "Tie", right: "Right" };
const LONGEST_MS = 86_400_000;

/** Returns a function that shows what the judge of a round contradicts, once for each round. */
export function doubted(card) {
  const part = (name) => card.querySelector(`[data-part="${name}"]`);
  let shownOf = null;
  let loading = false;
  let sent = Promise.resolve();
  let lost = 0; // answers that were not kept
  let waiting = 0; // answers that are on their way, or wait for those before them
  let movedAt = -Infinity; // when pairs last moved up: the next one may have come under the pointer

  beforeTraining(async () => {
    const before = lost;
    await sent;
    if (lost > before) throw new Refused("An answer in Rounds was not kept. Give it again, then train.");
  });

  // Nothing but this page knows of them, so whoever closes it is asked.
  addEventListener("beforeunload", (event) => waiting && event.preventDefault());

  async function show(round) {
    if (loading || round === shownOf) return;
    loading = true;
    try {
      const found = await ask(`${base}/pairs/doubted`, {}, { signal: patience() });
      shownOf = round;
      part("pairs").replaceChildren(...found.pairs.map(again));
      count();
    } catch {
      askAnew();
    } finally {
      loading = false;
    }
  }

  function count() {
    const left = part("pairs").children.length;
    card.hidden = left === 0;
    part("title").textContent = `The model contradicts ${plural(left, "answer")} of yours`;
  }

  function again(pair) {
    let began = null;
    const image = (side) =>
      h("figure", {}, h("img", { loading: "lazy", src: pair[side], alt: `${pair.prompt}, ${side}` }));
    const buttons = Object.entries(ANSWERS).map(([value, title]) =>
      h("button", { type: "button", onclick: () => give(value) }, title),
    );
    const own = h(
      "article",
      { class: "sail-self", "data-testid": "doubted-pair", "data-pair": pair.id },
      h("div", { class: "sail-asked" }, h("p", {}, pair.prompt), enlargeButton(pair)),
      h("div", { class: "sail-two" }, image("left"), image("right")),
      h("div", { class: "sail-decide", role: "group", "aria-label": "Which is better?" }, buttons),
    );
    // Looking begins when a person comes to this pair, not when the page was made.
    for (const name of ["pointerenter", "focusin"]) own.addEventListener(name, () => (began ??= performance.now()));

    async function give(value) {
      if (performance.now() < movedAt + GUARD_MS) return trouble(TOO_FAST, "action");
      const elapsed_ms = Math.round(Math.min(performance.now() - (began ?? performance.now()), LONGEST_MS));
      const answer = { uuid: crypto.randomUUID(), pair: pair.id, value, elapsed_ms };
      const focused = document.activeElement;
      waiting += 1;
      for (const button of buttons) button.disabled = true;
      const kept = sent
        .then(() => ask(`${base}/labels`, { answers: [answer] }, { signal: patience() }))
        .then((said) => {
          if (said.refused[answer.uuid]) throw new Refused(said.refused[answer.uuid]);
          const next = own.nextElementSibling ?? own.previousElementSibling;
          const hadFocus = own.contains(focused);
          own.remove();
          movedAt = performance.now();
          count();
          // Who goes on by key is not sent to the top of the page.
          if (hadFocus) next?.querySelector(".sail-decide button").focus();
        });
      sent = kept.catch(() => lost++).finally(() => waiting--);
      await act(buttons[0], () => kept);
      for (const button of buttons) button.disabled = false;
    }

    return own;
  }

  return show;
}
