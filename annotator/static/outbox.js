// Answers that are not acknowledged yet, in local storage, so that a closed tab or a dead server loses none.

import { project, projectId } from "/ui/core.js";

export class Outbox {
  #prefix;
  #unkept = []; // where the browser's storage is full or forbidden, this page is all there is

  /** `name` keeps answers of different kinds apart. */
  constructor(name) {
    // One key an answer, so that two browser tabs never overwrite one another's.
    this.#prefix = `${name}/${encodeURIComponent(project)}/`;
  }

  put(...answers) {
    // By number, not by time: clocks are set back.
    let last = parseInt(this.#keys().at(-1)?.slice(this.#prefix.length) ?? "0", 10);
    for (const given of answers) {
      const answer = { ...given, project: projectId() };
      try {
        // Once one is kept here, those after it as well: they go in order.
        if (this.#unkept.length) throw new Error("in order");
        const number = String(++last).padStart(15, "0");
        localStorage.setItem(`${this.#prefix}${number}.${answer.uuid}`, JSON.stringify(answer));
      } catch {
        this.#unkept.push(answer);
      }
    }
  }

  /** Whether some are lost with this page. */
  get atRisk() {
    return this.#unkept.length > 0;
  }

  /** In the order in which they were given; not those for another project that had this name. */
  answers() {
    const own = projectId();
    const all = [...this.#keys().map((key) => JSON.parse(localStorage.getItem(key))), ...this.#unkept];
    return all.filter((answer) => !own || !answer.project || answer.project === own);
  }

  /** Forget what the server has. */
  settle(uuids) {
    const settled = new Set(uuids);
    this.#unkept = this.#unkept.filter((answer) => !settled.has(answer.uuid));
    for (const key of this.#keys()) if (settled.has(key.slice(-36))) localStorage.removeItem(key);
  }

  #keys() {
    try {
      return Object.keys(localStorage).filter((key) => key.startsWith(this.#prefix)).sort();
    } catch {
      return [];
    }
  }
}
