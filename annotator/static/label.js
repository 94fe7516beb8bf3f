// Label: shows pairs, takes answers by key and button, sends them. Labels never wait for the server:
// they go to an outbox in local storage, under an id made here, until they are acknowledged.

import {
  act,
  ask,
  base,
  beEager,
  beforeTraining,
  duration,
  h,
  isActive,
  isShown,
  onStatus,
  openTab,
  plural,
  poll,
  project,
  Refused,
  train as askToTrain,
  trouble,
} from "/ui/core.js";
import { Images, sidesOf } from "/ui/images.js";
import { Outbox } from "/ui/outbox.js";
import { beacon, Sending } from "/ui/sending.js";

const KEYS = {
  1: "left",
  ArrowLeft: "left",
  2: "right",
  ArrowRight: "right",
  0: "tie",
  ArrowDown: "tie",
  9: "both_bad",
  s: "skip",
  S: "skip",
  z: "undo",
  Z: "undo",
  "?": "help",
};
const WORDS = { left: "left", right: "right", tie: "tie", both_bad: "both bad", skip: "skipped" };
const GUARD_MS = 250;
const AHEAD = 3;
const RENEW_MS = 45_000;
const LOOK_AGAIN_MS = 5000;
const REFILL_BELOW = 6;
const SLOWEST_MS = 86_400_000;

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const [labelling, message, help] = [
    root.querySelector(".sail-labelling"),
    find("label-message"),
    find("help"),
  ];
  const sides = { left: find("image-left"), right: find("image-right") };
  const outbox = new Outbox();
  const images = new Images();
  const sending = new Sending(outbox, `${base}/labels`, {
    name: "A label",
    heard: hear,
    changed: drawProgress,
    sent: () => {
      poll();
      if (!queue.length) fetchPairs();
    },
  });
  const send = () => sending.send();
  let queue = [];
  let past = [];
  let shown = null; // the pair on the screen
  let open = false; // both its images are there, so it can be answered
  let shownAt = 0;
  let status = null;
  let counts = null;
  let usualMs = null;
  let withOthers = 0;
  let drawnSeen = 0; // how many pairs there were when pairs were last fetched
  let fetchedAt = 0;
  let fetching = null;
  let loaded = false;
  // A list of pairs may have been made before the server heard of the last answers.
  const answered = new Set();
  // Two tabs of one browser hold the same pairs, and one answer must not overwrite the other's.
  const tabs = new BroadcastChannel(`sail/${project}`);

  // Pairs

  function fetchPairs() {
    // After what is on its way, so that the list knows of it.
    fetching ??= Promise.resolve(sending.now)
      .then(() => ask(`${base}/pairs/next`, {}))
      .then(takeIn)
      .catch((error) => error instanceof Refused && trouble(error.message, "label"))
      .finally(() => (fetching = null));
    return fetching;
  }

  function takeIn(answer) {
    const pending = outbox.answers();
    const undone = new Set(pending.filter((one) => one.value === "undo").map((one) => one.undoes));
    for (const one of pending) if (one.value !== "undo" && !undone.has(one.uuid)) answered.add(one.pair);
    const held = new Map(answer.pairs.map((pair) => [pair.id, pair]));
    const kept = queue.filter((pair) => pair === shown || pair.undone || held.has(pair.id));
    const known = new Set(kept.map((pair) => pair.id));
    queue = [...kept, ...answer.pairs.filter((pair) => !known.has(pair.id) && !answered.has(pair.id))];
    if (!loaded) past = standing([...answer.past, ...unheard(pending)], undone);
    loaded = true;
    drawnSeen = answer.labels.drawn;
    fetchedAt = Date.now();
    withOthers = answer.with_others;
    hear(answer);
    show();
  }

  /** Labels of an earlier visit that the server has not heard of. */
  const unheard = (pending) =>
    pending.filter((one) => one.shown).map((one) => ({ uuid: one.uuid, value: one.value, pair: one.shown }));

  function standing(labels, undone) {
    const known = new Map(labels.map((one) => [one.uuid, one]));
    return [...known.values()].filter((one) => !undone.has(one.uuid));
  }

  function hear(answer) {
    counts = answer.labels;
    usualMs = answer.usual_ms;
  }

  function preload() {
    const again = past.slice(-AHEAD).map((one) => one.pair);
    images.ahead(queue.slice(0, AHEAD + 1).flatMap(sidesOf), again.flatMap(sidesOf));
  }

  async function show() {
    const pair = queue[0] ?? null;
    labelling.hidden = !pair;
    drawMessage();
    drawProgress();
    if (pair !== shown) {
      shown = pair;
      open = false;
      root.dataset.pair = pair?.id ?? "";
      for (const side of Object.values(sides)) side.classList.add("sail-waiting");
      if (pair) {
        find("prompt").textContent = pair.prompt;
        await put(pair);
      }
    }
    preload();
  }

  async function put(pair) {
    try {
      const [left, right] = await Promise.all(sidesOf(pair).map((url) => images.decoded(url)));
      if (shown !== pair) return;
      sides.left.replaceChildren(left);
      sides.right.replaceChildren(right);
      for (const side of Object.values(sides)) side.classList.remove("sail-waiting");
      open = true;
      shownAt = performance.now();
      root.dataset.ready = pair.id;
      trouble("", "image");
    } catch {
      if (shown !== pair) return;
      trouble("An image of this pair could not be loaded. Skip it with S, or reload the page.", "image");
      for (const side of Object.values(sides)) side.replaceChildren();
      open = "to skip"; // Nobody chooses between images they cannot see.
      shownAt = performance.now();
    }
  }

  // Answers

  function answer(value) {
    if (value === "help") return help.showModal();
    if (value === "undo") return undo();
    const elapsed = performance.now() - shownAt;
    if (!shown || !open || elapsed < GUARD_MS) return;
    if (open === "to skip" && value !== "skip") return;
    const uuid = crypto.randomUUID();
    const elapsed_ms = Math.min(Math.round(elapsed), SLOWEST_MS);
    // With the pair as it was shown, so that undo finds it after a reload.
    put_in({ uuid, pair: shown.id, value, elapsed_ms, shown });
    tabs.postMessage(shown.id);
    answered.add(shown.id);
    past.push({ uuid, value, pair: shown });
    if (past.length > 50) past.shift();
    queue.shift();
    say(`Last answer: ${WORDS[value]}.`);
    flash(value);
    show();
    if (queue.length < REFILL_BELOW) fetchPairs();
  }

  function undo() {
    const last = past.pop();
    if (!last) return say("Nothing to undo.");
    put_in({ uuid: crypto.randomUUID(), pair: last.pair.id, value: "undo", undoes: last.uuid });
    last.pair.undone = true;
    answered.delete(last.pair.id);
    queue = [last.pair, ...queue.filter((pair) => pair.id !== last.pair.id)];
    say(`Took back: ${WORDS[last.value]}.`);
    show();
  }

  tabs.addEventListener("message", ({ data: pair }) => {
    if (!queue.some((one) => one.id === pair)) return;
    answered.add(pair);
    queue = queue.filter((one) => one.id !== pair);
    say("Answered in another tab.");
    show();
    if (queue.length < REFILL_BELOW) fetchPairs();
  });

  function put_in(answer) {
    outbox.put(answer);
    send();
  }

  beforeTraining(async () => {
    await send();
    if (outbox.answers().length)
      throw new Refused(
        "Some labels are not with the app yet. They are sent again by themselves; train then.",
      );
  });

  /** The page is going: hand over what is unsent, and give back the pairs. */
  function leave() {
    sending.leave();
    beacon(`${base}/pairs/release`, {});
  }

  // What is said

  const say = (text) => (find("announcement").textContent = text);

  function flash(value) {
    const button = root.querySelector(`.sail-answer[data-answer="${value}"]`);
    button?.animate([{ transform: "scale(.96)" }, { transform: "none" }], 120);
  }

  function drawProgress() {
    const pending = outbox.answers();
    const badge = find("unsent");
    badge.hidden = !(pending.length > 1 || sending.failures);
    badge.textContent = `${pending.length} unsent`;
    root.querySelector('[data-answer="undo"]').disabled = !past.length;
    if (!counts) return;
    const undone = pending.filter((one) => one.value === "undo").length;
    const done = Math.max(0, counts.labelled + counts.skipped + pending.length - 2 * undone);
    const total = Math.max(counts.planned, done);
    const pace = usualMs ? ` · ${(usualMs / 1000).toFixed(1)} s each` : "";
    const left = usualMs && total > done ? ` · about ${duration(((total - done) * usualMs) / 1000)} left` : "";
    find("label-progress").textContent = total ? `${done} of ${total}${pace}${left}` : "";
    Object.assign(find("label-bar"), { max: Math.max(total, 1), value: done });
    const early = find("train-early");
    early.hidden = !(
      shown &&
      status?.next.name === "train" &&
      !status.runs.some((run) => run.job === "train" && isActive(run))
    );
    if (!early.hidden) early.textContent = `Enough to train round ${status.next.round}`;
  }

  function drawMessage() {
    message.hidden = queue.length > 0 || !counts || !status;
    const drawing = status?.runs.find((run) => run.job === "draw" && isActive(run));
    beEager(Boolean(!queue.length && drawing));
    if (message.hidden) return;
    const parts = nothingLeft(drawing);
    const key = JSON.stringify(parts.map((part) => part.outerHTML));
    if (message.dataset.key !== key) {
      message.dataset.key = key;
      message.replaceChildren(...parts);
    }
  }

  function nothingLeft(drawing) {
    const stopped = status.runs.find(
      (run) => run.job === "draw" && ["failed", "interrupted", "stopped"].includes(run.state),
    );
    if (drawing) return drawingMessage(drawing);
    if (withOthers)
      return [
        title(`${plural(withOthers, "pair is", "pairs are")} with other people right now`),
        text("They come back here when nobody answers them within two minutes."),
      ];
    if (stopped)
      return [
        title("Drawing pairs stopped"),
        text(stopped.message),
        button("Resume", "resume-draw", () => ask(`${base}/runs/${stopped.id}/resume`, {}), true),
      ];
    if (!counts.drawn) return [title("No pairs are drawn yet"), drawMore(60, true)];
    return allDone();
  }

  function drawingMessage(run) {
    const first = counts.drawn ? "Drawing the next pairs…" : "Drawing the first pairs…";
    const where =
      run.state === "waiting"
        ? waitingFor(run)
        : run.stage === "draw"
          ? `${run.step} of ${plural(run.total, "prompt")}`
          : "Loading the model. This takes some seconds.";
    return [
      title(first),
      h("progress", run.total > 1 ? { max: run.total, value: run.step } : {}),
      text(where),
    ];
  }

  const waitingFor = (run) =>
    run.ahead ? `Waiting for ${plural(run.ahead, "run")} before it.` : "Starting.";

  function allDone() {
    const { next } = status;
    const head = title(`All ${plural(counts.drawn, "pair")} are labelled`);
    const training = status.runs.find((run) => run.job === "train" && isActive(run));
    if (training)
      return [
        head,
        text(`Round ${training.round} is being trained.`),
        button("Watch it in Rounds", "open-rounds", () => openTab("rounds"), true),
      ];
    if (next.name === "train")
      return [
        head,
        text(`${plural(counts.winners, "of them has", "of them have")} a winner.`),
        trainButton(next.round),
        drawMore(20),
      ];
    if (next.name === "label")
      return [
        head,
        text(
          `Training needs ${counts.needed} pairs with a winner that are not held out, and there are ${counts.trainable}.`,
        ),
        drawMore(20, true),
      ];
    const label =
      next.name === "review" ? "Review what the model chose" : `Go on with round ${next.round} in Rounds`;
    return [
      head,
      button(label, "go-on", () => openTab(next.name === "review" ? "review" : "rounds"), true),
      drawMore(20),
    ];
  }

  const title = (words) => h("h2", {}, words);
  const text = (words) => h("p", {}, words);

  function button(words, id, action, primary = false) {
    const own = h(
      "button",
      { type: "button", class: primary ? "sail-primary" : "sail-quiet", "data-testid": id },
      words,
    );
    own.addEventListener("click", () => act(own, async () => action()));
    return own;
  }

  function trainButton(round) {
    return button(`Train round ${round}`, "train", train, true);
  }

  async function train() {
    await askToTrain();
    openTab("rounds");
  }

  function drawMore(count, primary = false) {
    return button(
      `Draw ${count} more pairs`,
      "draw-more",
      () => ask(`${base}/runs`, { job: "draw", count }),
      primary,
    );
  }

  // Events

  root.addEventListener("click", (event) => {
    const value = event.target.closest("[data-answer]")?.dataset.answer;
    if (!value) return;
    answer(value);
    // A focus ring that stays on one side looks like a choice already made.
    if (event.target.closest(".sail-image") && event.detail) document.activeElement?.blur();
  });
  find("train-early").addEventListener("click", (event) => act(event.currentTarget, train));
  document.addEventListener("keydown", (event) => {
    const undoes = event.key === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey;
    const value = KEYS[event.key];
    if (!value || event.repeat || event.isComposing) return;
    if (!undoes && (event.ctrlKey || event.metaKey || event.altKey)) return;
    if (document.hidden || !isShown(root) || help.open || (!shown && value !== "undo")) return;
    if (event.target.closest?.("input, textarea, select, [contenteditable], dialog")) return;
    event.preventDefault();
    answer(value);
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) {
      shownAt = performance.now(); // Time away is not time spent choosing.
      fetchPairs();
      send();
    }
  });
  addEventListener("pagehide", leave);
  addEventListener("pageshow", (event) => event.persisted && fetchPairs());
  addEventListener("online", send);
  setInterval(() => {
    const renew = shown ? Date.now() - fetchedAt > RENEW_MS : withOthers > 0;
    if (renew && !document.hidden) fetchPairs();
  }, LOOK_AGAIN_MS);

  send();
  onStatus((now) => {
    status = now;
    if (!sending.now && !outbox.answers().length) counts = now.labels;
    if (now.labels.drawn > drawnSeen && queue.length < REFILL_BELOW) fetchPairs();
    drawMessage();
    drawProgress();
  });
  fetchPairs().then(() => (root.dataset.mounted = "yes"));
}
