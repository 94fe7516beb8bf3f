// What this person said of pairs, in Label and Compare alike: kept in an outbox until the server has it, told to other
// tabs of this browser, and what undo goes back through. Answers, what takes them back and the reasons for them go one
// way, so that they stay in their order. Knows no page.

import { project } from "/ui/core.js";
import { Outbox } from "/ui/outbox.js";
import { Sending } from "/ui/sending.js";

const REMEMBERED = 50;
const FEW = 10;
const NO_LABEL = ["undo", "reasons"];

export class Answers {
  past = []; // labels that stand, oldest first
  #outbox;
  #sending;
  #isMeant;
  #tabs;
  #takenBack = new Set(); // here; the server may have said what stands before it heard of them

  /**
   * `kind` is the outbox's, `path` where it goes. `isMeant` says of a pair whether it is one of those that are answered
   * now. `elsewhere` is called with what another tab said: `answered`, a pair; `undone`, a pair of which the server knows
   * that its label is taken back; or what `tell` was given. `name`, `changed`, `heard` and `sent` are as Sending has them.
   */
  constructor({ kind, path, isMeant = () => true, elsewhere, name, changed, heard = () => {}, sent }) {
    this.#outbox = new Outbox(kind);
    this.#isMeant = isMeant;
    this.#tabs = new BroadcastChannel(`${kind}/${project}`);
    this.#tabs.addEventListener("message", ({ data }) => {
      if (data.takenBack) this.#takenBackElsewhere(data.takenBack);
      if (data.label && isMeant(data.label.pair)) this.#givenElsewhere(data.label);
      elsewhere(data);
    });
    this.#sending = new Sending(this.#outbox, path, { name, heard, changed, sent });
  }

  /** With the pair as it was shown, so that undo finds it after a reload. */
  label(pair, value, elapsed_ms) {
    const uuid = crypto.randomUUID();
    this.#put({ uuid, pair: pair.id, value, elapsed_ms, shown: pair });
    const label = { uuid, value, pair, reasons: [], text: "" };
    this.#hold(label);
    this.tell({ answered: pair.id, label });
  }

  #hold(label) {
    this.past.push(label);
    if (this.past.length > REMEMBERED) this.past.shift();
  }

  /** It is the one that undo takes back next, here as well. */
  #givenElsewhere(label) {
    if (!this.past.some(({ uuid }) => uuid === label.uuid)) this.#hold(label);
  }

  #takenBackElsewhere(uuid) {
    this.#takenBack.add(uuid);
    this.past = this.past.filter((label) => label.uuid !== uuid);
  }

  /** Takes the last label back and returns it; undefined where there is none. */
  undo() {
    const last = this.past.pop();
    if (!last) return undefined;
    this.#takenBack.add(last.uuid);
    const { uuid: undoes, pair } = last;
    this.#put({ uuid: crypto.randomUUID(), pair: pair.id, value: "undo", undoes, shown: pair });
    this.tell({ takenBack: undoes });
    // Before the server knows, another tab would ask in vain.
    this.settled().then(() => this.tell({ undone: pair.id }));
    return last;
  }

  /** To the other tabs of this browser. */
  tell = (message) => this.#tabs.postMessage(message);

  /** Other pairs are answered from now on: what was said of those before cannot be undone here. */
  forget() {
    this.past = [];
  }

  /** Why a label was given. What was said of it before no longer holds. */
  explain(label, reasons, text) {
    Object.assign(label, { reasons, text });
    const uuid = crypto.randomUUID();
    this.#put({ uuid, pair: label.pair.id, value: "reasons", of: label.uuid, reasons, text });
  }

  #put(answer) {
    this.#outbox.put(answer);
    this.send();
  }

  get waiting() {
    return this.#outbox.answers();
  }

  /** How many labels the server has not heard of, less those that it does not know are taken back. */
  get unheard() {
    return this.#labels().length - this.#undone().size;
  }

  /** Pairs whose labels the server may not have heard of yet. */
  get unheardPairs() {
    const undone = this.#undone();
    return this.#labels()
      .filter((one) => !undone.has(one.uuid))
      .map((one) => one.pair);
  }

  /** Whether undo will soon come to what the page does not hold. */
  get fewToUndo() {
    return this.past.length < FEW;
  }

  /** What the server knows, also of earlier visits, what was said here since, and what it has not heard of. */
  remember(past) {
    const unheard = this.#labels()
      .filter((one) => one.shown)
      .map((one) => ({ uuid: one.uuid, value: one.value, pair: one.shown, reasons: [], text: "" }));
    const known = new Map([...past, ...this.past].map((one) => [one.uuid, one]));
    // What is known of a label already, as its reasons, holds.
    for (const one of unheard) if (!known.has(one.uuid)) known.set(one.uuid, one);
    for (const { of, reasons, text } of this.waiting) if (known.has(of)) Object.assign(known.get(of), { reasons, text });
    const undone = this.#undone();
    this.past = [...known.values()].filter(({ uuid }) => !undone.has(uuid) && !this.#takenBack.has(uuid));
  }

  #meant = () => this.waiting.filter(({ shown }) => this.#isMeant(shown));
  #labels = () => this.#meant().filter(({ value }) => !NO_LABEL.includes(value));
  #undone = () => new Set(this.#meant().filter(({ value }) => value === "undo").map(({ undoes }) => undoes));

  /** Until the outbox is empty or the server does not take it; never fails. */
  send = () => this.#sending.send();

  afterAll = (work) => this.#sending.afterAll(work);

  holdTraining = () => this.#sending.holdTraining();

  /** Done once the server has, or cannot be told, what was said before now. */
  settled = () => this.#sending.settled();

  /** Whether something is on its way. */
  get sending() {
    return this.#sending.busy;
  }

  /** Requests in a row that nobody answered. */
  get failures() {
    return this.#sending.failures;
  }
}
