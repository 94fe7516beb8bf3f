// The mixup ratio, what it means before training, and the way to training. Knows no pair.

import { act, ask, base, isActive, keep, kept, openTab, project, Refused, train } from "/ui/core.js";
import { h } from "/ui/page.js";
import { percent, plural, POOR } from "/ui/words.js";

const DEBOUNCE_MS = 60;
const AFTER_DECISIONS_MS = 800; // it goes through all pairs, and decisions come one a second
const LITTLE = 0.25; // share of pairs that are often wrong
const OFTEN = 100; // passes over one side from which on the model learns the images rather than a taste

export function mixup(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const [slider, start, anyway, back, lower] = [
    find("mixup-ratio"),
    find("train-round"),
    find("train-anyway"),
    find("gate-back"),
    find("lower-share"),
  ];
  // On phones pairs come first.
  find("mixup-fold").open = !matchMedia("(max-width: 560px)").matches;
  let round = null;
  let audit = null;
  let runs = [];
  let asking = false; // whether to train without the audit
  let chosen = false; // whether somebody moved the ratio; else the server takes what suits the pairs
  let none = false; // whether there is no self pair to mix in
  let timer = 0;
  let asked = 0; // only the newest answer is of the ratio as it stands

  const draft = () => `sail.mixup/${encodeURIComponent(project)}/${round}`;

  /** Before training the ratio is a draft of this browser, one for each round. */
  function load(review) {
    ({ round, audit } = review);
    chosen = false;
    asking = false;
    refresh(review);
  }

  /** What suits the pairs as they stand now, unless somebody moved the ratio. */
  function refresh(review) {
    // Where the browser keeps nothing, the ratio is that of the settings again.
    const stored = kept(draft());
    if (stored !== null) [chosen, slider.value] = [true, stored];
    none = review.pairs.length === 0;
    plan();
  }

  slider.addEventListener("input", () => {
    chosen = true;
    keep(draft(), slider.value);
    drawValue();
    planIn(DEBOUNCE_MS);
  });

  function drawValue() {
    find("mixup-value").textContent = percent(Number(slider.value));
    drawLower();
  }

  function drawLower() {
    const isPoor = audit?.done && audit.error.value >= POOR;
    lower.hidden = none || !isPoor || Number(slider.value) <= LITTLE;
  }

  lower.addEventListener("click", ({ detail }) => {
    slider.value = LITTLE;
    slider.dispatchEvent(new Event("input"));
    // It is gone, and would take the focus of who goes by key along.
    if (!detail) find("mixup-fold").querySelector("summary").focus();
  });

  function planIn(after) {
    clearTimeout(timer);
    timer = setTimeout(plan, after);
  }

  async function plan() {
    if (round === null) return;
    const own = ++asked;
    try {
      const found = await ask(`${base}/mixup${chosen ? `?self_fraction=${slider.value}` : ""}`);
      if (own !== asked) return;
      if (!chosen) slider.value = found.self_fraction;
      drawValue();
      find("mixup-meaning").textContent = meaning(found);
      find("mixup-warning").replaceChildren(...warnings(found).map((text) => h("span", {}, text)));
    } catch (error) {
      if (own !== asked) return;
      find("mixup-meaning").textContent = error instanceof Refused ? error.message : "";
      find("mixup-warning").replaceChildren();
    }
  }

  /** How far the audit is, and what is running. */
  function show(now, going) {
    [audit, runs] = [now, going];
    draw();
  }

  function draw() {
    const training = runs.find((run) => run.job === "train" && isActive(run));
    start.textContent = training ? `Training round ${training.round}` : `Train round ${round}`;
    start.disabled = Boolean(training) || !audit.done;
    find("gate").hidden = audit.done || Boolean(training);
    // First the audit: what to train comes after it.
    find("mixing").hidden = none || (!audit.done && !asking);
    drawLower();
    back.hidden = !asking;
    anyway.textContent = asking ? "Train all the same" : "Train without the audit";
    find("gate-text").textContent = asking
      ? "You won't know how often the model is wrong. Your decision is noted."
      : audit.decided < audit.pairs
        ? `Training waits for ${plural(audit.pairs - audit.decided, "audit pair")}.`
        : "The last decisions are being sent.";
  }

  const begin = (button, settings) =>
    act(button, async () => {
      await train({ ...(chosen && !none && { self_fraction: Number(slider.value) }), ...settings });
      keep(draft(), null);
      openTab("rounds");
    });

  start.addEventListener("click", () => begin(start, {}));
  back.addEventListener("click", () => {
    asking = false;
    draw();
    anyway.focus();
  });
  anyway.addEventListener("click", () => {
    if (asking) return begin(anyway, { without_audit: true });
    asking = true;
    draw();
  });

  return { load, planSoon: () => planIn(AFTER_DECISIONS_MS), refresh, show };
}

function meaning(found) {
  const all = found.human_draws + found.self_draws || 1;
  const shown = (pairs, passes, draws, of = "") => (pairs ? ` ${times(passes)} (${percent(draws / all)}${of})` : "");
  const human = shown(found.human_pairs, found.human_passes, found.human_draws, " of the training");
  return `${peoples(found.human_pairs)} shown${human}, ${models(found.self_pairs)}${shown(found.self_pairs, found.self_passes, found.self_draws)}.`;
}

function peoples(pairs) {
  if (!pairs) return "No pair that people judged is";
  return `${pairs === 1 ? "The one pair" : `Each of the ${pairs.toLocaleString("en")} pairs`} that people judged is`;
}

function models(pairs) {
  if (!pairs) return "none of the model’s";
  return pairs === 1 ? "the model’s one pair" : `each of the model’s ${pairs.toLocaleString("en")}`;
}

/** How often, as far as it matters. */
function times(passes) {
  const rounded = passes < 10 ? Number(passes.toFixed(1)) : Math.round(passes);
  if (rounded === 1) return "about once";
  return rounded ? `about ${rounded.toLocaleString("en")} times` : "0 times";
}

function warnings(found) {
  const often = [
    ["people judged", found.human_passes],
    ["the model judged", found.self_passes],
  ].filter(([, passes]) => passes > OFTEN);
  return [
    found.human_draws === 0 &&
      "No pair that people judged is learned from. Tried once, on the starter, that gained less, and images grew alike sooner.",
    ...often.map(
      ([words, passes]) =>
        `Each pair that ${words} is shown ${Math.round(passes)} times: with so few of them the model learns these images, not a taste.`,
    ),
  ].filter(Boolean);
}
