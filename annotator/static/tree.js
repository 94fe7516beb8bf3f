// The rounds as a tree: which came from which, which one the loop goes on from, which were refused. Base is the
// root; the way from it to the current round is one straight line, and what lies beside it is in lanes of its own.

import { ask, base } from "/ui/core.js";
import { actionButton, h } from "/ui/page.js";
import { dayAndTime, figure, interval, outOf, percent, plural, roundName, roundTitle } from "/ui/words.js";

const LANE_PX = 18;

/** `place` holds the tree; the function that comes back draws it from a status. */
export function tree(place, said) {
  const open = new Set(); // rounds whose figures are shown
  let focusOn = null; // what has the focus after a button that goes away when the tree is drawn again

  function draw(status) {
    if (!status.rounds.length)
      return h(
        "p",
        { class: "sail-dim" },
        "No round is trained yet. The first one starts from the base model, and the others grow from it here.",
      );
    const nodes = layOut(status.rounds, status.current);
    return h(
      "ol",
      { class: "sail-tree", style: `--lanes:${1 + Math.max(...nodes.map((node) => node.lane))}` },
      nodes.map((node) => row(node, nodes, status)),
    );
  }

  function row(node, nodes, status) {
    const { round } = node;
    return h(
      "li",
      { "data-testid": round ? `round-${round.round}` : "round-base", "data-state": stateOf(node, status) },
      rail(node, nodes),
      h("div", { class: "sail-round" }, ...(round ? [head(round, status), ...facts(round, status)] : [rootHead(status)])),
    );
  }

  const rootHead = (status) =>
    h(
      "div",
      { class: "sail-row" },
      h("strong", {}, "Base model"),
      status.current == null ? chip("current") : makeCurrent(null),
    );

  function head(round, status) {
    return h(
      "div",
      { class: "sail-row" },
      h("strong", {}, roundTitle(round.round)),
      status.current === round.round && chip("current"),
      !round.accepted && chip("failed", "not accepted"),
      status.current !== round.round && makeCurrent(round.round, round.accepted),
    );
  }

  function facts(round, status) {
    const run = status.runs.find((one) => one.job === "train" && one.round === round.round);
    const line = [
      `from ${roundName(round.parent)}`,
      round.accepted && "accepted",
      `${round.human_pairs} human + ${round.self_pairs} self pairs`,
      round.tie_pairs > 0 && `${plural(round.tie_pairs, "tie")} held`,
      judged(round.judge_accuracy),
      run && dayAndTime(run.at),
    ];
    return [
      ...round.reasons.map((reason) => h("p", { class: "sail-error" }, reason)),
      round.accepted &&
        round.cut_because.length > 0 &&
        h(
          "p",
          { class: "sail-dim", "data-testid": `cut-${round.round}` },
          `${percent(round.kept)} of what it learned is kept, since all of it would go too far: ${round.cut_because.join(" ")}`,
        ),
      h("p", { class: "sail-dim" }, line.filter(Boolean).join(" · ")),
      round.left_out && h("p", { class: "sail-dim" }, round.left_out),
      figures(round),
    ];
  }

  function figures(round) {
    const own = h(
      "details",
      { open: open.has(round.round) },
      h("summary", { "data-testid": `figures-${round.round}`, "aria-label": `Figures of round ${round.round}` }, "Figures"),
      h(
        "dl",
        {},
        figuresOf(round).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
      ),
    );
    own.addEventListener("toggle", () => (own.open ? open.add(round.round) : open.delete(round.round)));
    return own;
  }

  function makeCurrent(round, accepted = true) {
    const words = accepted ? "Make current" : "Make current anyway";
    const own = actionButton(words, `make-current-${round ?? "base"}`, async () => {
      await ask(`${base}/current`, { round });
      // Base has no figures: the first thing after it.
      focusOn = round === null ? "summary" : `[data-testid="figures-${round}"]`;
      said.textContent = `${roundTitle(round)} is current. The next round goes on from it, and no round is lost.`;
    });
    // It begins with what is seen on it: who speaks to the page says that.
    own.ariaLabel = `${words}: ${roundName(round)}`;
    own.title = `The next round goes on from ${roundName(round)}; the others stay`;
    return own;
  }

  return {
    draw,
    /** Who made a round current by key goes on from that round, not from the top of the page. */
    drawn() {
      if (focusOn === null) return;
      place.querySelector(focusOn)?.focus();
      focusOn = null;
    },
  };
}

