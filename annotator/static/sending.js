// Hands an outbox to the server until the server has all of it. Knows no page and no pair.

import { ask, beforeTraining, identified, namesKnown, patience, projectId, Refused, TooEarly, trouble } from "/ui/core.js";

const RETRY_MS = [500, 1000, 2000, 4000, 8000, 15000];
const AT_ONCE = 100;

export class Sending {
  #outbox;
  #path;
  #on;
  #now = null;
  #waiting = []; // called when something has moved
  #line = []; // what is done in between, each with the uuids of all that goes before it
  #timer = 0;
  #refused = 0;
  failures = 0;

  /**
   * `name` says what is sent, at the beginning of a sentence. `heard` gets what the server says and what it was
   * sent, `changed` is called as things move, `sent` when the server has all.
   */
  constructor(outbox, path, { name, heard, changed, sent }) {
    this.#outbox = outbox;
    this.#path = path;
    this.#on = { name, heard, changed, sent };
    document.addEventListener("visibilitychange", () => document.hidden || this.send());
    addEventListener("online", () => this.send());
    addEventListener("pagehide", () => this.#leave());
    addEventListener("beforeunload", (event) => outbox.atRisk && event.preventDefault());
  }

  /** Whether something is on its way. */
  get busy() {
    return this.#now !== null;
  }

  /**
   * Done once the server has, or cannot be told, what was said before now. Not once it has all: who answers faster
   * than it does would be waited for without end.
   */
  async settled() {
    const before = new Set(this.#outbox.answers().map(({ uuid }) => uuid));
    const waits = () => this.#outbox.answers().some(({ uuid }) => before.has(uuid));
    while (this.#now && waits()) await new Promise((go) => this.#waiting.push(go));
  }

  #moved() {
    for (const go of this.#waiting.splice(0)) go();
    this.#on.changed();
  }

  /** Whether the server has all, and nothing waits in line. */
  get idle() {
    return !this.#line.length && !this.#outbox.answers().length;
  }

  /** What may go now: what was said after something that waits in line goes after it. */
  #unsent() {
    const [first] = this.#line;
    const waiting = this.#outbox.answers();
    return (first ? waiting.filter(({ uuid }) => first.before.has(uuid)) : waiting).slice(0, AT_ONCE);
  }

  /**
   * Does `work` after all that was said before, and before all that is said from now on: requests may overtake
   * each other. `work` gets whether the server has what was said before.
   */
  inOrder(work) {
    const before = new Set(this.#outbox.answers().map(({ uuid }) => uuid));
    const earlier = this.#line.at(-1)?.done.catch(() => {});
    const turn = { before };
    this.#line.push(turn);
    turn.done = Promise.resolve(earlier)
      .then(() => this.send())
      .then(() => work(!this.#outbox.answers().some(({ uuid }) => before.has(uuid))))
      .finally(() => {
        this.#line.shift();
        this.send();
      });
    return turn.done;
  }

  /** The kind of trouble that is over once something was sent. */
  get #waits() {
    return `${this.#on.name} waits`;
  }

  /** As in order, but refused while what was said before is not with the server. */
  afterAll(work) {
    return this.inOrder((all) => {
      if (all) return work();
      throw new TooEarly(`${this.#on.name} is not with the app yet. It is sent again by itself; try then.`, this.#waits);
    });
  }

  /** From now on no training begins without what was said before it. */
  holdTraining() {
    beforeTraining(async () => {
      const before = this.#refused;
      await this.afterAll(() => {});
      if (this.#refused > before) throw new Refused(`${this.#on.name} was not kept. Look at it again, then train.`);
    });
  }

  /** Until the outbox is empty or the server does not take it; never fails. */
  send() {
    this.#on.changed();
    this.#now ??= this.#all().finally(() => {
      this.#now = null;
      this.#moved();
    });
    return this.#now;
  }

  async #all() {
    // Who does not know which project answers would send it what was said of another one, or take what was said of
    // this one under another name for another's.
    if (this.#outbox.holds) await identified;
    if (this.#outbox.holdsOthers) await namesKnown;
    let waiting = this.#unsent();
    if (!waiting.length) return;
    const { name } = this.#on;
    try {
      while (waiting.length) {
        const answer = await ask(this.#path, { answers: told(waiting) }, { signal: patience() });
        const refused = Object.values(answer.refused);
        this.#refused += refused.length;
        this.#outbox.settle([...answer.acknowledged, ...Object.keys(answer.refused)]);
        if (refused.length) trouble(`${name} was not kept: ${refused[0]}`, name);
        trouble("", this.#waits);
        this.failures = 0;
        this.#on.heard(answer, waiting);
        waiting = this.#unsent();
        this.#moved();
      }
      this.#on.sent();
    } catch (error) {
      if (error instanceof Refused) trouble(error.message, this.#waits);
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.send(), RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)]);
    }
  }

  /** The page is going: hand over what is unsent. */
  #leave() {
    const waiting = this.#outbox.answers().slice(0, AT_ONCE);
    if (waiting.length && projectId()) beacon(this.#path, { answers: told(waiting) });
  }
}

/** What the server is told of answers; `shown` and `project` are for this browser alone. */
const told = (answers) => answers.map(({ shown, project, ...answer }) => answer);

/** A request that outlives the page. It has no headers of ours. */
export function beacon(path, value) {
  navigator.sendBeacon(`${path}?of=${projectId() ?? ""}`, new Blob([JSON.stringify(value)], { type: "application/json" }));
}
