// Label: shows a pair, takes answers by key and button, says what happened. Labels never wait for the server.
// What is said is in answers.js, which pairs come in pairs.js, how a pair is shown and answered in desk.js.

import { Answers } from "/ui/answers.js";
import { ask, base, onStatus, openedTab, poll, trouble } from "/ui/core.js";
import { Desk } from "/ui/desk.js";
import { ANSWER_KEYS, ANSWER_WORDS, offerKeys } from "/ui/keys.js";
import { mountNotes } from "/ui/notes.js";
import { mountOrder } from "/ui/order.js";
import { isShown } from "/ui/page.js";
import { Pairs } from "/ui/pairs.js";
import { Progress } from "/ui/progress.js";
import { Reasons } from "/ui/reasons.js";

const KEYS = {
  ...ANSWER_KEYS,
  9: "both_bad",
  t: "reasons",
  p: "practise",
  "?": "help",
};

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const dialogs = [...root.querySelectorAll("dialog")];
  let loaded = false;

  const answers = new Answers({
    kind: "sail.outbox",
    path: `${base}/labels`,
    elsewhere: (said) => pairs.hear(said),
    name: "A label",
    changed: () => progress.draw(),
    heard: (answer) => progress.hear(answer),
    sent: poll,
  });
  const pairs = new Pairs(answers, {
    fetched,
    failed: () => progress.draw(),
    isAtWork: () => isShown(root),
    heardElsewhere(isAnswered) {
      if (isAnswered) desk.say("Answered in another tab.");
      show();
    },
  });
  const progress = new Progress(find, answers, pairs);
  const desk = new Desk(root, { keys: KEYS, always: ["undo", "reasons", "help", "practise"], act, hint, failed: report });
  const { screen } = desk;
  const reasons = new Reasons(find("reasons"), (label, chosen, text) => {
    answers.explain(label, chosen, text);
    desk.say("Reasons kept.");
  });
  const notes = mountNotes(root, answers);
  const order = mountOrder(root, { reordered: () => pairs.renewBehindFirst() });

  // The pair on the screen

  function fetched(answer, lostFirst) {
    if (!loaded || answers.fewToUndo) answers.remember(answer.past);
    loaded = true;
    if (lostFirst) desk.say("Somebody else took that pair while you were away.");
    progress.hear(answer);
    order.hear(answer.order);
    notes.hear(answer.name);
    show();
  }

  async function show(how) {
    progress.draw();
    await desk.show(pairs.first, how);
    desk.preload(pairs.queue, answers.past);
  }

  /** The server looks whether the file is at fault; then nobody is asked about this pair any more. */
  async function report(pair) {
    const { withdrawn } = await ask(`${base}/pairs/broken`, { pair: pair.id }).catch(() => ({}));
    if (!withdrawn) return;
    pairs.withdraw(pair);
    trouble("", "image");
    desk.say(`That pair was withdrawn. ${withdrawn}`);
    show();
  }

  // What a key or a button does

  const DO = {
    undo,
    reasons: explain,
    help: () => find("help").showModal(),
    practise: notes.practise,
  };

  function act(value) {
    (DO[value] ?? (() => answer(value)))();
  }

  function answer(value) {
    const { pair } = screen;
    if (!pair) return;
    const why = desk.whyNot(value);
    if (why) return hint(why);
    answers.label(pair, value, screen.elapsedMs);
    notes.labelled();
    desk.say(`Last answer: ${ANSWER_WORDS[value]}.`);
    flash(value);
    pairs.answered(pair);
    show();
  }

  function undo() {
    const last = answers.undo();
    if (!last) return hint("Nothing to undo.");
    pairs.bringBack(last);
    desk.say(`Took back: ${ANSWER_WORDS[last.value]}.`);
    show({ known: true });
  }

  function explain() {
    const last = answers.past.at(-1);
    if (!last) return hint("Nothing to give reasons for: answer first.");
    reasons.open(last, ANSWER_WORDS[last.value]);
  }

  // What is said

  function hint(text) {
    desk.say(text, "hint");
    find("announcement").animate([{ transform: "translateX(-5px)" }, { transform: "translateX(5px)" }, {}], 160);
  }

  function flash(value) {
    const button = root.querySelector(`.sail-answer[data-answer="${value}"]`);
    button?.animate([{ transform: "scale(.96)" }, { transform: "none" }], 120);
  }

  // Events

  offerKeys(find("help"));
  for (const dialog of dialogs) dialog.addEventListener("close", () => screen.restart());
  // Whoever is elsewhere on the page keeps no pair from others.
  const fetchShown = () => isShown(root) && pairs.fetch();
  document.addEventListener("visibilitychange", () => document.hidden || fetchShown());
  // After the answers: made before this, they leave first.
  addEventListener("pagehide", () => pairs.leave());
  addEventListener("pageshow", (event) => event.persisted && fetchShown());
  answers.holdTraining();

  answers.send();
  onStatus((status, opened) => {
    progress.follow(status);
    // Time in another tab of the page is not time spent choosing.
    if (opened && isShown(root)) screen.restart();
    if ((opened && pairs.stale) || (status.labels.drawn > pairs.drawn && pairs.few)) fetchShown();
  });
  // The tab that is asked for may not be open yet.
  Promise.resolve(openedTab() === "label" && pairs.fetch()).then(() => (root.dataset.mounted = "yes"));
}
