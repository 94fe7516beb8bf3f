// The pairs that this person holds: fetched, filled up, renewed while they are at work, given back. Draws nothing.

import { ask, base, patience, Refused, trouble } from "/ui/core.js";
import { beacon } from "/ui/sending.js";

const FEW = 6;
const MOST_HELD = 50; // as the server takes
const RENEW_MS = 45_000;
const LOOK_AGAIN_MS = 5000;
const ABSENT_MS = 120_000;

export class Pairs {
  queue = []; // the first one is on the screen
  withOthers = 0;
  holders = []; // names of those others
  drawn = 0; // how many pairs there were when they were last fetched
  failed = false; // whether nobody answered when they were last asked for
  #answered = new Set(); // a list may have been made before the server heard of the last answers
  #fetching = null;
  #fetchedAt = 0;
  #usedAt = performance.now();
  #answers;
  #on;

  /**
   * `fetched` is called with what the server said and whether the pair on the screen was lost to others, `failed` where
   * nobody answered. `isAtWork` says whether pairs are shown: else they are not kept from others. `heardElsewhere` is
   * called when this person did something in another tab, with whether it answered a pair that is held here.
   */
  constructor(answers, { fetched, failed, heardElsewhere, isAtWork }) {
    [this.#answers, this.#on] = [answers, { fetched, failed, heardElsewhere, isAtWork }];
    for (const use of ["keydown", "pointerdown", "pointermove", "wheel"])
      document.addEventListener(use, () => this.#used(), { passive: true });
    setInterval(() => this.#renew(), LOOK_AGAIN_MS);
  }

  /** What was said in another tab of this browser. Both hold the same pairs, and one answer must not overwrite the
   * other's. */
  hear({ closing, undone, answered }) {
    // The tab that closes gives back what this one holds as well.
    if (closing) return void (this.queue.length && this.fetch());
    if (undone) return void (this.#answered.delete(undone) && this.fetch());
    const isHeld = this.queue.some((pair) => pair.id === answered);
    if (isHeld) this.#drop(answered);
    this.#on.heardElsewhere(isHeld);
  }

  get first() {
    return this.queue[0] ?? null;
  }

  get few() {
    return this.queue.length < FEW;
  }

  /** `keep` are the pairs to stay with; the server fills up in the project's order. */
  fetch(keep = () => this.queue) {
    this.#fetching ??= this.#ask(keep);
    return this.#fetching;
  }

  /** Also before they were first asked for. */
  get asking() {
    return this.#fetching !== null || !this.#fetchedAt;
  }

  async #ask(keep) {
    let answer = null;
    try {
      // After what is on its way, so that the list knows of it.
      await this.#answers.settled();
      const holding = keep().slice(0, MOST_HELD).map((pair) => pair.id);
      answer = await ask(`${base}/pairs/next`, { holding }, { signal: patience() });
    } catch (error) {
      if (error instanceof Refused) trouble(error.message, "label");
    }
    this.#fetching = null;
    this.failed = answer === null;
    if (answer) this.#takeIn(answer);
    else this.#on.failed();
  }

  /** Whether others may have answered meanwhile, as while another tab of the page was open. */
  get stale() {
    return Date.now() - this.#fetchedAt > RENEW_MS;
  }

  /** Other pairs than those that wait behind the one on the screen: the order was changed. */
  async renewBehindFirst() {
    await this.#fetching;
    await ask(`${base}/pairs/release`, {});
    return this.fetch(() => this.queue.slice(0, 1));
  }

  #takeIn(answer) {
    for (const pair of this.#answers.unheardPairs) this.#answered.add(pair);
    const held = new Map(answer.pairs.map((pair) => [pair.id, pair]));
    const first = this.first;
    // Sides are drawn for a person: of a pair that was assigned anew, "left" would be kept for what is right here.
    const kept = this.queue.filter((pair) => pair.undone || held.get(pair.id)?.left === pair.left);
    const known = new Set(kept.map((pair) => pair.id));
    const others = answer.pairs.filter((pair) => !known.has(pair.id) && !this.#answered.has(pair.id));
    this.queue = [...kept, ...others];
    this.drawn = answer.labels.drawn;
    this.withOthers = answer.with_others;
    this.holders = answer.holders;
    this.#fetchedAt = Date.now();
    trouble("", "label");
    this.#on.fetched(answer, Boolean(first) && first !== this.first);
  }

  answered(pair) {
    this.#drop(pair.id);
  }

  /** Nobody is asked about it any more. */
  withdraw(pair) {
    this.#answers.tell({ answered: pair.id });
    this.#drop(pair.id);
  }

  #drop(id) {
    this.#answered.add(id);
    this.queue = this.queue.filter((pair) => pair.id !== id);
    if (this.few) this.fetch();
  }

  /** The pair of a label that was taken back. */
  bringBack({ pair }) {
    pair.undone = true;
    this.#answered.delete(pair.id);
    this.queue = [pair, ...this.queue.filter((other) => other.id !== pair.id)];
    this.fetch();
  }

  get #absent() {
    return performance.now() - this.#usedAt > ABSENT_MS;
  }

  /** Who comes back may have lost pairs to others meanwhile. */
  #used() {
    if (!this.#on.isAtWork()) return;
    const wasAbsent = this.#absent;
    this.#usedAt = performance.now();
    if (wasAbsent) this.fetch();
  }

  /** Who is away does not keep pairs from others; who waits for others' pairs goes on asking. */
  #renew() {
    if (document.hidden || !this.#on.isAtWork()) return;
    const due = this.first ? this.stale && !this.#absent : this.withOthers > 0 || this.failed;
    if (due) this.fetch();
  }

  leave() {
    beacon(`${base}/pairs/release`, {});
    this.#answers.tell({ closing: true });
  }
}
