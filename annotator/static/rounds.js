// Rounds: where the loop stands, what was trained, curves and samples of the newest training.

import { chart } from "/ui/chart.js";
import { act, ask, base, h, isActive, isShown, onStatus, percent } from "/ui/core.js";
import { doubted } from "/ui/doubted.js";
import { afterTraining, whileTraining } from "/ui/learning.js";
import { nextAction } from "/ui/next.js";
import { runRow } from "/ui/runs.js";

const STEPS = ["seed", "propose", "review", "train", "gate"];
const STEP_OF_JOB = { draw: "seed", propose: "propose", train: "train" };
const [BLUE, GREEN, RED, GREY] = ["#6366f1", "#16a34a", "#dc2626", "#64748b"];

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const drawn = new Map(); // what is on the page, so that nothing is replaced under someone's finger
  const rows = new Map();
  let followed = null;
  const showDoubted = doubted(find("doubted"));

  function put(place, key, make) {
    const text = JSON.stringify(key);
    if (drawn.get(place) === text) return;
    drawn.set(place, text);
    place.replaceChildren(...[make()].flat().filter(Boolean));
  }

  onStatus((status) => {
    steps(status);
    put(
      find("next"),
      [
        status.next,
        status.labels,
        status.review,
        status.rounds.at(-1)?.round,
        status.current,
        status.runs.filter(isActive).map((run) => [run.id, run.state, run.stage]),
      ],
      () => nextAction(status),
    );
    put(find("rounds"), [status.rounds, status.current], () => roundTable(status));
    // What was tried stays in Try.
    runList(status.runs.filter((run) => run.job !== "try" || run.state !== "done"));
    showDoubted(status.current);
    const training = status.runs.find((run) => run.job === "train" && run.state !== "waiting");
    if (training) follow(training, status.rounds);
    else find("curves").hidden = true;
  });

  /** Each run keeps its own place, so that an open log stays open while another run goes on. */
  function runList(runs) {
    for (const run of runs) {
      if (!rows.has(run.id)) rows.set(run.id, h("div"));
      put(rows.get(run.id), run, () => runRow(run));
    }
    put(find("runs"), [runs.map((run) => run.id)], () =>
      runs.length
        ? runs.map((run) => rows.get(run.id))
        : h("p", { class: "sail-dim" }, "Nothing has run yet."),
    );
  }

  function steps(status) {
    const active = status.runs.find((run) => isActive(run) && STEP_OF_JOB[run.job]);
    const measuring = active?.job === "train" && /measur|held-out|judge/i.test(active.stage);
    const byNext = { draw: "seed", label: "seed", train: "train", propose: "propose", review: "review" };
    const now = measuring ? "gate" : active ? STEP_OF_JOB[active.job] : byNext[status.next.name];
    for (const item of find("stepper").children) {
      const [at, here] = [STEPS.indexOf(item.dataset.step), STEPS.indexOf(now)];
      const seeded = item.dataset.step === "seed" && status.rounds.length > 0;
      item.dataset.state =
        item.dataset.step === now
          ? "now"
          : (at < here && (status.next.round > 0 || at === 0)) || seeded
            ? "done"
            : "todo";
      if (item.dataset.step === now) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    }
  }

  // Rounds

  function roundTable(status) {
    if (!status.rounds.length)
      return h("p", { class: "sail-dim" }, "No round is trained yet. Everything starts from the base model.");
    const heads = [
      "Round",
      "From",
      "Human + self",
      "Judge, held out",
      "Judge, learned",
      "Diversity",
      "Saturation",
      "Winner",
      "Loser",
      "Gate",
      "",
    ];
    return h(
      "table",
      { class: "sail-table" },
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
        status.rounds.map((round) => roundRow(round, status)),
      ),
    );
  }

  function roundRow(round, status) {
    const accuracy = round.judge_accuracy;
    const judge =
      accuracy.value == null
        ? "not measured"
        : `${percent(accuracy.value)} (${Math.round(100 * accuracy.low)} to ${Math.round(100 * accuracy.high)}), n ${accuracy.n}`;
    const learned = round.human_agreement?.value;
    const ratio = (value) => (value == null ? "not measured" : `× ${value.toFixed(2)}`);
    const gate = round.accepted
      ? h("span", { class: "sail-chip", "data-state": "done" }, "accepted")
      : h(
          "div",
          {},
          h("span", { class: "sail-chip", "data-state": "failed" }, "not accepted"),
          round.reasons.map((reason) => h("p", {}, reason)),
        );
    const cells = [
      round.round,
      round.parent ?? "base",
      h("div", {}, `${round.human_pairs} + ${round.self_pairs}`, reviewed(round)),
      judge,
      learned == null ? "not measured" : percent(learned),
      ratio(round.diversity_ratio),
      ratio(round.saturation_ratio),
      gain(round.winner_gain),
      gain(round.loser_gain),
      gate,
      current(round, status),
    ];
    return h(
      "tr",
      { "data-testid": `round-${round.round}` },
      cells.map((cell) => h("td", {}, cell ?? "")),
    );
  }

  /** How the review stood when a person asked for this round. */
  function reviewed({ audit, without_audit, by }) {
    if (!audit) return null;
    const words = without_audit
      ? `without the audit (${by})`
      : `audit: ${audit.wrong} of ${audit.pairs} wrong (${by})`;
    return h("p", { class: "sail-dim" }, words);
  }

  function gain(value) {
    // A minus, not a hyphen, after which a line may break.
    return `${value > 0 ? "+" : ""}${value.toExponential(1)}`.replaceAll("-", "\u2212");
  }

  function current(round, status) {
    if (status.current === round.round)
      return h("span", { class: "sail-chip", "data-state": "current" }, "current");
    if (!round.accepted) return "";
    const button = h("button", { type: "button", class: "sail-quiet" }, "Make current");
    button.addEventListener("click", () => act(button, () => ask(`${base}/current`, { round: round.round })));
    return button;
  }

  // Curves and samples of the newest train run

  async function follow(run, rounds) {
    const key = `${run.id} ${run.state} ${run.stage} ${run.step}`;
    if (key === followed || !isShown(root)) return;
    followed = key;
    const detail = await ask(`${base}/runs/${run.id}`).catch(() => null);
    if (!detail) return void (followed = null);
    const card = find("curves");
    const part = (name) => card.querySelector(`[data-part="${name}"]`);
    card.hidden = !detail.metrics.length && !detail.samples.steps.length;
    part("title").textContent = `Round ${run.round}${isActive(run) ? ", training" : ""}`;
    const trained = rounds.find((one) => one.round === run.round);
    part("words").textContent =
      trained && run.state === "done" ? afterTraining(trained) : whileTraining(detail.metrics);
    part("note").textContent = detail.metrics.length ? `step ${detail.metrics.at(-1).step}` : "";
    put(part("charts"), [run.id, detail.metrics.at(-1)?.step], () => charts(detail.metrics));
    put(part("samples"), [run.id, detail.samples], () => sampleSheet(run, detail.samples));
  }

  function charts(metrics) {
    if (metrics.length < 2) return [];
    const series = (name, field, color) => ({
      name,
      color,
      points: metrics.filter((line) => line[field] != null).map((line) => [line.step, line[field]]),
    });
    return [
      chart({ title: "Loss", zero: Math.LN2, series: [series("", "loss", BLUE)] }),
      chart({
        title: "Gain over the reference",
        zero: 0,
        series: [series("winner", "winner_gain", GREEN), series("loser", "loser_gain", RED)],
      }),
      chart({
        title: "Training pairs ranked right",
        zero: 0.5,
        series: [series("", "accuracy", GREY)],
        format: (value) => percent(value),
      }),
    ];
  }

  function sampleSheet(run, samples) {
    const [first, last] = [samples.steps[0], samples.steps.at(-1)];
    if (last == null || !samples.prompts.length) return [];
    const image = (step, index, words) =>
      h("img", {
        src: `${base}/runs/${run.id}/samples/${step}/${index}`,
        alt: `${samples.prompts[index]}, ${words}`,
        loading: "lazy",
      });
    return [
      h(
        "p",
        { class: "sail-dim", style: "margin:1rem 0 .4rem" },
        last > first ? `The same starting noise before this round and at its step ${last}` : "Before this round",
      ),
      h(
        "div",
        { class: "sail-samples", "data-testid": "samples" },
        samples.prompts.map((prompt, index) =>
          h(
            "figure",
            {},
            h(
              "div",
              {},
              h("span", {}, "before"),
              last > first && h("span", {}, `step ${last}`),
              image(first, index, "before"),
              last > first && image(last, index, `step ${last}`),
            ),
            h("figcaption", {}, prompt),
          ),
        ),
      ),
    ];
  }

  root.dataset.mounted = "yes";
}
