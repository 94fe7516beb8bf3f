// Review: self pairs as a grid, the audit first. Brings pairs, decisions, keys, bulk and training together.

import { bulk as bulkApproval } from "/ui/bulk.js";
import { ask, askAnew, base, isActive, onStatus, openTab, Refused, trouble } from "/ui/core.js";
import { decisions } from "/ui/decisions.js";
import { closeEnlarged, enlargePair, isEnlarged } from "/ui/enlarge.js";
import { GUARD_MS, keyName, leaveToKeys, TOO_FAST } from "/ui/keys.js";
import { mixup as mixupRatio } from "/ui/mixup.js";
import { actionButton, drawUnsent, h, isShown, markShown, putParts, text, title } from "/ui/page.js";
import { keepUp, runBlock } from "/ui/runs.js";
import { selection } from "/ui/selection.js";
import { actionsOf, choiceFor, decisionOf, figures, markOf, roleOf, selfPair, show } from "/ui/selfpair.js";
import { FEW, interval, plural, POOR } from "/ui/words.js";

const KEYS = {
  a: "approve",
  f: "flip",
  x: "drop",
  0: "drop",
  9: "drop",
  1: "left",
  2: "right",
  ArrowLeft: "left",
  ArrowRight: "right",
};
const PARTS = ["audit", "open", "decided"];
const DOUBLE_MS = 500; // what browsers take for a double click
const MOVED_MS = 1000; // who goes by key has presses on their way when the cards change places
const MOVED = "The pairs have just changed places. Look, then press again.";
const ENDING = "The audit is decided. Its last decisions are being sent.";
const SAID = {
  approve: "Approved.",
  flip: "Flipped: your choice from now on.",
  drop: "Dropped.",
  chosen: "Chosen.",
};

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const grid = find("review-grid");
  const selected = selection(grid);
  const said = decisions({
    changed,
    heard,
    moved: () => drawUnsent(find("review-unsent"), said.unsent().size, said.failing()),
  });
  const bulk = bulkApproval(root, { said, changed: refresh, look });
  const mixup = mixupRatio(root);
  const headings = {
    audit: h("h3", {}, "Audit sample, chosen at random"),
    open: h("h3", {}, "The others, least clear first"),
    decided: h("h3", {}, "Decided already"),
  };
  let review = { run: null, pairs: [] }; // as the server gave it, with what was decided here since
  let cards = [];
  let status = null;
  let clicked = { card: null, at: -Infinity };
  let movedAt = -Infinity; // when cards last took other places
  let guardedUntil = -Infinity; // nobody has looked at a pair that came in the place of another

  onStatus((now) => {
    status = now;
    if ((now.review?.run ?? null) !== review.run) load();
    else if (differs(now.review)) {
      // Told once only, while something is on its way, it would be missed.
      if (said.idle()) refresh().catch(askAnew);
      else askAnew();
    }
    draw();
  });

  // Pairs

  function load() {
    return said
      .inOrder(async () => {
        // Another load may have brought them meanwhile.
        if ((status.review?.run ?? null) !== review.run) await takeAnew();
        draw();
        trouble("", "not loaded");
      })
      .catch((error) => {
        askAnew();
        trouble(error instanceof Refused ? error.message : "The pairs could not be loaded. They are asked for again.", "not loaded");
      });
  }

  /** The same pairs as they stand now: the audit is over, or many were decided at once. */
  async function refresh() {
    const chosen = selected.indices().map((index) => review.pairs[index]);
    const ends = selected.ends().map((index) => review.pairs[index]);
    const focused = grid.contains(document.activeElement);
    const audited = review.audit?.done;
    await said.inOrder(takeAnew);
    // The next key would decide a pair that nobody has looked at.
    if (review.audit?.done !== audited) selected.clear();
    else selectAgain(ends, chosen, focused && !grid.contains(document.activeElement));
    draw();
    mixup.refresh(review);
  }

  /** What was selected, wherever it is now; of a range that others came into, the end alone. */
  function selectAgain(ends, chosen, focus) {
    const [from, to] = ends.map((pair) => review.pairs.indexOf(pair));
    if (to < 0) return;
    selected.select(from, { focus: false });
    selected.select(to, { extend: true, focus });
    if (selected.indices().some((index) => !chosen.includes(review.pairs[index]))) selected.select(to, { focus: false });
  }

  async function takeAnew() {
    const found = await ask(`${base}/review`);
    const others = found.run !== review.run;
    takeIn(found);
    if (!others) return;
    selected.clear();
    said.recall(review.pairs, bulk.own(review));
    if (found.run !== null) mixup.load(found);
  }

  /** Others decided meanwhile, or this person in another tab. */
  function differs(counts) {
    if (!counts) return false;
    const known = review.pairs.filter((pair) => pair.judge);
    const count = (pairs, name) => pairs.filter((pair) => decisionOf(pair) === name).length;
    return (
      count(review.pairs, null) !== counts.unreviewed ||
      ["approve", "flip", "drop"].some((name) => count(known, name) !== counts[name])
    );
  }

  function takeIn(found) {
    const known = new Map(review.pairs.map((pair, index) => [pair.id, [pair, cards[index]]]));
    const unsent = said.unsent();
    // What is undecided comes first; later nothing moves under a finger, but once, when the audit is over.
    const anew = found.run !== review.run || found.audit?.done !== review.audit?.done;
    const place = new Map(review.pairs.map((pair, index) => [pair.id, index]));
    const made = found.pairs.map((now, index) => {
      const [pair, card] = known.get(now.id) ?? [{}];
      const fits = card && Boolean(pair.judge) === Boolean(now.judge);
      // The same object as before, which undo knows. What the server has not heard of is newer.
      Object.assign(pair, now, { run: found.run }, unsent.has(now.id) && { said: unsent.get(now.id) });
      if (anew || !pair.part) pair.part = partOf(pair, found.audit.done);
      if (fits) show(card, pair);
      return [pair, fits ? card : newCard(pair, index)];
    });
    const key = anew ? ([pair]) => PARTS.indexOf(pair.part) + (pair.said ? 0.5 : 0) : ([pair]) => place.get(pair.id) ?? Infinity;
    made.sort((one, two) => (key(one) === key(two) ? 0 : key(one) - key(two)));
    review = { ...found, pairs: made.map(([pair]) => pair) };
    cards = made.map(([, card]) => card);
    // What the first part is the page says above it.
    const parts = made.flatMap(([pair, card], at) =>
      at && made[at - 1][0].part !== pair.part ? [headings[pair.part], card] : [card],
    );
    // A card that is taken out and put back loses the focus.
    if (parts.length !== grid.children.length || parts.some((part, at) => part !== grid.children[at])) {
      if (grid.children.length) movedAt = performance.now();
      grid.replaceChildren(...parts);
    }
  }

  /** In which part of the page a pair stands. */
  const partOf = (pair, done) => (done && pair.said ? "decided" : done || !pair.in_audit ? "open" : "audit");

  function newCard(pair, index) {
    const card = selfPair(pair, index, () => {
      selected.select(cards.indexOf(card), { focus: false });
      enlargeSelected();
    });
    card.addEventListener("click", (event) => {
      // Now: pairs before it may have gone.
      const index = cards.indexOf(card);
      if (event.shiftKey) return selected.select(index, { extend: true, focus: false });
      selected.select(index, { focus: false });
      const button = event.target.closest("button");
      const side = event.target.closest("img") && event.target.closest("figure").dataset.side;
      // As on Label, a click on an image chooses it.
      const name = button ? button.dataset.decision : !review.pairs[index].judge && side;
      if (!name) return;
      const now = performance.now();
      // The second of a double click would take back what the first decided.
      const isDouble = clicked.card === card && now < clicked.at + DOUBLE_MS;
      clicked = { card, at: now };
      if (isDouble || now < movedAt + GUARD_MS) return announce(TOO_FAST);
      decide([index], name, { advance: false });
    });
    return card;
  }

  function look(pair) {
    selected.select(review.pairs.indexOf(pair));
  }

  // The page

  function draw() {
    const any = review.run !== null && Boolean(status?.review);
    find("reviewing").hidden = !any;
    drawMessage(any);
    if (!any) return;
    if (find("review-counts").textContent !== counted()) find("review-counts").textContent = counted();
    find("review-undo").disabled = !said.undoable();
    const training = status.runs.find((run) => run.job === "train" && isActive(run));
    const late = training
      ? `Round ${training.round} is trained on what was decided before. What you flip now counts from the next round on; the rest only where this training is stopped and the round trained anew.`
      : "";
    if (find("review-late").textContent !== late) find("review-late").textContent = late;
    drawAudit();
    bulk.show(review);
    mixup.show(audit(), status.runs);
  }

  /** How far the audit is, with what was said a moment ago. */
  function audit() {
    const decided = review.pairs.filter((pair) => pair.in_audit && pair.said).length;
    return review.audit.done ? review.audit : { ...review.audit, decided };
  }

  function counted() {
    if (!review.pairs.length) return `The model found no pair for round ${review.round}.`;
    const count = (name) => review.pairs.filter((pair) => decisionOf(pair) === name).length;
    const open = count(null);
    const decided = review.audit.done
      ? [
          `${count("approve")} approved`,
          `${count("flip")} flipped (people’s choice now)`,
          `${count("drop")} dropped`,
        ]
      : [`${review.pairs.length - open} decided`];
    const rest = open ? `${open} not reviewed` : "all reviewed";
    return `${plural(review.pairs.length, "pair")} that the model chose for round ${review.round}: ${decided.join(", ")}, ${rest}.`;
  }

  function drawAudit() {
    const { pairs, decided, done, error } = audit();
    const none = review.pairs.length === 0;
    find("audit-help").hidden = done;
    find("review-help").hidden = !done || none;
    if (none) {
      find("audit-title").textContent = "The model found no pair";
      find("audit-text").textContent =
        "None of the images it drew differ clearly enough to it. Label more pairs, or train another round on yours alone.";
      return;
    }
    if (!done) {
      find("audit-title").textContent = `Audit: ${decided} of ${pairs} decided`;
      find("audit-text").textContent =
        `${which(pairs, review.pairs.length)}. Say which image is better, without knowing what the model chose. Then you see how often it is wrong.`;
      return;
    }
    const wrong = Math.round(error.value * error.n);
    find("audit-title").textContent = `Audit: the model was wrong in ${wrong} of ${error.n}`;
    // Of a few the count above says all there is to say.
    const share = error.n < FEW ? "" : `That is ${interval(error)}. `;
    find("audit-text").textContent =
      `${share}“Neither” counted as wrong; changes from now on do not alter this figure.${advice(error)}`;
  }

  function drawMessage(any) {
    const place = find("review-message");
    place.hidden = any || !status;
    if (place.hidden) return;
    const proposing = status.runs.find((run) => run.job === "propose" && isActive(run));
    const words = proposing
      ? "The model draws new images and chooses among them. Its pairs come here when it is done."
      : status.next.name === "propose"
        ? `The model of round ${status.current} has not drawn anything to choose from for round ${status.next.round} yet.`
        : "After round 0 new images are drawn, and the model picks winners itself. They come here before it learns from them.";
    putParts(place, [
      proposing ? runBlock(proposing, "review") : title("Nothing to review yet"),
      text(words),
      !proposing && actionButton("Open Rounds", "review-rounds", () => openTab("rounds"), true),
    ]);
    if (proposing) keepUp(place, proposing, status);
  }

  function announce(text) {
    find("review-announcement").textContent = text;
  }

  // Decisions

  function changed(pairs) {
    // What is undone may have left the page.
    for (const pair of pairs.filter((one) => review.pairs.includes(one))) show(cards[review.pairs.indexOf(pair)], pair);
    draw();
  }

  function heard(answer) {
    // What was not kept is taken back on the page.
    if (Object.keys(answer.refused).length) refresh().catch(askAnew);
    // Meanwhile another round may have been trained, and there is nothing to review any more.
    if (answer.review?.audit.done && !review.audit?.done) showAudited();
    else if (review.audit?.done) mixup.planSoon();
  }

  /** What the audit came to is what it was made for, and stands above the cards. */
  function showAudited() {
    refresh()
      .then(() => {
        closeEnlarged();
        announce(`${find("audit-title").textContent}. ${find("audit-text").textContent}`);
        find("audit-title").scrollIntoView({ block: "center" });
      })
      .catch(askAnew);
  }

  /** The same decision on all of them; where all have it already, it is taken back. */
  function decide(indices, name, { advance = true } = {}) {
    const entries = indices
      .map((index) => [review.pairs[index], choiceFor(review.pairs[index], name)])
      .filter(([, choice]) => choice);
    if (!entries.length) return announce("This pair is in the audit: press 1 or 2 for the better side.");
    const again = entries.every(([pair, choice]) => pair.said?.choice === choice);
    said.say(again ? entries.map(([pair]) => [pair, null]) : entries);
    const spoken = SAID[decisionOf(entries[0][0])];
    announce(again ? "Taken back." : entries.length > 1 ? `${plural(entries.length, "pair")}: ${spoken}` : spoken);
    if (advance && !again) toUndecided(indices.at(-1), !entries[0][0].judge);
  }

  /** Whether nothing of the audit is open here, although the app has not said yet what it came to. */
  function isEnding() {
    const { done, decided, pairs } = audit();
    return !done && decided === pairs;
  }

  /** To the next card that nobody decided, from the top again where there is none below. */
  function toUndecided(after, wasBlind = false) {
    // What comes after the audit is another task, and its pairs are about to change places.
    if (wasBlind && isEnding()) return selected.clear();
    const open = review.pairs.flatMap((pair, index) => (pair.said || (wasBlind && pair.judge) ? [] : [index]));
    const next = open.find((index) => index > after) ?? open[0];
    selected.select(next ?? Math.max(after, 0));
    // On the page the next card was there to be seen before, unless it is judged blind: who goes by key knows it.
    if (wasBlind || isEnlarged() || (next !== undefined && !review.pairs[next].judge))
      guardedUntil = performance.now() + GUARD_MS;
  }

  function undo() {
    const pairs = said.undo();
    if (!pairs) return announce("Nothing to undo.");
    if (!pairs.length) return announce("Something else was decided since. It stays.");
    announce("Taken back.");
    look(pairs[0]);
  }

  function move(step, extend) {
    guardedUntil = -Infinity;
    const at = selected.at();
    if (at === null) toUndecided(-1);
    else selected.select(at + step, { extend });
  }

  document.addEventListener("keydown", (event) => {
    const key = keyName(event);
    const undoes = key === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey;
    if (((event.ctrlKey || event.metaKey) && !undoes) || event.altKey || event.isComposing) return;
    if (!isShown(grid) || !review.pairs.length || document.querySelector("dialog[open]")) return;
    if (event.target.closest?.("input:not([type=range]), textarea, select, [contenteditable], dialog")) return;
    if (key.startsWith("Arrow") && event.target.closest?.('input, [role="tab"]')) return;
    const closes = (key === "z" || key === "Escape") && bulk.fold();
    if (closes) return event.preventDefault();
    const steps = { j: 1, k: -1 };
    if (!steps[key] && (event.repeat || !(key === "z" || key === "e" || KEYS[key]))) return;
    event.preventDefault();
    if (steps[key]) move(steps[key], event.shiftKey);
    else if (key === "z") undo();
    else if (selected.at() === null && !(KEYS[key] && (isEnding() || hasMoved()))) {
      toUndecided(-1);
      announce("Keys are for the pair in the frame: press again.");
    } else if (key === "e") {
      // What is decided there is the one that is seen.
      selected.select(selected.at());
      enlargeSelected();
    } else press(KEYS[key]);
  });

  /** In the large view keys do what they do on the page, and the next pair takes the place of the one before. */
  function enlargeSelected(state = "") {
    const pair = review.pairs[selected.at()];
    if (!pair) return closeEnlarged();
    const alike = review.pairs.filter((one) => one.part === pair.part);
    enlargePair(pair, {
      words: (side) => [side, roleOf(pair, side)].filter(Boolean).join(" · "),
      mark: (side) => markOf(pair, side),
      state: state || (pair.judge ? figures(pair.judge) : ""),
      count: `${alike.indexOf(pair) + 1} of ${alike.length}`,
      actions: [...actionsOf(pair), { key: "z", words: "Undo", "data-testid": "enlarged-undo" }],
      pressed(key) {
        if (!(key === "j" || key === "k" || key === "z" || KEYS[key])) return false;
        announce("");
        // Meanwhile the pairs may have changed.
        if (review.pairs[selected.at()] !== pair) {
          closeEnlarged();
          return true;
        }
        if (key === "z") undo();
        else if (KEYS[key]) press(KEYS[key]);
        else {
          move(key === "j" ? 1 : -1, false);
          if (review.pairs[selected.at()] === pair) announce(key === "j" ? "This is the last pair." : "This is the first pair.");
        }
        enlargeSelected(find("review-announcement").textContent);
        return true;
      },
    });
  }
  leaveToKeys(root);
  // What is scrolled to stays clear of the bar.
  markShown(grid);
  const bar = find("mix");
  new ResizeObserver(() => root.style.setProperty("--bar", `${bar.offsetHeight}px`)).observe(bar);
  find("review-undo").addEventListener("click", undo);

  const hasMoved = () => performance.now() < movedAt + MOVED_MS;

  function press(name) {
    const indices = selected.indices();
    if (hasMoved()) return announce(MOVED);
    // An audit pair can still be given another choice.
    if (isEnding() && indices.every((index) => review.pairs[index].judge)) return announce(ENDING);
    // Sides are random, so that one side means something else for every pair.
    if (indices.length > 1 && (name === "left" || name === "right"))
      return announce("Choose a side for one pair at a time.");
    if (performance.now() < guardedUntil) return announce(TOO_FAST);
    decide(indices, name);
  }

  said.send();
  root.dataset.mounted = "yes";
}

function advice({ value }) {
  if (value < POOR) return "";
  const says = value > 0.5 ? "The model disagreed with you more often than not." : "That is hardly better than guessing.";
  return ` ${says} Learn little from its pairs: lower their share, or label more first.`;
}

const which = (pairs, all) =>
  pairs < all ? `${plural(pairs, "pair")} of ${all}, chosen at random` : all === 1 ? "The one pair there is" : `All ${all} pairs, as there are so few`;
