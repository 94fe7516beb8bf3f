// Compare: two rounds on the same noise, blindly. Answers never wait for the server, as in Label; the figure
// is not on the page before all planned answers are given, or somebody asks for it. Which two is in choice.js, what
// came of them in result.js, how a pair is shown and answered in desk.js.

import { Answers } from "/ui/answers.js";
import { Choice } from "/ui/choice.js";
import {
  act,
  ask,
  askAnew,
  base,
  beEager,
  endedEarly,
  isActive,
  onStatus,
  openTab,
  patience,
  Refused,
  trouble,
} from "/ui/core.js";
import { AHEAD, Desk } from "/ui/desk.js";
import { ANSWER_KEYS, ANSWER_WORDS } from "/ui/keys.js";
import { actionButton as button, drawUnsent, h, isShown, putParts, readOut, text, title } from "/ui/page.js";
import { result, whereNext } from "/ui/result.js";
import { keepUp, runBlock, runButton } from "/ui/runs.js";
import { plural, roundName, roundTitle } from "/ui/words.js";

const REFILL_BELOW = 6;
const PLANNED = 20;
const MOST_AT_ONCE = 100;

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const [message, early] = [find("compare-message"), find("early-result")];
  const desk = new Desk(root, {
    prefix: "compare-",
    keys: ANSWER_KEYS,
    always: ["undo"],
    act: answer,
    hint: (words) => desk.say(words, "hint"),
  });
  const choice = new Choice(find, {
    changed: forget,
    chosen() {
      show();
      fetchPairs();
    },
  });
  const answers = new Answers({
    kind: "sail.comparisons",
    path: `${base}/comparisons/answers`,
    isMeant: (pair) => choice.match !== null && pair.match === keyOf(choice.match),
    elsewhere,
    name: "A comparison",
    changed: drawProgress,
    sent() {
      answers.tell({ settled: true });
      if (!queue.length) fetchPairs();
    },
  });
  let status = null;
  let found = null; // what the server last said of the match
  let queue = [];
  let answered = 0;
  let fetching = null;
  let drawnSeen = ""; // how far drawing was when pairs were last fetched
  // A list of pairs may have been made before the server heard of the last answers.
  const done = new Set();

  // Pairs

  const keyOf = ({ one, two }) => JSON.stringify([one, two]);

  function forget() {
    found = null;
    [queue, answered, drawnSeen] = [[], 0, ""];
    answers.forget();
    done.clear();
  }

  function fetchPairs() {
    const asked = choice.match;
    if (!asked) return null;
    // After what is on its way, so that the list knows of it.
    fetching ??= answers
      .settled()
      .then(() => ask(`${base}/comparisons/next`, asked, { signal: patience() }))
      .then((answer) => asked === choice.match && takeIn(answer))
      .catch((error) => {
        drawnSeen = "";
        askAnew();
        if (error instanceof Refused) trouble(error.message, "compare");
      })
      .finally(() => {
        fetching = null;
        if (asked !== choice.match) fetchPairs();
      });
    return fetching;
  }

  function takeIn(answer) {
    const own = keyOf(answer);
    for (const pair of answers.unheardPairs) done.add(pair);
    const known = new Set(queue.map((pair) => pair.id));
    const fresh = answer.pairs.filter((pair) => !known.has(pair.id) && !done.has(pair.id));
    queue = [...queue, ...fresh.map((pair) => ({ ...pair, match: own }))];
    // Undo will soon come to what the page does not hold.
    if (!found || answers.fewToUndo)
      answers.remember(answer.past.map((one) => ({ ...one, pair: { ...one.pair, match: own } })));
    found = answer;
    answered = answer.answered + answers.unheard;
    trouble("", "compare");
    show();
  }

  async function show(how) {
    drawMessage();
    drawProgress();
    await desk.show(queue[0] ?? null, how);
    desk.preload(queue.slice(0, AHEAD + 1), answers.past);
  }

  // Answers

  function answer(value) {
    if (value === "undo") return undo();
    const { pair, elapsedMs } = desk.screen;
    if (!pair) return;
    const why = desk.whyNot(value);
    if (why) return desk.say(why, "hint");
    answers.label(pair, value, elapsedMs);
    choice.stay();
    done.add(pair.id);
    queue.shift();
    answered += 1;
    desk.say(`Last answer: ${ANSWER_WORDS[value]}.`);
    show();
    if (queue.length < REFILL_BELOW && answered < found.planned) fetchPairs();
  }

  function undo() {
    const last = answers.undo();
    if (!last) return desk.say("Nothing to undo.");
    done.delete(last.pair.id);
    queue = [last.pair, ...queue.filter((pair) => pair.id !== last.pair.id)];
    answered -= 1;
    // Where another pair of rounds was chosen meanwhile, its list is still on the way.
    if (found) found.result = null;
    desk.say(`Took back: ${ANSWER_WORDS[last.value]}.`);
    show({ known: true });
    if (answers.fewToUndo) fetchPairs();
  }

  function elsewhere({ answered: id, undone, settled }) {
    // The list that is on its way may be from before.
    if (settled) return void Promise.resolve(fetching).then(() => queue.length || fetchPairs());
    if (undone) return void (done.delete(undone) && fetchPairs());
    drawProgress();
    if (!queue.some((pair) => pair.id === id)) return;
    done.add(id);
    queue = queue.filter((pair) => pair.id !== id);
    answered += 1;
    desk.say("Answered in another tab.");
    show();
    if (!queue.length) fetchPairs();
  }

  // What is said

  function drawProgress() {
    drawUnsent(find("compare-unsent"), answers.waiting.length, answers.failures > 0);
    root.querySelector('[data-answer="undo"]').disabled = !answers.past.length;
    find("compare-footer").hidden = !found?.planned;
    if (!found?.planned) return;
    find("compare-progress").textContent = `${answered} of ${found.planned}`;
    Object.assign(find("compare-bar"), { max: found.planned, value: answered });
    find("show-result").hidden = !answered || Boolean(found.result);
  }

  const ownRun = () => status.runs.find((run) => run.id === found?.run);

  function drawMessage() {
    if (!status) return;
    const parts = queue.length ? [] : nothingToShow();
    // Once it is told, nothing is blind, and the last answer is one of many.
    const isTold = !queue.length && Boolean(found?.result);
    find("compare-blind").hidden = find("compare-announcement").hidden = isTold;
    message.hidden = !parts.length;
    beEager(isShown(root) && !queue.length && Boolean(found?.run) && isActive(ownRun() ?? {}), "compare");
    putParts(message, parts);
    if (message.querySelector(".sail-run")) keepUp(message, ownRun(), status);
    const heading = find("compare-heading");
    const words = readOut(parts);
    if (heading.textContent !== words) heading.textContent = words;
  }

  function nothingToShow() {
    if (!status.rounds.length)
      return [
        title("Nothing to compare yet"),
        text("Train a round first. Then its images are set against the base model's here."),
        button("Open Rounds", "compare-rounds", () => openTab("rounds"), true),
      ];
    if (!found) return [];
    const run = ownRun();
    if (run && isActive(run)) return [runBlock(run, "compare")];
    if (found.result) return resultParts();
    if (run && endedEarly(run)) return stopped(run);
    if (!found.planned)
      return [
        title(`${roundTitle(found.one)} against ${roundName(found.two)}`),
        text("Two images of a prompt kept aside, from the same noise: choose the better one."),
        drawMore(PLANNED, true),
      ];
    return [text("Sending the last answers…")];
  }

  const stopped = (run) => [
    title("Drawing comparisons stopped"),
    text(`${run.message} What was changed in Setup since counts only for what is drawn anew.`.trim()),
    runButton(run, "resume", "Resume", "compare-resume", true),
    drawMore(PLANNED),
  ];

  function resultParts() {
    const { more } = found.result;
    const count = more ? Math.min(MOST_AT_ONCE, 5 * Math.ceil(more / 5)) : PLANNED;
    return [
      ...result(found, found.result),
      h(
        "div",
        { class: "sail-row sail-middle" },
        ...whereNext(found, found.result, status.current),
        drawMore(count, Boolean(more)),
        answers.past.length && button("Undo the last answer", "compare-undo-last", undo),
      ),
    ];
  }

  function drawMore(count, primary) {
    const words = `Draw ${plural(count, found.planned ? "more comparison" : "comparison")}`;
    return button(
      words,
      "compare-draw",
      async () => {
        // Whatever round comes meanwhile, this is the match that was asked for.
        choice.stay();
        await ask(`${base}/comparisons/draw`, { ...choice.match, count });
        await fetchPairs();
      },
      primary,
    );
  }

  // Events

  find("show-result").addEventListener("click", (event) =>
    act(event.currentTarget, async () => {
      const known = await answers.afterAll(() => ask(`${base}/comparisons/result`, choice.match, { signal: patience() }));
      // Somebody may be on another tab by now.
      if (!isShown(root)) return;
      early.querySelector('[data-part="result"]').replaceChildren(...result(found, known));
      early.showModal();
    }),
  );
  early.addEventListener("close", () => early.querySelector('[data-part="result"]').replaceChildren());

  answers.send();
  onStatus((now, opened) => {
    status = now;
    root.dataset.mounted = "yes";
    // Nobody waits for pairs of a tab that is not open, and others' images would come later for them.
    if (!isShown(root)) return beEager(false, "compare");
    if (opened) desk.screen.restart();
    choice.draw(now, queue.length > 0);
    const drawn = JSON.stringify(
      now.runs.filter((run) => run.job === "compare").map((run) => [run.id, run.state, run.step]),
    );
    if (choice.match && (!found || (drawn !== drawnSeen && queue.length < REFILL_BELOW))) {
      drawnSeen = drawn;
      fetchPairs();
    }
    drawMessage();
  });
}
