// Review: self pairs as a grid, the audit first. Brings pairs, decisions, keys, bulk and training together.

import { bulk as bulkApproval } from "/ui/bulk.js";
import { Cards } from "/ui/cards.js";
import { ask, askAnew, base, onStatus, Refused, trouble } from "/ui/core.js";
import { decisions } from "/ui/decisions.js";
import { closeEnlarged, isEnlarged } from "/ui/enlarge.js";
import { GUARD_MS, keyName, leaveToKeys, TOO_FAST } from "/ui/keys.js";
import { mixup as mixupRatio } from "/ui/mixup.js";
import { auditSays, counted, late, nothing, proposing } from "/ui/overview.js";
import { drawUnsent, isShown, markShown, putParts } from "/ui/page.js";
import { keepUp } from "/ui/runs.js";
import { selection } from "/ui/selection.js";
import { choiceFor, decisionOf, enlargeSelf } from "/ui/selfpair.js";
import { plural } from "/ui/words.js";

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
  const cards = new Cards(grid, selected, {
    decide: (index, name) => decide([index], name, { advance: false }),
    enlarge: () => enlargeSelected(),
    refuse: announce,
  });
  let review = { run: null, pairs: [] }; // as the server gave it, with what was decided here since
  let status = null;
  let guardedUntil = -Infinity; // nobody has looked at a pair that came in the place of another

  onStatus((now) => {
    status = now;
    if ((now.review?.run ?? null) !== review.run) load();
    else if (now.review && cards.differ(now.review)) {
      // Others decided meanwhile, or this person in another tab.
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
    const selectAgain = cards.hold();
    const audited = review.audit?.done;
    await said.inOrder(takeAnew);
    // The next key would decide a pair that nobody has looked at.
    if (review.audit?.done !== audited) selected.clear();
    else selectAgain();
    draw();
    mixup.refresh(review);
  }

  async function takeAnew() {
    const found = await ask(`${base}/review`);
    const others = found.run !== review.run;
    cards.takeIn(found, said.unsent());
    review = { ...found, pairs: cards.pairs };
    if (!others) return;
    selected.clear();
    said.recall(review.pairs, bulk.own(review));
    if (found.run !== null) mixup.load(found);
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
    write("review-counts", counted(review));
    find("review-undo").disabled = !said.undoable();
    write("review-late", late(status.runs));
    drawAudit();
    bulk.show(review);
    mixup.show(audit(), status.runs);
  }

  /** How far the audit is, with what was said a moment ago. */
  function audit() {
    const decided = review.pairs.filter((pair) => pair.in_audit && pair.said).length;
    return review.audit.done ? review.audit : { ...review.audit, decided };
  }

  function drawAudit() {
    const [heading, words] = auditSays(audit(), review.pairs.length);
    write("audit-title", heading);
    write("audit-text", words);
    find("audit-help").hidden = review.audit.done;
    find("review-help").hidden = !review.audit.done || !review.pairs.length;
  }

  function drawMessage(any) {
    const place = find("review-message");
    place.hidden = any || !status;
    if (place.hidden) return;
    putParts(place, nothing(status));
    if (place.querySelector(".sail-run")) keepUp(place, proposing(status), status);
  }

  /** What stays as it is, is not read out again. */
  function write(id, words) {
    if (find(id).textContent !== words) find(id).textContent = words;
  }

  function announce(text) {
    find("review-announcement").textContent = text;
  }

  // Decisions

  function changed(pairs) {
    cards.show(pairs);
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

  // Keys

  function move(step, extend) {
    guardedUntil = -Infinity;
    const at = selected.at();
    if (at === null) toUndecided(-1);
    else selected.select(at + step, { extend });
  }

  function press(name) {
    const indices = selected.indices();
    if (cards.haveMoved) return announce(MOVED);
    // An audit pair can still be given another choice.
    if (isEnding() && indices.every((index) => review.pairs[index].judge)) return announce(ENDING);
    // Sides are random, so that one side means something else for every pair.
    if (indices.length > 1 && (name === "left" || name === "right"))
      return announce("Choose a side for one pair at a time.");
    if (performance.now() < guardedUntil) return announce(TOO_FAST);
    decide(indices, name);
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
    else if (selected.at() === null && !(KEYS[key] && (isEnding() || cards.haveMoved))) {
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
    enlargeSelf(pair, {
      state,
      count: `${alike.indexOf(pair) + 1} of ${alike.length}`,
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

  said.send();
  root.dataset.mounted = "yes";
}
