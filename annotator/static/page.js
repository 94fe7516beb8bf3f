// Parts of a page: made, put in their place, shown or not. Knows no tab and asks the app for nothing.

import { act } from "/ui/core.js";

/** An element. Text goes in as text, never as markup. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/** Pixels across, below which single ones are to be seen. What is larger is mostly shown smaller than it is, and where
 * it is to be pixelated browsers leave out whole rows of it. */
const SMALL = 256;

export const markIfSmall = (image) => image.toggleAttribute("data-small", image.naturalWidth < SMALL);

// Captured: an image's load does not bubble.
document.addEventListener("load", ({ target }) => target.tagName === "IMG" && markIfSmall(target), true);

// Captured as well. Until a frame is drawn a dialog that is closed has the focus, and Space would press its button.
document.addEventListener(
  "close",
  ({ target }) => !target.open && target.contains(document.activeElement) && document.activeElement.blur(),
  true,
);

const shown = new WeakMap();

/** Puts into `place` what `make` makes where `key` is another one than before, so that nothing is replaced under
 * someone's finger; a part that has the focus passes it on to what takes its place. */
export function put(place, key, make) {
  const text = JSON.stringify(key);
  if (shown.get(place) === text) return false;
  shown.set(place, text);
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.testid : null;
  place.replaceChildren(...[make()].flat().filter(Boolean));
  if (focused) place.querySelector(`[data-testid="${focused}"]`)?.focus({ preventScroll: true });
  return true;
}

/** The same for parts that are made already: they are put where they look different. */
export function putParts(place, parts) {
  const own = parts.filter(Boolean);
  return put(
    place,
    own.map((part) => part.outerHTML),
    () => own,
  );
}

/** What is read out of such parts: their heading alone, since what is under it counts on. */
export const readOut = ([first]) => (first?.querySelector("h3") ?? first)?.textContent ?? "";

/** What stands in the place of something that is not there: a heading, and what is said under it. */
export const title = (words) => h("h2", {}, words);
export const text = (words) => h("p", {}, words);

/** A table of two columns: what it is, and how it stands. */
export const factTable = (rows) =>
  h(
    "table",
    { class: "sail-table sail-facts" },
    h(
      "tbody",
      {},
      rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value))),
    ),
  );

/** A button that acts, locked meanwhile. */
export function actionButton(words, id, action, primary = false) {
  const own = h("button", { type: "button", class: primary ? "sail-primary" : "sail-quiet", "data-testid": id }, words);
  own.addEventListener("click", () => act(own, async () => action()));
  return own;
}

/** Says how many answers the server has not taken, unless it is one alone that is on its way: it may come and go with
 * each answer. */
export function drawUnsent(badge, waiting, isFailing) {
  badge.hidden = !(waiting > 1 || (waiting && isFailing));
  badge.textContent = `${waiting} unsent`;
}

const SVG = "http://www.w3.org/2000/svg";
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat());
  return element;
}

export const isShown = (root) => root.isConnected && root.offsetParent !== null;

/** Says in its data whether an element is on the page, for what is wider while it is. */
export function markShown(element) {
  const follow = () => element.toggleAttribute("data-shown", isShown(element));
  // Not while sizes are being looked at, since it changes them.
  new ResizeObserver(() => requestAnimationFrame(follow)).observe(element);
}
