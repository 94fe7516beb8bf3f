// Labelled pairs that the newest judge contradicts, to look at again without being told what was said.

import { act, ask, base, h, plural, Refused } from "/ui/core.js";

const ANSWERS = [
  ["left", "Left"],
  ["tie", "Tie"],
  ["right", "Right"],
];

export function doubted(card) {
  const part = (name) => card.querySelector(`[data-part="${name}"]`);

  async function load() {
    const found = await ask(`${base}/pairs/doubted`, {}).catch(() => null);
    if (!found) return;
    part("pairs").replaceChildren(...found.pairs.map(again));
    count(found.round);
  }

  function count(round) {
    const left = part("pairs").children.length;
    card.hidden = left === 0;
    part("title").textContent = `Round ${round} contradicts ${plural(left, "answer")}`;
    card.dataset.round = round;
  }

  function again(pair) {
    const began = performance.now();
    const image = (side) =>
      h("figure", {}, h("img", { src: pair[side], alt: `${pair.prompt}, ${side}`, loading: "lazy" }));
    const own = h(
      "article",
      { class: "sail-self", "data-testid": "doubted-pair", "data-pair": pair.id },
      h("p", {}, pair.prompt),
      h("div", { class: "sail-two" }, image("left"), image("right")),
      h(
        "div",
        { class: "sail-decide", role: "group", "aria-label": "Which is better?" },
        ANSWERS.map(([value, title]) => {
          const button = h("button", { type: "button", "data-value": value }, title);
          const answer = {
            uuid: crypto.randomUUID(),
            pair: pair.id,
            value,
          };
          button.addEventListener("click", () =>
            act(button, async () => {
              const elapsed_ms = Math.round(Math.min(performance.now() - began, 86400000));
              const kept = await ask(`${base}/labels`, { answers: [{ ...answer, elapsed_ms }] });
              if (kept.refused[answer.uuid]) throw new Refused(kept.refused[answer.uuid]);
              own.remove();
              count(card.dataset.round);
            }),
          );
          return button;
        }),
      ),
    );
    return own;
  }

  return load;
}
