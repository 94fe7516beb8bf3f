// Answers that are not acknowledged yet, in local storage, so that a closed tab or a dead server loses none.

import { isThere, project, projectId } from "/ui/core.js";

export class Outbox {
  #name;
  #unkept = []; // where the browser's storage is full or forbidden, this page is all there is

  /** `name` keeps answers of different kinds apart. */
  constructor(name) {
    this.#name = name;
  }

  put(...answers) {
    // By number, not by time: clocks are set back.
    let last = parseInt(tail(this.#keys().at(-1) ?? "/0"), 10);
    for (const given of answers) {
      const answer = { ...given, project: projectId() };
      try {
        // Once one is kept here, those after it as well: they go in order.
        if (this.#unkept.length) throw new Error("in order");
        const number = String(++last).padStart(15, "0");
        // One key an answer, so that two browser tabs never overwrite one another's.
        localStorage.setItem(`${this.#name}/${encodeURIComponent(project)}/${number}.${answer.uuid}`, JSON.stringify(answer));
      } catch {
        this.#unkept.push(answer);
      }
    }
  }

  /** Whether some are lost with this page. */
  get atRisk() {
    return this.#unkept.length > 0;
  }

  /** Whether anything waits, for whichever project. */
  get holds() {
    return this.#unkept.length > 0 || this.#keys().length > 0;
  }

  /** Whether some of them were given under another name than this page's. */
  get holdsOthers() {
    return this.#keys().some((key) => nameIn(key) !== project);
  }

  /** In the order in which they were given: those for this project, also where it had a name then that it has no
   * more, and not those for another one that had this name. A copy beside it is the same project to a browser, and
   * what was said of either stays with its name. */
  answers() {
    const own = projectId();
    const isOwn = (answer, name) =>
      name === project ? !own || !answer.project || answer.project === own : own !== null && answer.project === own && !isThere(name);
    const kept = this.#keys().map((key) => [JSON.parse(localStorage.getItem(key)), nameIn(key)]);
    return [...kept, ...this.#unkept.map((answer) => [answer, project])]
      .filter(([answer, name]) => isOwn(answer, name))
      .map(([answer]) => answer);
  }

  /** Forget what the server has. */
  settle(uuids) {
    const settled = new Set(uuids);
    this.#unkept = this.#unkept.filter((answer) => !settled.has(answer.uuid));
    for (const key of this.#keys()) if (settled.has(key.slice(-36))) localStorage.removeItem(key);
  }

  /** Of all projects. */
  #keys() {
    try {
      const all = Object.keys(localStorage).filter((key) => key.startsWith(`${this.#name}/`));
      return all.sort((one, other) => (tail(one) < tail(other) ? -1 : 1));
    } catch {
      return [];
    }
  }
}

/** The project's name when the answer was given. */
const nameIn = (key) => decodeURIComponent(key.split("/").at(-2));

/** The number of an answer, and its id. */
const tail = (key) => key.slice(key.lastIndexOf("/") + 1);
