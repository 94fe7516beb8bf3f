// The tools of looking closer, in Label and Compare alike: flip, zoom, whole and larger, by button and by key. Knows a
// Look and a Screen; knows no answer.

import { keep, kept } from "/ui/core.js";
import { markShown } from "/ui/page.js";

/** The tab that is open already has nothing to be pressed for. */
const PRESSED_BY_SPACE = 'button:not([role="tab"][aria-selected="true"]), a, summary';
const STEP = 1.5;
const KEYS = { "+": "zoom", "=": "zoom", "-": "out", Escape: "whole", e: "larger" };
const LARGER = "sail.larger";

/** The tools of `root` by their `data-tool`. `hears` takes a key that belongs to them, `draw` shows how things stand. */
export function lookCloser(root, look, screen) {
  const tool = (name) => root.querySelector(`[data-tool="${name}"]`);
  const flip = (yes) => look.flip(yes && screen.open === true);
  const DO = {
    zoom: () => screen.open === true && look.closer(STEP),
    out: () => look.closer(1 / STEP),
    whole: () => look.whole(),
    larger: () => setLarger(!pair.classList.contains("sail-larger")),
  };
  const pair = root.querySelector(".sail-pair");

  /** Both as large as the window allows, from pair to pair and after a reload. */
  function setLarger(yes) {
    keep(LARGER, yes ? "yes" : null);
    document.dispatchEvent(new CustomEvent(LARGER, { detail: yes }));
  }

  function showLarger(yes) {
    pair.classList.toggle("sail-larger", yes);
    tool("larger").ariaPressed = String(yes);
  }

  function draw() {
    tool("whole").disabled = look.scale === 1;
    tool("flip").ariaPressed = String(look.flipped);
    tool("scale").textContent = look.scale > 1 ? `${look.scale.toFixed(1)} ×` : "";
  }

  /** Whether the key was one of these. `key` is its name where the page is meant, else empty. */
  function hears(event, key) {
    if (event.key === " ") {
      // Held, Space would scroll the page.
      if (look.flipped) event.preventDefault();
      // Who goes from button to button with Tab presses them with Space.
      if (!key || !screen.pair || event.target.closest?.(PRESSED_BY_SPACE)) return true;
      event.preventDefault();
      flip(true);
      return true;
    }
    if (!KEYS[key] || !screen.pair || !tool(KEYS[key] === "out" ? "zoom" : KEYS[key])) return false;
    // It may be meant for something else.
    if (KEYS[key] === "whole" && look.scale === 1) return false;
    event.preventDefault();
    DO[KEYS[key]]();
    return true;
  }

  for (const name of ["zoom", "whole", "larger"]) tool(name)?.addEventListener("click", () => DO[name]());
  if (tool("larger")) {
    showLarger(kept(LARGER) === "yes");
    document.addEventListener(LARGER, ({ detail }) => showLarger(detail));
    // The page is as wide as they are while they are on it, and on no other tab.
    markShown(pair);
  }
  const button = tool("flip");
  button.addEventListener("pointerdown", (event) => {
    button.setPointerCapture(event.pointerId);
    flip(true);
  });
  button.addEventListener("keydown", (event) => event.key === " " && !event.repeat && flip(true));
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  for (const end of ["pointerup", "pointercancel", "lostpointercapture", "blur"])
    button.addEventListener(end, () => flip(false));
  document.addEventListener("keyup", (event) => event.key === " " && flip(false));
  document.addEventListener("visibilitychange", () => flip(false));
  addEventListener("blur", () => flip(false));

  return { draw, hears };
}
