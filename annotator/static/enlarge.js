// One or two images as large as the window allows, to be zoomed and flipped together. Knows addresses, not what is
// chosen between them.

import { lookCloser } from "/ui/closer.js";
import { FLIPPED, keyName } from "/ui/keys.js";
import { Look } from "/ui/look.js";
import { h } from "/ui/page.js";

let dialog = null;

function made() {
  const frames = [0, 1].map(() => h("div", { class: "sail-image" }));
  const captions = [0, 1].map(() => h("figcaption"));
  const tool = (name, key, words) =>
    h("button", { type: "button", class: "sail-answer", "data-tool": name }, h("kbd", { "aria-hidden": "true" }, key), ` ${words}`);
  const title = h("h3", { tabindex: "-1", autofocus: true });
  const state = h("p", { class: "sail-dim", role: "status" });
  const own = h(
    "dialog",
    // What is clicked in it leaves the focus in it, and keys with it.
    { class: "sail-large", "data-testid": "enlarged", "aria-label": "Enlarged", tabindex: "-1" },
    title,
    h("div", { class: "sail-pair" }, frames),
    h("div", { class: "sail-captions" }, captions),
    h(
      "div",
      { class: "sail-answers sail-tools" },
      tool("flip", "Space", "Flip"),
      tool("zoom", "+", "Zoom"),
      tool("whole", "Esc", "Whole"),
      h("span", { class: "sail-zoom", "data-tool": "scale" }),
    ),
    state,
    h("form", { method: "dialog" }, h("button", { class: "sail-quiet" }, "Close")),
  );
  const look = new Look(own.querySelector(".sail-pair"), { changed: () => closer.draw(), refused: () => {} });
  const closer = lookCloser(own, look, { open: true, pair: true });
  own.addEventListener("keydown", (event) => {
    const { ctrlKey, metaKey, altKey, repeat } = event;
    // Esc closes it; while it is zoomed in it shows the whole first.
    if (event.key === "Escape" && look.scale === 1) return;
    const key = ctrlKey || metaKey || altKey || repeat ? "" : keyName(event);
    if (closer.hears(event, key)) return;
    if (look.flipped) state.textContent = FLIPPED;
    else if (dialog.pressed?.(key)) event.preventDefault();
  });
  own.addEventListener("close", () => look.fresh());
  // Beside it.
  own.addEventListener("click", ({ target, detail }) => target === own && detail && own.close());
  document.querySelector(".sail-bar").append(own);
  return { own, look, title, frames, captions, state };
}

/** `images` are one or two of `{ src, alt, words }`; `words` say under an image what it is. `state` is said under both,
 * and `pressed` is called with other keys; it returns whether it took them. */
export function enlarge(title, images, { state = "", pressed = null } = {}) {
  dialog ??= made();
  dialog.pressed = pressed;
  dialog.title.textContent = title;
  dialog.state.textContent = state;
  dialog.state.hidden = !pressed;
  dialog.look.fresh();
  dialog.frames.forEach((frame, index) => {
    const one = images[index];
    frame.hidden = dialog.captions[index].hidden = !one;
    frame.replaceChildren(...(one ? [h("img", { src: one.src, alt: one.alt, draggable: "false" })] : []));
    dialog.captions[index].textContent = one?.words ?? "";
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

/** `words` say of a side what it is. */
export const enlargePair = (pair, { words = () => "", ...more } = {}) =>
  enlarge(
    pair.prompt,
    ["left", "right"].map((side) => ({ src: pair[side], alt: `${pair.prompt}, ${side}`, words: words(side) })),
    more,
  );
