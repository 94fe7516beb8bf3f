// Review: self pairs as a grid, and what the mixup ratio means before training.

import { figure } from "/ui/chart.js";
import {
  act,
  ask,
  base,
  beforeTraining,
  h,
  isActive,
  isShown,
  onStatus,
  openTab,
  percent,
  plural,
  poll,
  Refused,
  train as askToTrain,
  trouble,
} from "/ui/core.js";

const DECISIONS = { approve: ["Approve", "A"], flip: ["Flip", "F"], drop: ["Drop", "X"] };
const KEYS = { a: "approve", f: "flip", x: "drop" };
const SAID = { approve: "Approved.", flip: "Flipped: a human pair from now on.", drop: "Dropped." };
const DEBOUNCE_MS = 60;

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const [grid, slider, train] = [find("review-grid"), find("mixup-ratio"), find("train-round")];
  let pairs = [];
  let round = null;
  let run = null; // the propose run whose pairs are shown
  let status = null;
  let chosen = 0;
  let timer = 0;
  // One after the other: two requests may overtake each other; the last decision on a pair holds, and the
  // last pairs asked for are those of the current round.
  let sent = Promise.resolve();
  let lost = 0; // decisions that were not kept

  onStatus((now) => {
    status = now;
    if ((now.review?.run ?? null) !== run) load();
    draw();
  });

  function load() {
    sent = sent
      // Another load may have brought them meanwhile, and what was decided since must not be thrown away.
      .then(() => ((status.review?.run ?? null) === run ? null : ask(`${base}/review`)))
      .then((review) => {
        if (!review) return;
        pairs = review.pairs.map((pair) => ({ ...pair, kept: pair.decision, turn: 0 }));
        ({ round, run } = review);
        slider.value = review.self_fraction;
        chosen = 0;
        grid.replaceChildren(...pairs.map(card));
        draw();
        plan();
      })
      .catch((error) =>
        trouble(error instanceof Refused ? error.message : "The pairs could not be loaded.", "review"),
      );
  }

  // The page

  function draw() {
    const any = pairs.length > 0 && status?.review;
    find("mix").hidden = find("review-help").hidden = !any;
    grid.hidden = !any;
    drawMessage(any);
    if (!any) return;
    find("review-counts").textContent = counted();
    const training = status.runs.find((run) => run.job === "train" && isActive(run));
    train.textContent = training ? `Training round ${training.round}` : `Train round ${round}`;
    train.disabled = Boolean(training);
  }

  function counted() {
    const count = (name) => pairs.filter((pair) => pair.decision === name).length;
    const decided = [
      `${count("approve")} approved`,
      `${count("flip")} flipped (human from now on)`,
      `${count("drop")} dropped`,
    ];
    const open = count(null);
    const rest = open ? `${open} not reviewed: trained as the model judged.` : "All reviewed.";
    return `${plural(pairs.length, "self pair")} for round ${round}: ${decided.join(", ")}. ${rest}`;
  }

  function drawMessage(any) {
    const place = find("review-message");
    place.hidden = Boolean(any) || !status;
    if (place.hidden) return;
    const proposing = status.runs.find((run) => run.job === "propose" && isActive(run));
    const text = proposing
      ? `The model is drawing and judging images: ${proposing.step} of ${proposing.total || "…"} prompts.`
      : status.next.name === "propose"
        ? `The policy of round ${status.current} has not proposed anything for round ${status.next.round} yet.`
        : "After round 0 the model draws new images and picks winners itself. They come here before it learns from them.";
    if (place.dataset.text === text) return;
    place.dataset.text = text;
    const button = h("button", { type: "button", class: "sail-primary" }, "Open Rounds");
    button.addEventListener("click", () => openTab("rounds"));
    place.replaceChildren(
      h("h2", {}, proposing ? "Proposing" : "Nothing to review yet"),
      h("p", {}, text),
      button,
    );
  }

  function card(pair, index) {
    const sigma = pair.margin_error > 0 ? ` · ${(pair.margin / pair.margin_error).toFixed(1)} s.e.` : "";
    const p = 1 / (1 + Math.exp(-pair.margin));
    const own = h(
      "article",
      { class: "sail-self", tabindex: "-1", "data-testid": `self-${index}`, "data-pair": pair.id },
      h("p", {}, pair.prompt),
      h("div", { class: "sail-two" }, side(pair, "winner"), side(pair, "loser")),
      h(
        "p",
        { class: "sail-figures" },
        `margin ${figure(pair.margin)} ± ${figure(pair.margin_error)}${sigma} · p ${p.toFixed(2)}`,
      ),
      h(
        "div",
        { class: "sail-decide", role: "group", "aria-label": "Decision" },
        Object.entries(DECISIONS).map(([name, [title, key]]) =>
          h("button", { type: "button", "data-decision": name, title: `Key: ${key}` }, title),
        ),
      ),
    );
    own.addEventListener("click", (event) => {
      choose(index, false);
      const name = event.target.closest("[data-decision]:not(article)")?.dataset.decision;
      if (name) decide(index, name);
    });
    show(own, pair);
    return own;
  }

  function side(pair, which) {
    return h(
      "figure",
      { "data-side": which },
      h("img", { src: pair[which], alt: `${pair.prompt}, the judge's ${which}`, loading: "lazy" }),
      h(
        "figcaption",
        {},
        h("span", { "data-role": which }),
        h("span", { title: "implicit reward" }, figure(pair[`${which}_reward`])),
      ),
    );
  }

  function show(own, pair) {
    own.dataset.decision = pair.decision ?? "none";
    const preferred = pair.decision === "flip" ? "loser" : "winner";
    for (const figure of own.querySelectorAll("figure")) {
      const better = figure.dataset.side === preferred && pair.decision !== "drop";
      figure.toggleAttribute("data-preferred", better);
      figure.querySelector("[data-role]").textContent = better
        ? pair.decision === "flip"
          ? "you prefer"
          : "preferred"
        : "";
    }
    for (const button of own.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.dataset.decision === pair.decision));
  }

  // Decisions

  function send(pair) {
    const review = { uuid: crypto.randomUUID(), self_pair: pair.id, decision: pair.decision };
    const answer = sent.then(() => ask(`${base}/reviews`, { reviews: [review] }));
    sent = answer.then(
      () => (pair.kept = review.decision),
      () => lost++,
    );
    return answer;
  }

  beforeTraining(async () => {
    const before = lost;
    await sent;
    if (lost > before) throw new Refused("A decision in Review was not kept. Decide again, then train.");
  });

  async function decide(index, name) {
    const [pair, own] = [pairs[index], grid.children[index]];
    const turn = ++pair.turn;
    pair.decision = pair.decision === name ? null : name;
    show(own, pair);
    find("review-announcement").textContent = pair.decision ? SAID[pair.decision] : "Taken back.";
    draw();
    try {
      await send(pair);
      trouble("", "review");
      plan();
      poll();
    } catch (error) {
      // A later decision on the same pair is still on its way, and speaks for itself.
      if (turn === pair.turn) pair.decision = pair.kept;
      show(own, pair);
      draw();
      trouble(
        error instanceof Refused
          ? error.message
          : "The app does not answer, so that decision was not kept. Try again.",
        "review",
      );
    }
  }

  function choose(index, scroll = true) {
    if (index < 0 || index >= pairs.length) return;
    grid.children[chosen]?.removeAttribute("aria-current");
    chosen = index;
    const own = grid.children[chosen];
    own.setAttribute("aria-current", "true");
    if (scroll) own.focus({ preventScroll: true });
    if (scroll) own.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("keydown", (event) => {
    if (
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      event.isComposing ||
      !isShown(grid) ||
      !pairs.length
    )
      return;
    if (event.target.closest?.("input:not([type=range]), textarea, select, [contenteditable], dialog"))
      return;
    const key = event.key.toLowerCase();
    if (key === "j" || key === "k") {
      event.preventDefault();
      const started = grid.querySelector("[aria-current]");
      choose(started ? chosen + (key === "j" ? 1 : -1) : 0);
    } else if (KEYS[key] && !event.repeat && grid.querySelector("[aria-current]")) {
      event.preventDefault();
      decide(chosen, KEYS[key]);
    }
  });

  // The mixup ratio

  slider.addEventListener("input", () => {
    clearTimeout(timer);
    find("mixup-value").textContent = percent(Number(slider.value));
    timer = setTimeout(plan, DEBOUNCE_MS);
  });

  async function plan() {
    const fraction = Number(slider.value);
    find("mixup-value").textContent = percent(fraction);
    if (!pairs.length) return;
    try {
      const found = await ask(`${base}/mixup?self_fraction=${fraction}`);
      find("mixup-meaning").textContent = meaning(found);
    } catch (error) {
      find("mixup-meaning").textContent = error instanceof Refused ? error.message : "";
    }
  }

  function meaning(found) {
    const all = found.human_draws + found.self_draws || 1;
    const side = (words, pairs, draws, passes) => {
      if (!pairs) return `no ${words} pair`;
      const times = passes < 10 ? passes.toFixed(1) : Math.round(passes);
      return `${plural(pairs, `${words} pair`)} ${times} times each (${percent(draws / all)} of all draws)`;
    };
    const human = side("human", found.human_pairs, found.human_draws, found.human_passes);
    const own = side("self", found.self_pairs, found.self_draws, found.self_passes);
    return `In ${plural(found.batches, "batch", "batches")}: ${human}, ${own}.`;
  }

  train.addEventListener("click", () =>
    act(train, async () => {
      await askToTrain({ self_fraction: Number(slider.value) });
      openTab("rounds");
    }),
  );

  root.dataset.mounted = "yes";
}
