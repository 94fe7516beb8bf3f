// The mixup ratio, what it means before training, and the way to training. Knows no pair.

import { act, ask, base, isActive, keep, kept, openTab, project, Refused, train } from "/ui/core.js";
import { h } from "/ui/page.js";
import { percent, plural } from "/ui/words.js";

const DEBOUNCE_MS = 60;
const AFTER_DECISIONS_MS = 800; // it goes through all pairs, and decisions come one a second
const OFTEN = 100; // passes over one side from which on the model learns the images rather than a taste

export function mixup(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const [slider, start, anyway, back] = [
    find("mixup-ratio"),
    find("train-round"),
    find("train-anyway"),
    find("gate-back"),
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
    find("mixup-value").textContent = percent(Number(slider.value));
    planIn(DEBOUNCE_MS);
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
      find("mixup-value").textContent = percent(Number(slider.value));
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
    back.hidden = !asking;
    anyway.textContent = asking ? "Train all the same" : "Train without the audit";
    find("gate-text").textContent = asking
      ? "Then nobody knows how often the model is wrong about its own pairs. That you chose so is recorded."
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
  const side = (words, pairs, draws, passes) => {
    if (!pairs) return `no pair that ${words} comes`;
    const times = passes < 10 ? passes.toFixed(1) : Math.round(passes);
    const each = pairs === 1 ? "the one pair" : `each of the ${pairs.toLocaleString("en")} pairs`;
    return `${each} that ${words} comes ${times} times (${percent(draws / all)} of the lessons)`;
  };
  const human = side("people judged", found.human_pairs, found.human_draws, found.human_passes);
  const own = side("the model judged", found.self_pairs, found.self_draws, found.self_passes);
  return `In this training ${human}, ${own}.`;
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
        `Each pair that ${words} comes ${Math.round(passes)} times: with so few of them the model learns these images, not a taste.`,
    ),
  ].filter(Boolean);
}
