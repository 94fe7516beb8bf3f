// Answers of this person that the current judge contradicts, to be given again without being told what they were.

import { ask, askAnew, base, patience, poll, trouble } from "/ui/core.js";
import { enlargeButton } from "/ui/enlarge.js";
import { GUARD_MS, TOO_FAST } from "/ui/keys.js";
import { Outbox } from "/ui/outbox.js";
import { drawUnsent, h } from "/ui/page.js";
import { Sending } from "/ui/sending.js";
import { plural } from "/ui/words.js";

const ANSWERS = { left: "Left", tie: "Tie", right: "Right" };
const LONGEST_MS = 86_400_000;

/** Returns a function that shows what the judge of a round contradicts: once, and again where an answer was refused. */
export function doubted(card) {
  const part = (name) => card.querySelector(`[data-part="${name}"]`);
  const outbox = new Outbox("sail.doubted");
  const how = { name: "An answer in Rounds", heard, changed: count, sent: poll };
  const sending = new Sending(outbox, `${base}/labels`, how);
  let shownOf = null;
  let loading = false;
  let movedAt = -Infinity; // when pairs last moved up: the next one may have come under the pointer

  sending.holdTraining();

  /** What was not kept is asked again. */
  function heard(answer) {
    if (!Object.keys(answer.refused).length) return;
    shownOf = null;
    askAnew();
  }

  async function show(round) {
    if (loading || round === shownOf) return;
    loading = true;
    try {
      const found = await sending.inOrder(() => ask(`${base}/pairs/doubted`, {}, { signal: patience() }));
      const unsent = outbox.answers().map(({ pair }) => pair);
      shownOf = round;
      if (part("pairs").children.length) movedAt = performance.now();
      part("pairs").replaceChildren(...found.pairs.filter(({ id }) => !unsent.includes(id)).map(again));
      count();
    } catch {
      askAnew();
    } finally {
      loading = false;
    }
  }

  function count() {
    const left = part("pairs").children.length;
    drawUnsent(part("unsent"), outbox.answers().length, sending.failures > 0);
    card.hidden = !left && part("unsent").hidden;
    part("title").textContent = left ? `The model contradicts ${plural(left, "answer")} of yours` : "Answered again";
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

    function give(value) {
      if (performance.now() < movedAt + GUARD_MS) return trouble(TOO_FAST, "action");
      trouble("", "action");
      const elapsed_ms = Math.round(Math.min(performance.now() - (began ?? performance.now()), LONGEST_MS));
      outbox.put({ uuid: crypto.randomUUID(), pair: pair.id, value, elapsed_ms });
      const next = own.nextElementSibling ?? own.previousElementSibling;
      const hadFocus = own.contains(document.activeElement);
      own.remove();
      movedAt = performance.now();
      // Who goes on by key is not sent to the top of the page.
      if (hadFocus) next?.querySelector(".sail-decide button").focus();
      sending.send();
    }

    return own;
  }

  sending.send();
  return show;
}
