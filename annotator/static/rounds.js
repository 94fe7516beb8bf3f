// Rounds: where the loop stands, what was trained, curves and samples of the newest training.

import { chart } from "/ui/chart.js";
import { ask, askAnew, base, endedEarly, inTurn, isActive, onStatus, projectId } from "/ui/core.js";
import { doubted } from "/ui/doubted.js";
import { enlarge } from "/ui/enlarge.js";
import { afterTraining, whileTraining } from "/ui/learning.js";
import { atWork, nextAction } from "/ui/next.js";
import { h, isShown, put, putParts } from "/ui/page.js";
import { keepUp, runBlock, standing } from "/ui/runs.js";
import { tree } from "/ui/tree.js";
import { percent, plural } from "/ui/words.js";

const STEPS = ["seed", "propose", "review", "train", "gate"];
const STEP_OF_JOB = { draw: "seed", propose: "propose", train: "train" };
const RECENT = 4;
const [BLUE, GREEN, RED, GREY] = ["#6366f1", "#16a34a", "#dc2626", "#64748b"];

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const rows = new Map();
  let followed = null;
  let showsHistory = false;
  const showDoubted = doubted(find("doubted"));
  const rounds = tree(find("rounds"), find("rounds-said"));

  onStatus((status) => {
    steps(status);
    putParts(find("next"), nextAction(status));
    const onTop = atWork(status);
    if (onTop) keepUp(find("next"), onTop, status);
    if (put(find("rounds"), [status.rounds, status.current], () => rounds.draw(status))) rounds.drawn();
    // What was tried stays in Try.
    runList(status.runs.filter((run) => run !== onTop && (run.job !== "try" || run.state !== "done")), status);
    showDoubted(status.current);
    const training = status.runs.find((run) => run.job === "train" && run.state !== "waiting");
    if (training) follow(training, status.rounds);
    else find("curves").hidden = true;
  });

  /** What is over stands below what is not, the newest first. Each run keeps its own place, so that an open log stays
   * open while another run goes on. */
  function runList(runs, status) {
    const over = runs.filter((run) => !isActive(run));
    const placeOf = (run) => rows.get(run.id);
    for (const run of runs) {
      if (!rows.has(run.id)) rows.set(run.id, h("div"));
      put(placeOf(run), standing(run), () => runBlock(run));
      if (isActive(run)) keepUp(placeOf(run), run, status);
    }
    find("runs").closest("section").hidden = !runs.length;
    const [recent, earlier] = [[...inTurn(runs), ...over.slice(0, RECENT)], over.slice(RECENT)];
    put(find("runs"), [recent.map((run) => run.id), earlier.map((run) => run.id)], () => [
      ...recent.map(placeOf),
      earlier.length && history(earlier.map(placeOf)),
    ]);
  }

  /** What is long over is there for who looks for it. */
  function history(parts) {
    const own = h(
      "details",
      { open: showsHistory },
      h("summary", { "data-testid": "earlier-runs" }, plural(parts.length, "earlier run")),
      parts,
    );
    own.addEventListener("toggle", () => (showsHistory = own.open));
    return own;
  }

  function steps(status) {
    const active = atWork(status);
    const measuring = active?.job === "train" && /\(policy\)|judge/i.test(active.stage);
    const byNext = { draw: "seed", label: "seed", train: "train", propose: "propose", review: "review" };
    const last = status.runs.find((run) => ["propose", "train"].includes(run.job));
    const isOpen = last && endedEarly(last) && last.round === status.next.round;
    const now = measuring ? "gate" : STEP_OF_JOB[(active ?? (isOpen && last))?.job] ?? byNext[status.next.name];
    // The first round has nothing that the model chose itself.
    const isFirst = (active?.round ?? status.next.round) === 0;
    for (const item of find("stepper").children) {
      item.hidden = isFirst && ["propose", "review"].includes(item.dataset.step);
      const [at, here] = [STEPS.indexOf(item.dataset.step), STEPS.indexOf(now)];
      item.dataset.state = at === here ? "now" : at < here ? "done" : "todo";
      if (at === here) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    }
  }

  // Curves and samples of the newest train run

  async function follow(run, trainedRounds) {
    const key = `${run.id} ${run.state} ${run.stage} ${run.step}`;
    if (key === followed || !isShown(root)) return;
    followed = key;
    const detail = await ask(`${base}/runs/${run.id}`).catch(() => null);
    // What was asked earlier may come later.
    if (followed !== key) return;
    if (!detail) {
      followed = null;
      return askAnew();
    }
    const card = find("curves");
    const part = (name) => card.querySelector(`[data-part="${name}"]`);
    card.hidden = !detail.metrics.length && !detail.samples.steps.length;
    part("title").textContent = `Round ${run.round}${isActive(run) ? ", training" : ""}`;
    const trained = trainedRounds.find((one) => one.round === run.round);
    part("words").textContent =
      trained && run.state === "done" ? afterTraining(trained) : whileTraining(detail.metrics);
    part("note").textContent = detail.metrics.length ? `step ${detail.metrics.at(-1).step}` : "";
    put(part("charts"), [run.id, detail.metrics.at(-1)?.step], () => charts(detail.metrics));
    const kept = trained?.kept ?? 1;
    put(part("samples"), [run.id, detail.samples, kept], () => sampleSheet(run, detail.samples, kept));
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
        title: "Drawn towards (+) or away from (−)",
        zero: 0,
        series: [series("winners", "winner_gain", GREEN), series("losers", "loser_gain", RED)],
      }),
      chart({
        title: "Training pairs ranked right",
        zero: 0.5,
        series: [series("", "accuracy", GREY)],
        format: percent,
      }),
    ];
  }

  function sampleSheet(run, samples, kept) {
    const [first, last] = [samples.steps[0], samples.steps.at(-1)];
    if (last == null || !samples.prompts.length) return [];
    const one = (step, index, words) => ({
      // Of a training that is cut the last images are drawn once more: under another address, since images are
      // kept by the browser; so are those of another project of this name.
      src: `${base}/runs/${run.id}/samples/${step}/${index}?of=${projectId() ?? ""}${kept < 1 && step === last ? `&kept=${kept}` : ""}`,
      alt: `${samples.prompts[index]}, ${words}`,
      words,
    });
    const image = (step, index, words) => {
      const { src, alt } = one(step, index, words);
      const both = () => [one(first, index, "before"), ...(last > first ? [one(last, index, after)] : [])];
      const large = () => enlarge(samples.prompts[index], both());
      return h("button", { type: "button", class: "sail-plain", title: "Enlarge", onclick: large }, h("img", { src, alt, loading: "lazy" }));
    };
    const after = kept < 1 ? "what is kept" : `step ${last}`;
    const look = (words, shown) => h("p", {}, h("span", {}, words), shown);
    return [
      h(
        "p",
        { class: "sail-dim", style: "margin:1rem 0 .4rem" },
        last > first ? `The same starting noise before this round and ${kept < 1 ? "with what is kept of it" : `at its step ${last}`}` : "Before this round",
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
              look("before", image(first, index, "before")),
              // The place of what comes is kept, so that nothing moves when it does.
              last > first
                ? look(after, image(last, index, after))
                : look("not drawn yet", h("i", { class: "sail-blank" })),
            ),
            h("figcaption", {}, prompt),
          ),
        ),
      ),
    ];
  }

  root.dataset.mounted = "yes";
}