const chip = (state, words = state) => h("span", { class: "sail-chip", "data-state": state }, words);

function stateOf({ round }, status) {
  if ((round?.round ?? null) === status.current) return "current";
  return !round || round.accepted ? "accepted" : "refused";
}

// Figures

function judged(share) {
  return share.value == null ? null : `of pairs kept aside it agrees with people on ${outOf(share)}`;
}

function figuresOf(round) {
  const ratio = (value) => (value == null ? "not measured" : `× ${value.toFixed(2)}`);
  return [
    ["Agrees with people, pairs kept aside", interval(round.judge_accuracy)],
    ["Agrees with people, pairs learned", interval(round.human_agreement)],
    ["Diversity against base", ratio(round.diversity_ratio)],
    ["Saturation against base", ratio(round.saturation_ratio)],
    ["Kept of the training", percent(round.kept)],
    ["Drawn towards winners (+)", gain(round.winner_gain)],
    ["Away from losers (−)", gain(round.loser_gain)],
    ["Mixup ratio", percent(round.self_fraction)],
    ...reviewed(round),
    ["Adapter", h("code", {}, round.sha256)],
  ];
}

const gain = (value) => (value == null ? "not measured" : `${value > 0 ? "+" : ""}${figure(value)}`);

/** How the review stood when a person asked for this round. */
function reviewed({ audit, without_audit, by }) {
  if (!audit) return [];
  const words = without_audit ? "trained without the audit" : `${audit.wrong} of ${audit.pairs} wrong`;
  return [["Audit", by ? `${words} (asked for by ${by})` : words]];
}

// Lanes

/** Base and the rounds, oldest first, each with a lane: 0 for the way to the current round. */
function layOut(rounds, current) {
  const nodes = [null, ...rounds].map((round, at) => ({ round, at, lane: 0 }));
  const nodeOf = new Map(nodes.map((node) => [node.round?.round ?? null, node]));
  const main = new Set();
  for (let one = current; one !== undefined && !main.has(one); one = nodeOf.get(one)?.round?.parent) main.add(one);
  const spans = []; // lane -> rows that a line takes
  for (const node of nodes.slice(1)) {
    node.parent = nodeOf.get(node.round.parent) ?? nodes[0];
    node.lane = main.has(node.round.round) ? 0 : free(spans, node);
    (spans[node.lane] ??= []).push([node.parent.at + 1, node.at]);
  }
  return nodes;
}

/** The parent's own lane where nothing else is in it, else the nearest free one beside the main line. */
function free(spans, { parent, at }) {
  const isFree = (lane) => !(spans[lane] ?? []).some(([from, to]) => from <= at && to >= parent.at + 1);
  if (parent.lane && isFree(parent.lane)) return parent.lane;
  let lane = 1;
  while (!isFree(lane)) lane += 1;
  return lane;
}

/** Lines that end here, go by, or begin here; words say the same, so it is for the eye alone. */
function rail(node, nodes) {
  const x = (lane) => `${(lane + 0.5) * LANE_PX}px`;
  const line = (kind, lane, more = {}) =>
    h("i", { class: `sail-${kind}`, style: style({ left: x(lane), ...more }) });
  const parts = [];
  for (const other of nodes.slice(1)) {
    const begins = other.parent.at === node.at;
    if (other === node) parts.push(line("arrives", node.lane));
    else if (other.parent.at < node.at && other.at > node.at) parts.push(line("passes", other.lane));
    else if (begins && other.lane === node.lane) parts.push(line("leaves", node.lane));
    else if (begins) {
      const [from, to] = [node.lane, other.lane].sort((a, b) => a - b);
      const side = other.lane > node.lane ? "right" : "left";
      parts.push(
        h("i", { class: `sail-forks sail-${side}`, style: style({ left: x(from), width: `${(to - from) * LANE_PX}px` }) }),
      );
    }
  }
  return h("span", { class: "sail-rail", "aria-hidden": "true" }, parts, line("dot", node.lane));
}

const style = (values) =>
  Object.entries(values)
    .map(([name, value]) => `${name}:${value}`)
    .join(";");
