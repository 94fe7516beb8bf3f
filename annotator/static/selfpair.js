// One self pair as a card: two images, what the judge says, what a person decided. Knows no other pair.

import { enlargeButton, enlargePair } from "/ui/enlarge.js";
import { h } from "/ui/page.js";
import { figure } from "/ui/words.js";

const OPEN = {
  approve: { words: "Approve", key: "A", says: "You looked, and agree with the model" },
  flip: { words: "Flip", key: "F", more: ": the other wins", says: "Learned the other way round: the other wins" },
  drop: { words: "Drop", key: "X", says: "Not learned from" },
};
const BLIND = {
  left: { words: "Left", key: "1", says: "The left one is better" },
  right: { words: "Right", key: "2", says: "The right one is better" },
  drop: { words: "Neither", key: "X", says: "Not learned from" },
};
const CLEARNESS = { sure: "Clear", "fairly sure": "Fairly clear", "a guess": "A guess" };
const CLEAREST = 2; // times a typical margin
const DONE = { approve: "Approved", flip: "Flipped", drop: "Dropped", chosen: "Chosen" };

const otherSide = (side) => (side === "left" ? "right" : "left");

/** approve, flip or drop; chosen where nobody is told what the judge chose; null where nothing is decided. */
export function decisionOf({ said, judge }) {
  if (!said || said.choice === "drop") return said?.choice ?? null;
  if (!judge) return "chosen";
  return said.choice === judge.side ? "approve" : "flip";
}

/** The side that a decision stands for, or `drop`; null where it means nothing, as flip in the audit. */
export function choiceFor(pair, name) {
  if (name === "left" || name === "right" || name === "drop") return name;
  if (!pair.judge) return null;
  return name === "approve" ? pair.judge.side : otherSide(pair.judge.side);
}

/** What a side is: the model's choice, or a person's. */
function roleOf({ said, judge }, which) {
  const better = said ? said.choice : judge?.side;
  if (which !== better) return "";
  return better === judge?.side ? "model’s choice" : said?.by === "you" ? "your choice" : "chosen";
}

/** Whose choice a side is, if it is one. */
const markOf = (pair, which) => roleOf(pair, which) && (which === pair.judge?.side ? "model" : "person");

const isDecided = (pair, name) => [decisionOf(pair), pair.said?.choice].includes(name);

/** What can be said of a pair where it stands alone: a button each, with the key that does the same. */
const actionsOf = (pair) =>
  Object.entries(pair.judge ? OPEN : BLIND).map(([name, { words, key, more, says }]) => ({
    key: key.toLowerCase(),
    words,
    more,
    title: says,
    "data-testid": `enlarged-${name}`,
    "aria-pressed": String(isDecided(pair, name)),
  }));

/** As large as the window allows, with what can be said of it. `state`, `count` and `pressed` are as in `enlarge`. */
export const enlargeSelf = (pair, { state, count, pressed }) =>
  enlargePair(pair, {
    words: (side) => [side, roleOf(pair, side)].filter(Boolean).join(" · "),
    mark: (side) => markOf(pair, side),
    state: state || (pair.judge ? figures(pair.judge) : ""),
    count,
    actions: [...actionsOf(pair), { key: "z", words: "Undo", "data-testid": "enlarged-undo" }],
    pressed,
  });

/** `enlarge` shows it as large as the window allows. */
export function selfPair(pair, number, enlarge) {
  const own = h(
    "article",
    { class: "sail-self", tabindex: "-1", "data-testid": `self-${number}`, "data-pair": pair.id },
    h("div", { class: "sail-asked" }, h("p", {}, pair.prompt), enlargeButton(pair, { title: "Enlarge. Key: E", onclick: enlarge })),
    h("div", { class: "sail-two" }, side(pair, "left"), side(pair, "right")),
    pair.judge ? opinion(pair.judge) : h("p", { class: "sail-certainty" }, "Which one is better?"),
    h(
      "div",
      { class: "sail-decide", role: "group", "aria-label": "Decision" },
      Object.entries(pair.judge ? OPEN : BLIND).map(([name, { words, key, says }]) =>
        h("button", { type: "button", "data-decision": name, title: `${says}. Key: ${key}` }, words),
      ),
    ),
    h("p", { class: "sail-who" }),
  );
  own.toggleAttribute("data-blind", !pair.judge);
  show(own, pair);
  return own;
}

const side = (pair, which) =>
  h(
    "figure",
    { "data-side": which },
    h("img", { loading: "lazy", src: pair[which], alt: `${pair.prompt}, ${which}` }),
    h("figcaption", {}),
  );

const nats = (value) => (Math.abs(value) < 0.1 ? value.toFixed(3).replace("-", "\u2212") : figure(value));

/** How clear a pair is, and over what clearness pairs are approved, in the same words. */
export const typical = (times) => `${times} × typical`;

/** The same in a sentence, beside a typical pair. */
export const asClear = (times, pair) =>
  times === 1 ? `as clear as a typical ${pair}, or clearer` : `at least ${times} × as clear as a typical ${pair}`;

/** What the judge makes of it, in figures. */
function figures({ certainty, clarity, rewards, margin, margin_error, p }) {
  const beside = `margin ${nats(margin)} ± ${nats(margin_error)}, ${typical(clarity.toFixed(2))}`;
  return `${CLEARNESS[certainty]}: ${beside}; rewards ${nats(rewards.left)} and ${nats(rewards.right)}; p ${p.toFixed(2)}.`;
}

function opinion(judge) {
  const share = Math.min(1, Math.max(0, judge.clarity / CLEAREST));
  return h(
    "p",
    { class: "sail-certainty", title: figures(judge) },
    CLEARNESS[judge.certainty],
    h("i", { style: `--share: ${Math.round(100 * share)}%` }),
  );
}

/** Brings a card up to what is said of its pair now. */
export function show(own, pair) {
  const decision = decisionOf(pair);
  own.dataset.decision = decision ?? "none";
  for (const one of own.querySelectorAll("figure")) {
    const role = roleOf(pair, one.dataset.side);
    one.toggleAttribute("data-preferred", role !== "");
    one.querySelector("figcaption").textContent = role;
  }
  for (const button of own.querySelectorAll("button[data-decision]")) {
    button.setAttribute("aria-pressed", String(isDecided(pair, button.dataset.decision)));
  }
  own.querySelector(".sail-who").textContent = pair.said ? who(decision, pair.said) : "Not reviewed";
}

function who(decision, { by, at, in_bulk }) {
  return `${DONE[decision]} by ${by}${in_bulk ? " in bulk" : ""}, ${when(at)}`;
}

/** The time of today, the day and time of any other day. */
export function when(at) {
  const [then, now] = [new Date(1000 * at), new Date()];
  const today = then.toDateString() === now.toDateString();
  return then.toLocaleString("en", { ...(today ? {} : { dateStyle: "medium" }), timeStyle: "short" });
}
