// One or two images as large as the window allows, to be zoomed and flipped together. Knows addresses, not what is
// chosen between them.

import { lookCloser } from "/ui/closer.js";
import { FLIPPED, keyName } from "/ui/keys.js";
import { Look } from "/ui/look.js";
import { h, put } from "/ui/page.js";

let dialog = null;

function made() {
  const frames = [0, 1].map(() => h("div", { class: "sail-image" }));
  const captions = [0, 1].map(() => h("figcaption"));
  const button = (key, words, attributes, more) =>
    h(
      "button",
      { type: "button", class: "sail-answer", ...attributes },
      h("kbd", { "aria-hidden": "true" }, key),
      h("span", {}, words, more && h("span", { "data-more": true }, more)),
    );
  const tool = (name, key, words, more) => button(key, words, { "data-tool": name }, more);
  const presses = ({ key, words, more, ...attributes }) =>
    button(key.toUpperCase(), words, { ...attributes, onclick: () => press(key) }, more);
  const moves = [presses({ key: "k", words: "Earlier" }), presses({ key: "j", words: "Next" })];
  const title = h("h3", { tabindex: "-1", autofocus: true });
  const count = h("span", { class: "sail-dim" });
  const state = h("p", { class: "sail-dim", role: "status" });
  const actions = h("div", { class: "sail-answers", role: "group", "aria-label": "Decision" });
  const own = h(
    "dialog",
    // What is clicked in it leaves the focus in it, and keys with it.
    { class: "sail-large", "data-testid": "enlarged", "aria-label": "Enlarged", tabindex: "-1" },
    h(
      "div",
      { class: "sail-row" },
      h("div", { class: "sail-row sail-grow", "aria-live": "polite" }, title, count),
      h("span", { class: "sail-zoom", "data-tool": "scale" }),
      h("form", { method: "dialog" }, h("button", { class: "sail-quiet" }, "Close")),
    ),
    h(
      "div",
      { class: "sail-pair" },
      frames.map((frame, index) => h("figure", {}, frame, captions[index])),
    ),
    state,
    actions,
    h(
      "div",
      { class: "sail-answers sail-tools" },
      moves[0],
      tool("flip", "Space", "Swap"),
      tool("zoom", "+", "Zoom"),
      tool("whole", "Esc", "Whole", " image"),
      moves[1],
    ),
  );
  const look = new Look(own.querySelector(".sail-pair"), { changed: () => closer.draw(), refused: () => {} });
  const closer = lookCloser(own, look, { open: true, pair: true });

  /** Whether the key is one of those that decide or move. */
  function press(key) {
    if (look.flipped) state.textContent = FLIPPED;
    return !look.flipped && Boolean(dialog.pressed?.(key));
  }

  own.addEventListener("keydown", (event) => {
    const { ctrlKey, metaKey, altKey, repeat } = event;
    // Esc closes it; while it is zoomed in it shows the whole first.
    if (event.key === "Escape" && look.scale === 1) return;
    const key = ctrlKey || metaKey || altKey || repeat ? "" : keyName(event);
    if (!closer.hears(event, key) && press(key)) event.preventDefault();
  });
  own.addEventListener("close", () => look.fresh());
  own.addEventListener("click", ({ target, detail }) => {
    // Beside it.
    if (target === own && detail) own.close();
    // Space swaps, and does not press once more what a pointer pressed.
    else if (detail && target.closest("button")) own.focus();
  });
  document.querySelector(".sail-bar").append(own);
  return { own, look, title, count, frames, captions, state, actions, moves, presses, shows: "" };
}

/** `images` are one or two of `{ src, alt, words, mark }`; `words` say under an image what it is, `mark` whose choice it
 * is: the model's or a person's. `state` is said under both. `pressed` is called with other keys, and by the buttons that
 * stand for `actions`, `{ key, words, more }` and what else they have; it returns whether it took them. `count` says which one
 * of how many it is. */
export function enlarge(title, images, { state = "", count = "", actions = [], pressed = null } = {}) {
  dialog ??= made();
  dialog.pressed = pressed;
  dialog.title.textContent = title;
  dialog.count.textContent = count;
  dialog.state.textContent = state;
  put(dialog.actions, actions, () => actions.map(dialog.presses));
  for (const one of [dialog.state, dialog.actions, ...dialog.moves]) one.hidden = !pressed;
  const shows = images.map(({ src }) => src).join(" ");
  // What is looked at stays zoomed while it is decided.
  const others = shows !== dialog.shows || !dialog.own.open;
  dialog.shows = shows;
  if (others) {
    dialog.look.fresh();
    dialog.title.scrollTop = 0;
  }
  dialog.frames.forEach((frame, index) => {
    const one = images[index];
    frame.parentElement.hidden = !one;
    frame.parentElement.dataset.mark = one?.mark ?? "";
    dialog.captions[index].textContent = one?.words ?? "";
    if (others) frame.replaceChildren(...(one ? [h("img", { src: one.src, alt: one.alt, draggable: "false" })] : []));
  });
  dialog.own.querySelector('[data-tool="flip"]').hidden = images.length < 2;
  // What was pressed by a pointer would have the focus again when it closes, and Space would open it once more.
  if (!document.activeElement?.matches(":focus-visible")) document.activeElement?.blur();
  if (!dialog.own.open) dialog.own.showModal();
}

export const closeEnlarged = () => dialog?.own.close();
export const isEnlarged = () => Boolean(dialog?.own.open);

/** A small button that enlarges two images of a pair. */
export const enlargeButton = (pair, attributes = {}) =>
  h(
    "button",
    {
      type: "button",
      class: "sail-enlarge",
      title: "Enlarge",
      "aria-label": `Enlarge: ${pair.prompt}`,
      "data-testid": "enlarge",
      onclick: () => enlargePair(pair),
      ...attributes,
    },
    "⤢",
  );

/** `words` say of a side what it is, `mark` whose choice. */
export const enlargePair = (pair, { words = () => "", mark = () => "", ...more } = {}) =>
  enlarge(
    pair.prompt,
    ["left", "right"].map((side) => ({ src: pair[side], alt: `${pair.prompt}, ${side}`, words: words(side), mark: mark(side) })),
    more,
  );
