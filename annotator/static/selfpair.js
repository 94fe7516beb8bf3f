// One self pair as a card: two images, what the judge says, what a person decided. Knows no other pair.

import { enlargeButton } from "/ui/enlarge.js";
import { h } from "/ui/page.js";
import { figure } from "/ui/words.js";

const OPEN = { approve: ["Approve", "A"], flip: ["Flip", "F", ": the other wins"], drop: ["Drop", "X"] };
const BLIND = { left: ["Left", "1"], drop: ["Neither", "X"], right: ["Right", "2"] };
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
export function roleOf({ said, judge }, which) {
  const better = said ? said.choice : judge?.side;
  if (which !== better) return "";
  return better === judge?.side ? "model’s choice" : said?.by === "you" ? "your choice" : "chosen";
}

/** Whose choice a side is, if it is one. */
export const markOf = (pair, which) => roleOf(pair, which) && (which === pair.judge?.side ? "model" : "person");

const isDecided = (pair, name) => [decisionOf(pair), pair.said?.choice].includes(name);

/** What can be said of a pair where it stands alone: a button each, with the key that does the same. */
export const actionsOf = (pair) =>
  Object.entries(pair.judge ? OPEN : BLIND).map(([name, [words, key, more]]) => ({
    key: key.toLowerCase(),
    words,
    more,
    "data-testid": `enlarged-${name}`,
    "aria-pressed": String(isDecided(pair, name)),
  }));

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
      Object.entries(pair.judge ? OPEN : BLIND).map(([name, [title, key]]) =>
        h("button", { type: "button", "data-decision": name, title: `Key: ${key}` }, title),
      ),
    ),
    h("p", { class: "sail-who" }),
  );
  own.toggleAttribute("data-blind", !pair.judge);
  show(own, pair);
  return own;
}

function side(pair, which) {
  return h(
    "figure",
    { "data-side": which },
    h("img", { loading: "lazy", src: pair[which], alt: `${pair.prompt}, ${which}` }),
    h(
      "figcaption",
      {},
      h("span", { "data-role": which }),
      pair.judge && h("span", { title: "implicit reward" }, nats(pair.judge.rewards[which])),
    ),
  );
}

const nats = (value) => (Math.abs(value) < 0.1 ? value.toFixed(3).replace("-", "\u2212") : figure(value));

/** How clear a pair is, and over what clearness pairs are approved, in the same words. */
export const typical = (times) => `${times} × typical`;

function opinion({ certainty, clarity, margin, margin_error, p }) {
  return h(
    "p",
    { class: "sail-certainty" },
    certainty[0].toUpperCase() + certainty.slice(1),
    h(
      "small",
      {},
      `margin ${nats(margin)} ± ${nats(margin_error)}, ${typical(clarity.toFixed(2))} · p ${p.toFixed(2)}`,
    ),
  );
}

/** Brings a card up to what is said of its pair now. */
export function show(own, pair) {
  const decision = decisionOf(pair);
  own.dataset.decision = decision ?? "none";
  for (const one of own.querySelectorAll("figure")) {
    const role = roleOf(pair, one.dataset.side);
    one.toggleAttribute("data-preferred", role !== "");
    one.querySelector("[data-role]").textContent = role;
  }
  for (const button of own.querySelectorAll("button[data-decision]")) {
    button.setAttribute("aria-pressed", String(isDecided(pair, button.dataset.decision)));
  }
  own.querySelector(".sail-who").textContent = pair.said ? who(decision, pair.said) : "";
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
