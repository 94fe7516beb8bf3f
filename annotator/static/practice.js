// Three practice pairs, drawn here: nothing of them is stored, and nobody has to wait for an image.

import { ANSWER_KEYS, FLIPPED, keyName } from "/ui/keys.js";
import { svg } from "/ui/page.js";

const sun = () => [
  circle(50, 50, 22, "#f5b301"),
  ...Array.from({ length: 8 }, (_, ray) =>
    svg("rect", { x: 47, y: 8, width: 6, height: 14, rx: 3, fill: "#f5b301", transform: `rotate(${45 * ray} 50 50)` }),
  ),
];
const moon = () => [circle(50, 50, 26, "#94a3b8"), circle(60, 43, 22, "#dbeafe")];
const leaf = (turn) => [
  svg("path", { d: "M50 85 C10 60 20 20 50 12 C80 20 90 60 50 85Z", fill: "#3f9d56", transform: `rotate(${turn} 50 50)` }),
];
const house = (door) => [
  svg("path", { d: "M15 50 50 18 85 50Z", fill: "#c2563c" }),
  svg("rect", { x: 24, y: 50, width: 52, height: 34, fill: "#e8d5b5" }),
  door && svg("rect", { x: 44, y: 62, width: 12, height: 22, fill: "#6b4a2f" }),
  svg("rect", { x: 30, y: 57, width: 9, height: 9, fill: "#7fb2d9" }),
];

const PAIRS = [
  {
    prompt: "a bright sun",
    images: [sun, moon],
    says: "Which is better for these words? Press 1 for left or 2 for right, or touch the image.",
    takes: { left: "That is all it takes.", right: "It is your taste that counts. That is all it takes." },
  },
  {
    prompt: "a green leaf",
    images: [() => leaf(-14), () => leaf(14)],
    says: "Equally good? Press 0. Both bad? Press 9. Can't say? Press S.",
    takes: { tie: "Honest: nothing there should change.", both_bad: "Kept as bad.", skip: "Skipped." },
  },
  {
    prompt: "a house with a door",
    images: [() => house(true), () => house(false)],
    says: "Hold Space, or the button, to swap the two in place: what differs jumps. Then choose.",
    takes: { left: "Well seen.", right: "Look for the door." },
  },
];
// Here nothing is kept, so nothing is taken back.
const { z: undo, ...KEYS } = { ...ANSWER_KEYS, 9: "both_bad" };

/** Returns a function that opens it. `done` is called when it is closed. */
export function mountPractice(dialog, { done }) {
  const part = (name) => dialog.querySelector(`[data-part="${name}"]`);
  let at = 0;
  let flipped = false;

  function draw() {
    const pair = PAIRS[at];
    const last = !pair;
    part("pair").hidden = part("answers").hidden = last;
    part("title").textContent = last ? "That is all" : `Practice ${at + 1} of ${PAIRS.length}: ${pair.prompt}`;
    part("says").textContent = last
      ? "Z takes an answer back, T says why, ? shows every key. Nothing of this was kept."
      : pair.says;
    part("close").textContent = last ? "Start" : "Skip practice";
    // To leave is not what the dialog is for.
    part("close").className = last ? "sail-primary" : "sail-quiet";
    if (last) return part("close").focus();
    const images = pair.images.map((image) => svg("svg", { viewBox: "0 0 100 100", "aria-hidden": "true" }, ...image().filter(Boolean)));
    if (flipped) images.reverse();
    part("pair").classList.toggle("sail-flipped", flipped);
    ["left", "right"].forEach((side, index) => part(side).replaceChildren(images[index]));
  }

  function give(value) {
    const pair = PAIRS[at];
    if (!pair) return;
    if (flipped) return void (part("said").textContent = FLIPPED);
    const said = pair.takes[value];
    part("said").textContent = said ?? "";
    // What the pair is about is shown by doing it.
    if (!said || (value === "right" && at === 2)) {
      part("said").textContent = said ?? pair.says;
      return;
    }
    at += 1;
    draw();
  }

  function flip(yes) {
    if (yes === flipped || !PAIRS[at]) return;
    flipped = yes;
    draw();
  }

  dialog.addEventListener("click", ({ target }) => {
    const value = target.closest("[data-practice]")?.dataset.practice;
    if (value) give(value);
    if (target.closest('[data-part="close"]')) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const isPressed = event.target.closest("button:not([data-part='flip'])")?.matches(":focus-visible");
    if (event.key === " " && !isPressed) {
      event.preventDefault();
      return flip(true);
    }
    const value = KEYS[keyName(event)];
    if (!value || !PAIRS[at]) return;
    event.preventDefault();
    give(value);
  });
  dialog.addEventListener("keyup", (event) => {
    if (event.key !== " " || !flipped) return;
    event.preventDefault();
    flip(false);
  });
  part("flip").addEventListener("pointerdown", (event) => {
    part("flip").setPointerCapture(event.pointerId);
    flip(true);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
    part("flip").addEventListener(end, () => flip(false));
  addEventListener("blur", () => flip(false));
  dialog.addEventListener("close", done);

  return () => {
    if (dialog.open) return;
    [at, flipped] = [0, false];
    part("said").textContent = "";
    draw();
    dialog.showModal();
    part("box").focus();
  };
}

const circle = (cx, cy, r, fill) => svg("circle", { cx, cy, r, fill });
