// In which order pairs come, for everybody in the project: chosen here, said in words. Knows a select.

import { ask, base, Refused, trouble } from "/ui/core.js";
import { onChoice } from "/ui/keys.js";
import { plural } from "/ui/words.js";

const WHAT = {
  random: "at random",
  diverse: "prompts unlike those answered so far come first; a fifth comes at random",
  uncertain: "pairs the model is least sure of come first; a fifth comes at random",
  disagreement: "pairs that others answered and that are disputed come first; a fifth comes at random",
};

/** `reordered` is called when another order was chosen here. */
export function mountOrder(root, { reordered }) {
  const select = root.querySelector('[data-testid="order"]');
  const note = root.querySelector('[data-testid="order-note"]');

  let heard = select.value;

  function hear({ order, judged }) {
    heard = order;
    if (document.activeElement !== select) select.value = order;
    select.title = WHAT[order];
    note.textContent =
      order !== "uncertain"
        ? ""
        : judged
          ? `The model has looked at ${plural(judged, "open pair")}; the rest come at random.`
          : "The model has not looked at open pairs yet: the next training does. Until then, at random.";
  }

  onChoice(select, async () => {
    try {
      hear(await ask(`${base}/order`, { order: select.value }));
      await reordered();
      trouble("", "order");
    } catch (error) {
      select.value = heard;
      trouble(
        error instanceof Refused
          ? error.message
          : "The app does not answer, so the order is as it was. Choose again in a moment.",
        "order",
      );
    }
  });

  return { hear };
}
