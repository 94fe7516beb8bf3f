// Which key a person pressed, and whether they meant the page by it. Knows no pair and sends nothing.

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

const FIELDS = "input, textarea, select, [contenteditable], dialog[open]";

/** The key's name; "" where it repeats, belongs to a field, a dialog, the browser or a hidden tab. */
export function meant(event) {
  const { key, ctrlKey, metaKey, altKey, shiftKey } = event;
  const undoes = key === "z" && (ctrlKey || metaKey) && !shiftKey && !altKey;
  if (event.repeat || event.isComposing || document.hidden) return "";
  if (!undoes && (ctrlKey || metaKey || altKey)) return "";
  if (event.target.closest?.(FIELDS)) return "";
  // A long prompt scrolls by them.
  if (key.startsWith("Arrow") && event.target.closest?.(".sail-prompt")) return "";
  return key.length === 1 ? key.toLowerCase() : key;
}
