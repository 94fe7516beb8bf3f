// What this person said: kept in the outbox until the server has it, and what undo goes back through.
// Answers, what takes them back and the reasons for them go one way, so that they stay in their order.

import { base, poll } from "/ui/core.js";
import { Outbox } from "/ui/outbox.js";
import { Sending } from "/ui/sending.js";

const REMEMBERED = 50;
const FEW = 10;
const NO_LABEL = ["undo", "reasons"];

export class Answers {
  past = []; // labels that stand, oldest first
  #outbox = new Outbox();
  #sending;
  #takenBack = new Set(); // here; the server may have said what stands before it heard of them

  /** `changed` is called when something is said or sent, `heard` with what the server answers. */
  constructor({ changed, heard }) {
    const how = { name: "A label", heard, changed, sent: poll };
    this.#sending = new Sending(this.#outbox, `${base}/labels`, how);
  }

  /** With the pair as it was shown, so that undo finds it after a reload. */
  label(pair, value, elapsed_ms) {
    const uuid = crypto.randomUUID();
    this.#put({ uuid, pair: pair.id, value, elapsed_ms, shown: pair });
    this.past.push({ uuid, value, pair, reasons: [], text: "" });
    if (this.past.length > REMEMBERED) this.past.shift();
  }

  /** Takes the last label back and returns it; undefined where there is none. */
  undo() {
    const last = this.past.pop();
    if (last) this.#takenBack.add(last.uuid);
    if (last) this.#put({ uuid: crypto.randomUUID(), pair: last.pair.id, value: "undo", undoes: last.uuid });
    return last;
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
    const waiting = this.waiting;
    const undone = waiting.filter((one) => one.value === "undo").length;
    return waiting.filter((one) => !NO_LABEL.includes(one.value)).length - undone;
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
    const known = new Map([...past, ...this.past, ...unheard].map((one) => [one.uuid, one]));
    const undone = this.#undone();
    this.past = [...known.values()].filter(({ uuid }) => !undone.has(uuid) && !this.#takenBack.has(uuid));
  }

  #labels = () => this.waiting.filter((one) => !NO_LABEL.includes(one.value));
  #undone = () => new Set(this.waiting.filter((one) => one.value === "undo").map((one) => one.undoes));

  /** Until the outbox is empty or the server does not take it; never fails. */
  send = () => this.#sending.send();

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
