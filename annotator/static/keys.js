// Which key a person pressed, and whether they meant the page by it. Knows no pair and sends nothing.

import { keep, kept } from "/ui/core.js";

/** The keys of answers, in Label and Compare alike. */
export const ANSWER_KEYS = {
  1: "left",
  ArrowLeft: "left",
  2: "right",
  ArrowRight: "right",
  0: "tie",
  ArrowDown: "tie",
  s: "skip",
  z: "undo",
};
export const ANSWER_WORDS = { left: "left", right: "right", tie: "tie", both_bad: "both bad", skip: "skipped" };

const FIELDS = "input, textarea, select, [contenteditable]";

/** So long after it came nobody has looked at a pair: what is pressed was meant for the one before. */
export const GUARD_MS = 250;
export const FLIPPED = "Let go of Space first, so that left is left.";
export const ZOOMED_IN = "Zoomed in: choose with a key or a button. Esc or a double click shows the whole.";

/** Whether what a hint asked for was done. */
export const isFollowed = (hint, look) => (hint === FLIPPED && !look.flipped) || (hint === ZOOMED_IN && look.scale === 1);
export const TOO_FAST = "Too fast: this pair has just come. Look, then press again.";

const KEPT = "sail.keys";
let single = kept(KEPT) !== "off";

/** Speech is typed letter by letter, and a hand that trembles presses what it did not mean: letters, digits and signs
 * are keys only for who wants them. A box in `root` says so. */
export function offerKeys(root) {
  const box = root.querySelector("[data-keys]");
  function show() {
    box.checked = single;
    document.documentElement.toggleAttribute("data-keyless", !single);
  }
  box.addEventListener("change", () => {
    single = box.checked;
    keep(KEPT, single ? null : "off");
    document.dispatchEvent(new Event(KEPT));
  });
  document.addEventListener(KEPT, show);
  show();
}

/** What is printed on the key; "" where that is a letter, digit or sign, and they are no keys. */
export function keyName(event) {
  const name = printed(event);
  return single || event.ctrlKey || event.metaKey || !/^\S$/u.test(name) ? name : "";
}

/** Other alphabets have no S, and where digits need Shift the key is meant without. */
function printed({ key, code = "", shiftKey }) {
  const letter = /^Key([A-Z])$/.exec(code)?.[1];
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(code)?.[1];
  // Latin keyboards place their letters as they like, and signs where others have letters.
  if (letter && key.length === 1 && !/^[\x20-\x7e]$/.test(key)) return letter.toLowerCase();
  if (digit && !shiftKey && key.length === 1 && !/^[a-z\d\-=?]$/i.test(key)) return digit;
  return key.length === 1 ? key.toLowerCase() : key;
}

/** The key's name; "" where it repeats, belongs to a field, a dialog, the browser or a hidden tab. */
export function meant(event) {
  const { ctrlKey, metaKey, altKey, shiftKey } = event;
  const key = keyName(event);
  const undoes = key === "z" && (ctrlKey || metaKey) && !shiftKey && !altKey;
  if (event.repeat || event.isComposing || document.hidden) return "";
  if (!undoes && (ctrlKey || metaKey || altKey)) return "";
  // A dialog has the keys also where a click in it took the focus away.
  if (event.target.closest?.(FIELDS) || document.querySelector("dialog[open]")) return "";
  // A long prompt scrolls by them, and who is in a row of tabs means the tabs.
  if (key.startsWith("Arrow") && event.target.closest?.('.sail-prompt, [role="tab"]')) return "";
  return key;
}

/** A button that was pressed by a pointer does not keep the focus: its ring looks like a choice already made, and
 * Space, which flips or scrolls, would press it again. */
export function leaveToKeys(root, pressed = "button") {
  // Captured: what the click does may replace what was clicked, or open a dialog, which gives the focus back.
  const leave = ({ target, detail }) =>
    detail > 0 && target.closest(pressed) && !target.closest("dialog") && document.activeElement?.blur();
  root.addEventListener("click", leave, true);
}

const TO_TAB = { ArrowLeft: (at) => at - 1, ArrowRight: (at) => at + 1, Home: () => 0, End: () => -1 };

/** By arrow key one goes from tab to tab and round again, and each opens. */
export function goByArrows() {
  document.addEventListener("keydown", (event) => {
    const { target, key, ctrlKey, metaKey, altKey, shiftKey } = event;
    const row = target.closest?.('[role="tab"]')?.closest('[role="tablist"]');
    if (!row || !TO_TAB[key] || ctrlKey || metaKey || altKey || shiftKey) return;
    event.preventDefault();
    const tabs = [...row.querySelectorAll('[role="tab"]')];
    const next = tabs.at(TO_TAB[key](tabs.indexOf(target)) % tabs.length);
    next.click();
    next.focus();
  });
}

/** Calls `choose` when something else is chosen. By a pointer that is all, and keys are the page's again; who chooses
 * by key is still choosing, and the next arrow would be an answer. */
export function onChoice(select, choose) {
  let byKey = false;
  select.addEventListener("pointerdown", () => (byKey = false));
  select.addEventListener("keydown", ({ key }) => (byKey = key !== "Enter"));
  select.addEventListener("change", async () => {
    await choose();
    if (!byKey) select.blur();
  });
}
