// Compare: two rounds on the same noise, blindly. Answers never wait for the server, as in Label; the figure
// is not on the page before all planned answers are given, or somebody asks for it.

import { Answers } from "/ui/answers.js";
import { lookCloser } from "/ui/closer.js";
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
  project,
  Refused,
  trouble,
} from "/ui/core.js";
import { Images } from "/ui/images.js";
import { ANSWER_KEYS, ANSWER_WORDS, FLIPPED, isFollowed, leaveToKeys, meant, onChoice, ZOOMED_IN } from "/ui/keys.js";
import { Look } from "/ui/look.js";
import { actionButton as button, drawUnsent, h, isShown, putParts, readOut, text, title } from "/ui/page.js";
import { keepUp, runBlock, runButton } from "/ui/runs.js";
import { Screen } from "/ui/screen.js";
import { percent, plural, roundName, roundTitle } from "/ui/words.js";

const AHEAD = 3;
const REFILL_BELOW = 6;
const PLANNED = 20;
const MOST_AT_ONCE = 100;

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const [comparing, message, early] = [find("comparing"), find("compare-message"), find("early-result")];
  const selects = { one: find("compare-one"), two: find("compare-two") };
  const sides = { left: find("compare-image-left"), right: find("compare-image-right") };
  const images = new Images();
  const look = new Look(find("compare-pair"), {
    changed: looked,
    refused: () => say(ZOOMED_IN, "hint"),
  });
  const screen = new Screen(root, { sides, prompt: find("compare-prompt"), images, fresh: () => look.fresh() });
  const closer = lookCloser(root, look, screen);
  const answers = new Answers({
    kind: "sail.comparisons",
    path: `${base}/comparisons/answers`,
    isMeant: (pair) => pair.match === keyOf(match),
    name: "A comparison",
    changed: drawProgress,
    sent() {
      tabs.postMessage({ settled: true });
      if (!queue.length) fetchPairs();
    },
  });
  const tabs = new BroadcastChannel(`sail/${project}/comparisons`);
  let status = null;
  let match = null; // the rounds that are chosen, as the server is asked for them
  let found = null; // what the server last said of the match
  let queue = [];
  let answered = 0;
  let fetching = null;
  let drawnSeen = ""; // how far drawing was when pairs were last fetched
  // A list of pairs may have been made before the server heard of the last answers.
  const done = new Set();
  let chosenHere = false; // or answered, or drawn more for; else the newest round is compared with base

  // Which two

  const keyOf = ({ one, two }) => JSON.stringify([one, two]);
  const current = () => status.current ?? status.rounds.at(-1)?.round ?? null;

  function drawChoice() {
    const rounds = status.rounds.map((one) => one.round).reverse();
    find("match").hidden = !rounds.length;
    const key = JSON.stringify(rounds);
    if (!rounds.length || selects.one.dataset.key === key) return;
    if (!chosenHere && !queue.length && match?.one !== current()) {
      match = { one: current(), two: null };
      forget();
    }
    for (const [side, select] of Object.entries(selects)) {
      select.dataset.key = key;
      select.replaceChildren(
        ...[...rounds, null].map((round) => h("option", { value: round ?? "base" }, roundTitle(round))),
      );
      select.value = match[side] ?? "base";
    }
  }

  function choose(side) {
    const other = side === "one" ? "two" : "one";
    const value = (select) => (select.value === "base" ? null : Number(select.value));
    // Who chooses the same twice means to swap them.
    if (selects[side].value === selects[other].value) selects[other].value = match[side] ?? "base";
    match = { one: value(selects.one), two: value(selects.two) };
    chosenHere = true;
    forget();
    show();
    fetchPairs();
  }

  function forget() {
    found = null;
    [queue, answered, drawnSeen] = [[], 0, ""];
    answers.forget();
    done.clear();
  }

  // Pairs

  function fetchPairs() {
    if (!match) return null;
    const asked = match;
    // After what is on its way, so that the list knows of it.
    fetching ??= answers
      .settled()
      .then(() => ask(`${base}/comparisons/next`, asked, { signal: patience() }))
      .then((answer) => asked === match && takeIn(answer))
      .catch((error) => {
        drawnSeen = "";
        askAnew();
        if (error instanceof Refused) trouble(error.message, "compare");
      })
      .finally(() => {
        fetching = null;
        if (asked !== match) fetchPairs();
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
    const pair = queue[0] ?? null;
    comparing.hidden = !pair;
    drawMessage();
    drawProgress();
    await screen.show(pair, how);
    const again = answers.past.slice(-AHEAD).map((one) => one.pair);
    images.preload(queue.slice(0, AHEAD + 1), AHEAD + 1, again);
  }

  // Answers

  function answer(value) {
    if (value === "undo") return undo();
    const { pair } = screen;
    if (!pair) return;
    const why = look.flipped ? FLIPPED : screen.whyNot(value);
    if (why) return say(why, "hint");
    const label = answers.label(pair, value, screen.elapsedMs);
    tabs.postMessage({ answered: pair.id, label });
    chosenHere = true;
    done.add(pair.id);
    queue.shift();
    answered += 1;
    say(`Last answer: ${ANSWER_WORDS[value]}.`);
    show();
    if (queue.length < REFILL_BELOW && answered < found.planned) fetchPairs();
  }

  function undo() {
    const last = answers.undo();
    if (!last) return say("Nothing to undo.");
    tabs.postMessage({ takenBack: last.uuid });
    done.delete(last.pair.id);
    queue = [last.pair, ...queue.filter((pair) => pair.id !== last.pair.id)];
    answered -= 1;
    // Where another pair of rounds was chosen meanwhile, its list is still on the way.
    if (found) found.result = null;
    say(`Took back: ${ANSWER_WORDS[last.value]}.`);
    show({ known: true });
    // The other tab is to ask once the server knows.
    answers.settled().then(() => tabs.postMessage({ undone: last.pair.id }));
    if (answers.fewToUndo) fetchPairs();
  }

  tabs.addEventListener("message", ({ data: { answered: id, label, takenBack, undone, settled } }) => {
    // The list that is on its way may be from before.
    if (settled) return void Promise.resolve(fetching).then(() => queue.length || fetchPairs());
    if (undone) return void (done.delete(undone) && fetchPairs());
    if (takenBack) answers.undoneElsewhere(takenBack);
    if (label && match && label.pair.match === keyOf(match)) answers.givenElsewhere(label);
    drawProgress();
    if (!queue.some((pair) => pair.id === id)) return;
    done.add(id);
    queue = queue.filter((pair) => pair.id !== id);
    answered += 1;
    say("Answered in another tab.");
    show();
    if (!queue.length) fetchPairs();
  });

  // What is said

  function say(text, kind = "") {
    const place = find("compare-announcement");
    place.dataset.kind = kind;
    place.textContent = text;
  }

  function looked() {
    closer.draw();
    if (isFollowed(find("compare-announcement").textContent, look)) say("");
  }

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
      ...result(found.result),
      h(
        "div",
        { class: "sail-row sail-middle" },
        ...whereNext(),
        drawMore(count, Boolean(more)),
        answers.past.length && button("Undo the last answer", "compare-undo-last", undo),
      ),
    ];
  }

  /** On in the loop; where one of them is better, to its files or to where it is made current. */
  function whereNext() {
    const { more, people } = found.result;
    const goOn = (primary) => button("Go on in Rounds", "compare-go-on", () => openTab("rounds"), primary);
    if (more !== 0) return [goOn(!more)];
    const { wins, losses } = people.at(-1);
    const better = wins >= losses ? found.one : found.two;
    if (better !== status.current)
      return [button(`Make ${roundName(better)} current in Rounds`, "compare-current", () => openTab("rounds"), true)];
    const toFiles = better !== null && button(`Export ${roundName(better)}`, "compare-export", () => openTab("export"));
    return [goOn(true), toFiles];
  }

  /** In words first, then as counts; each person's own share where there are several. */
  function result({ verdict, figures, people }) {
    return [
      h("h2", { class: "sail-verdict", "data-testid": "result" }, verdict),
      share(people.at(-1)),
      h("p", { class: "sail-dim", "data-testid": "result-figures" }, figures),
      people.length > 2 && table(people),
    ].filter(Boolean);
  }

  /** Wins, ties and losses side by side, as wide as they are many. */
  function share({ wins, ties, losses }) {
    const parts = [
      [wins, roundName(found.one)],
      [ties, ties === 1 ? "tie" : "ties"],
      [losses, roundName(found.two)],
    ];
    if (!wins && !ties && !losses) return null;
    return h(
      "div",
      { class: "sail-share", "data-testid": "result-share" },
      parts.map(([count, name]) =>
        h("div", { style: `flex: ${count} 0 auto`, "data-empty": count ? null : "" }, h("span", {}, `${count} ${name}`)),
      ),
    );
  }

  function table(people) {
    const row = (one) => {
      const { value, low, high } = one.rate;
      const name = one.you ? "You" : one.person === "everyone" ? "Everyone" : one.person;
      const share = `${percent(value)} (${Math.round(100 * low)} to ${Math.round(100 * high)})`;
      return [name, one.wins, one.losses, one.ties, share];
    };
    const heads = ["Who", roundTitle(found.one), roundTitle(found.two), "Ties", "Share, 95 % interval"];
    return h(
      "div",
      { class: "sail-scroll" },
      h(
        "table",
        { class: "sail-table", "data-testid": "result-people" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            heads.map((head) => h("th", { scope: "col" }, head)),
          ),
        ),
        h(
          "tbody",
          {},
          people.map((one) =>
            h(
              "tr",
              {},
              row(one).map((cell, at) => (at ? h("td", {}, String(cell)) : h("th", { scope: "row" }, cell))),
            ),
          ),
        ),
      ),
    );
  }

  function drawMore(count, primary) {
    const words = `Draw ${plural(count, found.planned ? "more comparison" : "comparison")}`;
    return button(
      words,
      "compare-draw",
      async () => {
        // Whatever round comes meanwhile, this is the match that was asked for.
        chosenHere = true;
        await ask(`${base}/comparisons/draw`, { ...match, count });
        await fetchPairs();
      },
      primary,
    );
  }

  // Events

  find("show-result").addEventListener("click", (event) =>
    act(event.currentTarget, async () => {
      const known = await answers.afterAll(() => ask(`${base}/comparisons/result`, match, { signal: patience() }));
      // Somebody may be on another tab by now.
      if (!isShown(root)) return;
      early.querySelector('[data-part="result"]').replaceChildren(...result(known));
      early.showModal();
    }),
  );
  early.addEventListener("close", () => early.querySelector('[data-part="result"]').replaceChildren());
  for (const [side, select] of Object.entries(selects)) onChoice(select, () => choose(side));
  root.addEventListener("click", (event) => {
    const value = event.target.closest("[data-answer]")?.dataset.answer;
    if (value) answer(value);
  });
  leaveToKeys(root);
  document.addEventListener("keydown", (event) => {
    const key = isShown(root) ? meant(event) : "";
    if (closer.hears(event, key)) return;
    const value = ANSWER_KEYS[key];
    if (!value || (!screen.pair && value !== "undo")) return;
    event.preventDefault();
    answer(value);
  });

  answers.send();
  onStatus((now, opened) => {
    status = now;
    root.dataset.mounted = "yes";
    // Nobody waits for pairs of a tab that is not open, and others' images would come later for them.
    if (!isShown(root)) return beEager(false, "compare");
    if (opened) screen.restart();
    drawChoice();
    const drawn = JSON.stringify(
      now.runs.filter((run) => run.job === "compare").map((run) => [run.id, run.state, run.step]),
    );
    if (match && (!found || (drawn !== drawnSeen && queue.length < REFILL_BELOW))) {
      drawnSeen = drawn;
      fetchPairs();
    }
    drawMessage();
  });
}
