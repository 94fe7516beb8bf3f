// Label: shows a pair, takes answers by key and button, says what happened. Labels never wait for the server.
// What is said is in answers.js, which pairs come in pairs.js, how one looks closer in look.js.

import { Answers } from "/ui/answers.js";
import { beforeTraining, isShown, onStatus, Refused, trouble } from "/ui/core.js";
import { Images } from "/ui/images.js";
import { Look } from "/ui/look.js";
import { mountNotes } from "/ui/notes.js";
import { mountOrder } from "/ui/order.js";
import { Pairs } from "/ui/pairs.js";
import { Progress } from "/ui/progress.js";
import { Reasons } from "/ui/reasons.js";

const KEYS = {
  1: "left",
  ArrowLeft: "left",
  2: "right",
  ArrowRight: "right",
  0: "tie",
  ArrowDown: "tie",
  9: "both_bad",
  s: "skip",
  z: "undo",
  t: "reasons",
  "+": "zoom",
  "=": "zoom",
  "-": "zoom_out",
  Escape: "whole",
  p: "practise",
  "?": "help",
};
const WORDS = { left: "left", right: "right", tie: "tie", both_bad: "both bad", skip: "skipped" };
const GUARD_MS = 250;
const AHEAD = 3;
const TRY_AGAIN_MS = 3000;
const SLOWEST_MS = 86_400_000;

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const sides = { left: find("image-left"), right: find("image-right") };
  const images = new Images();
  const dialogs = [...root.querySelectorAll("dialog")];
  let shown = null; // the pair on the screen
  let open = false; // both its images are there, so it can be answered
  let shownAt = 0;
  let takesAt = 0; // from when on it takes an answer
  let loaded = false;

  const answers = new Answers({ changed: () => progress.draw(), heard: (answer) => progress.hear(answer) });
  const pairs = new Pairs(answers, {
    fetched,
    answeredElsewhere() {
      say("Answered in another tab.");
      show();
    },
  });
  const progress = new Progress(find, answers, pairs);
  const look = new Look(find("pair"), {
    changed: drawTools,
    refused: () => hint("Zoomed in: choose with a key or a button. Esc or a double click shows the whole."),
  });
  const reasons = new Reasons(find("reasons"), (label, chosen, text) => {
    answers.explain(label, chosen, text);
    say("Reasons kept.");
  });
  const notes = mountNotes(root, answers);
  const order = mountOrder(root, { reordered: () => pairs.renewBehindFirst() });

  // The pair on the screen

  function fetched(answer, lostFirst) {
    if (!loaded) answers.remember(answer.past);
    loaded = true;
    if (lostFirst) say("Somebody else took that pair while you were away.");
    progress.hear(answer);
    order.hear(answer.order);
    notes.hear(answer.name);
    show();
  }

  async function show() {
    const pair = pairs.first;
    root.querySelector(".sail-labelling").hidden = !pair;
    progress.draw();
    if (pair !== shown) {
      shown = pair;
      open = false;
      look.fresh();
      root.dataset.pair = pair?.id ?? "";
      for (const side of Object.values(sides)) side.classList.add("sail-waiting");
      if (pair) {
        find("prompt").textContent = pair.prompt;
        await put(pair);
      }
    }
    images.preload(
      pairs.queue,
      AHEAD + 1,
      answers.past.slice(-AHEAD).map((one) => one.pair),
    );
  }

  async function put(pair) {
    try {
      const [left, right] = await images.both(pair);
      if (shown !== pair) return;
      sides.left.replaceChildren(left);
      sides.right.replaceChildren(right);
      for (const side of Object.values(sides)) side.classList.remove("sail-waiting");
      open = true;
      begin(pair);
      trouble("", "image");
    } catch {
      if (shown !== pair) return;
      for (const side of Object.values(sides)) side.replaceChildren();
      open = "to skip"; // Nobody chooses between images they cannot see.
      begin(pair);
      trouble("An image of this pair could not be loaded. It is tried again; or skip the pair with S.", "image");
      setTimeout(() => shown === pair && open === "to skip" && put(pair), TRY_AGAIN_MS);
    }
  }

  function begin(pair) {
    shownAt = performance.now();
    // Nobody has looked at a new pair yet; one that was taken back they know.
    takesAt = pair.undone ? 0 : shownAt + GUARD_MS;
    if (open === true) root.dataset.ready = pair.id;
  }

  // What a key or a button does

  const DO = {
    undo,
    reasons: explain,
    help: () => find("help").showModal(),
    practise: notes.practise,
    zoom: () => open === true && look.closer(),
    zoom_out: () => look.closer(1 / 1.5),
    whole: () => look.whole(),
  };

  const act = (value) => (DO[value] ?? (() => answer(value)))();

  function answer(value) {
    if (!shown) return;
    const why = whyNot(value);
    if (why) return hint(why);
    const elapsed = Math.min(Math.round(performance.now() - shownAt), SLOWEST_MS);
    answers.label(shown, value, elapsed);
    notes.labelled();
    say(`Last answer: ${WORDS[value]}.`);
    flash(value);
    pairs.answer(shown);
    show();
  }

  /** Why an answer does not count, in a sentence: no press is dropped without a word. */
  function whyNot(value) {
    if (!open) return "The images are still loading. Answer when you see them.";
    if (open === "to skip" && value !== "skip") return "This pair cannot be seen. Skip it with S.";
    if (look.flipped) return "Let go of Space first, so that left is left.";
    if (performance.now() < takesAt) return "Too fast: this pair has just come. Look, then press again.";
    return "";
  }

  function undo() {
    const last = answers.undo();
    if (!last) return hint("Nothing to undo.");
    pairs.bringBack(last.pair);
    say(`Took back: ${WORDS[last.value]}.`);
    show();
  }

  function explain() {
    const last = answers.past.at(-1);
    if (!last) return hint("Nothing to give reasons for: answer first.");
    reasons.open(last, WORDS[last.value]);
  }

  // What is said

  function say(text, kind = "") {
    const place = find("announcement");
    place.dataset.kind = kind;
    place.textContent = text;
  }

  function hint(text) {
    say(text, "hint");
    find("announcement").animate([{ transform: "translateX(-5px)" }, { transform: "translateX(5px)" }, {}], 160);
  }

  function flash(value) {
    const button = root.querySelector(`.sail-answer[data-answer="${value}"]`);
    button?.animate([{ transform: "scale(.96)" }, { transform: "none" }], 120);
  }

  function drawTools() {
    find("answer-whole").disabled = look.scale === 1;
    find("answer-flip").ariaPressed = String(look.flipped);
    find("zoomed").textContent = look.scale > 1 ? `${look.scale.toFixed(1)} ×` : "";
  }

  // Events

  const isBusy = () => document.hidden || !isShown(root) || dialogs.some((dialog) => dialog.open);
  const isField = (target) => target.closest?.("input, textarea, select, [contenteditable], dialog[open]");

  root.addEventListener("click", (event) => {
    const button = event.target.closest("[data-answer]");
    if (!button) return;
    act(button.dataset.answer);
    // A ring that stays looks like a choice already made, and Space would press the button again.
    if (event.detail) document.activeElement?.blur();
  });

  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.isComposing || isBusy() || isField(event.target)) {
      // Held, Space would scroll the page.
      if (event.key === " " && look.flipped) event.preventDefault();
      return;
    }
    const undoes = event.key === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey;
    if (!undoes && (event.ctrlKey || event.metaKey || event.altKey)) return;
    if (event.key === " ") {
      // Who goes from button to button with Tab presses them with Space.
      if (!shown || event.target.closest?.("button, a, summary")) return;
      event.preventDefault();
      return look.flip(open === true);
    }
    const value = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!value || (!shown && !["undo", "reasons", "help", "practise"].includes(value))) return;
    event.preventDefault();
    act(value);
  });

  const flip = find("answer-flip");
  flip.addEventListener("pointerdown", (event) => {
    flip.setPointerCapture(event.pointerId);
    look.flip(open === true);
  });
  flip.addEventListener("keydown", (event) => event.key === " " && !event.repeat && look.flip(open === true));
  flip.addEventListener("contextmenu", (event) => event.preventDefault());
  for (const end of ["pointerup", "pointercancel", "lostpointercapture", "blur"])
    flip.addEventListener(end, () => look.flip(false));
  document.addEventListener("keyup", (event) => event.key === " " && look.flip(false));
  addEventListener("blur", () => look.flip(false));

  for (const dialog of dialogs) dialog.addEventListener("close", () => (shownAt = performance.now()));
  document.addEventListener("visibilitychange", () => {
    look.flip(false);
    if (!document.hidden) {
      shownAt = performance.now(); // Time away is not time spent choosing.
      pairs.fetch();
      answers.send();
    }
  });
  addEventListener("pagehide", () => {
    answers.leave();
    pairs.leave();
  });
  addEventListener("pageshow", (event) => event.persisted && pairs.fetch());
  addEventListener("online", () => answers.send());
  beforeTraining(async () => {
    await answers.send();
    if (answers.waiting.length)
      throw new Refused(
        "Some labels are not with the app yet. They are sent again by themselves; train then.",
      );
  });

  answers.send();
  onStatus((status) => {
    progress.follow(status);
    if (status.labels.drawn > pairs.drawn && pairs.few) pairs.fetch();
  });
  pairs.fetch().then(() => (root.dataset.mounted = "yes"));
}
