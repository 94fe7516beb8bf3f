// The self pairs of a review as cards, each in its place: nothing moves under a finger. Knows no audit and decides
// nothing.

import { GUARD_MS, TOO_FAST } from "/ui/keys.js";
import { h } from "/ui/page.js";
import { decisionOf, selfPair, show } from "/ui/selfpair.js";

const PARTS = ["audit", "open", "decided"];
const DOUBLE_MS = 500; // what browsers take for a double click
const MOVED_MS = 1000; // who goes by key has presses on their way when the cards change places

export class Cards {
  pairs = []; // in their order on the page
  #cards = [];
  #run = null;
  #done; // whether the audit is
  #grid;
  #selected;
  #on;
  #clicked = { card: null, at: -Infinity };
  #movedAt = -Infinity; // when cards last took other places
  #headings = {
    audit: h("h3", {}, "Audit sample, chosen at random"),
    open: h("h3", {}, "The others, least clear first"),
    decided: h("h3", {}, "Decided already"),
  };

  /** `decide` is called with the index of a card and what was clicked on it, `enlarge` where it is to be enlarged;
   * `refuse` says why a click did not count. */
  constructor(grid, selected, { decide, enlarge, refuse }) {
    [this.#grid, this.#selected, this.#on] = [grid, selected, { decide, enlarge, refuse }];
  }

  /** Brings cards up to what is said of their pairs. What is undone may have left the page. */
  show(pairs) {
    for (const pair of pairs.filter((one) => this.pairs.includes(one))) show(this.#cards[this.pairs.indexOf(pair)], pair);
  }

  /** Whether so many are decided otherwise than the server `counts`. */
  differ(counts) {
    const known = this.pairs.filter((pair) => pair.judge);
    const count = (pairs, name) => pairs.filter((pair) => decisionOf(pair) === name).length;
    return (
      count(this.pairs, null) !== counts.unreviewed ||
      ["approve", "flip", "drop"].some((name) => count(known, name) !== counts[name])
    );
  }

  /** Returns what selects the same pairs again, wherever they are then; of a range that others came into, the end
   * alone. */
  hold() {
    const pairsAt = (indices) => indices.map((index) => this.pairs[index]);
    const [chosen, ends] = [pairsAt(this.#selected.indices()), pairsAt(this.#selected.ends())];
    const hasFocus = () => this.#grid.contains(document.activeElement);
    const focused = hasFocus();
    return () => {
      const [from, to] = ends.map((pair) => this.pairs.indexOf(pair));
      if (to < 0) return;
      this.#selected.select(from, { focus: false });
      this.#selected.select(to, { extend: true, focus: focused && !hasFocus() });
      const isOther = (pair) => !chosen.includes(pair);
      if (pairsAt(this.#selected.indices()).some(isOther)) this.#selected.select(to, { focus: false });
    };
  }

  get haveMoved() {
    return performance.now() < this.#movedAt + MOVED_MS;
  }

  /** The pairs as the server `found` them; `unsent` is what was said of some since, by id. */
  takeIn(found, unsent) {
    const done = found.audit?.done;
    const known = new Map(this.pairs.map((pair, index) => [pair.id, [pair, this.#cards[index]]]));
    // What is undecided comes first; later nothing moves under a finger, but once, when the audit is over.
    const anew = found.run !== this.#run || done !== this.#done;
    const place = new Map(this.pairs.map((pair, index) => [pair.id, index]));
    const made = found.pairs.map((now, index) => {
      const [pair, card] = known.get(now.id) ?? [{}];
      const fits = card && Boolean(pair.judge) === Boolean(now.judge);
      // The same object as before, which undo knows. What the server has not heard of is newer.
      Object.assign(pair, now, { run: found.run }, unsent.has(now.id) && { said: unsent.get(now.id) });
      if (anew || !pair.part) pair.part = partOf(pair, done);
      if (fits) show(card, pair);
      return [pair, fits ? card : this.#newCard(pair, index)];
    });
    const key = anew ? ([pair]) => PARTS.indexOf(pair.part) + (pair.said ? 0.5 : 0) : ([pair]) => place.get(pair.id) ?? Infinity;
    made.sort((one, two) => (key(one) === key(two) ? 0 : key(one) - key(two)));
    [this.#run, this.#done] = [found.run, done];
    this.pairs = made.map(([pair]) => pair);
    this.#cards = made.map(([, card]) => card);
    this.#place();
  }

  #place() {
    // What the first part is the page says above it.
    const isNew = (at) => at && this.pairs[at - 1].part !== this.pairs[at].part;
    const parts = this.#cards.flatMap((card, at) => (isNew(at) ? [this.#headings[this.pairs[at].part], card] : [card]));
    const { children } = this.#grid;
    // A card that is taken out and put back loses the focus.
    if (parts.length === children.length && parts.every((part, at) => part === children[at])) return;
    if (children.length) this.#movedAt = performance.now();
    this.#grid.replaceChildren(...parts);
  }

  #newCard(pair, number) {
    const card = selfPair(pair, number, () => {
      this.#selected.select(this.#cards.indexOf(card), { focus: false });
      this.#on.enlarge();
    });
    card.addEventListener("click", (event) => this.#click(card, event));
    return card;
  }

  #click(card, event) {
    // Now: pairs before it may have gone.
    const index = this.#cards.indexOf(card);
    if (event.shiftKey) return this.#selected.select(index, { extend: true, focus: false });
    this.#selected.select(index, { focus: false });
    const button = event.target.closest("button");
    const side = event.target.closest("img") && event.target.closest("figure").dataset.side;
    // As on Label, a click on an image chooses it.
    const name = button ? button.dataset.decision : !this.pairs[index].judge && side;
    if (!name) return;
    const now = performance.now();
    // The second of a double click would take back what the first decided.
    const isDouble = this.#clicked.card === card && now < this.#clicked.at + DOUBLE_MS;
    this.#clicked = { card, at: now };
    if (isDouble || now < this.#movedAt + GUARD_MS) return this.#on.refuse(TOO_FAST);
    this.#on.decide(index, name);
  }
}

/** In which part of the page a pair stands. */
const partOf = (pair, done) => (done && pair.said ? "decided" : done || !pair.in_audit ? "open" : "audit");
