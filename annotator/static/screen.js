// The pair on the screen: shown once both its images are decoded, and open to answers a moment after. Knows two
// frames and a prompt; knows neither what an answer means nor where pairs come from.

import { trouble } from "/ui/core.js";
import { GUARD_MS, TOO_FAST } from "/ui/keys.js";

const LATE_MS = 5000;
const TRY_AGAIN_MS = 3000;
const SLOWEST_MS = 86_400_000;

export class Screen {
  pair = null;
  open = false; // "to skip" where it cannot be seen
  #since = 0;
  #tallest = 0; // prompt so far, in pixels
  #takesAt = 0; // from when on it takes an answer
  #known = false;
  #root;
  #sides;
  #prompt;
  #images;
  #fresh;
  #failed;

  /** `sides` are the frames, the left one first. `root` says in its data which pair is shown and which is ready; `fresh`
   * is called before another one comes, `failed` with one that could not be shown, each time it was tried. */
  constructor(root, { sides, prompt, images, fresh = () => {}, failed = () => {} }) {
    [this.#root, this.#sides, this.#prompt] = [root, sides, prompt];
    [this.#images, this.#fresh, this.#failed] = [images, fresh, failed];
    document.addEventListener("visibilitychange", () => document.hidden || this.restart());
    let width = innerWidth;
    addEventListener("resize", () => {
      // An address bar that hides changes the height alone, and moves nothing under a thumb.
      if (width !== innerWidth) this.#keepPlace(0);
      width = innerWidth;
    });
  }

  /** The place for the prompt never shrinks: under a finger that stays where it is, "Left" would become "Tie". */
  #keepPlace(tallest = this.#tallest) {
    this.#prompt.style.minHeight = "";
    this.#tallest = Math.max(tallest, this.#prompt.offsetHeight);
    this.#prompt.style.minHeight = `${this.#tallest}px`;
  }

  /** Shows a pair, or none; done when its images are there or cannot be had. `known` is one that was on the screen a
   * moment ago. */
  async show(pair, { known = false } = {}) {
    if (pair === this.pair) return;
    this.pair = pair;
    this.#known = known;
    this.open = false;
    // That of the pair before.
    trouble("", "image");
    this.#fresh();
    this.#root.dataset.pair = pair?.id ?? "";
    for (const side of this.#sides) side.classList.add("sail-waiting");
    if (!pair) return;
    this.#prompt.textContent = pair.prompt;
    this.#prompt.scrollTop = 0;
    this.#keepPlace();
    await this.#put(pair);
  }

  async #put(pair) {
    // A request that is taken and never answered is no failure.
    const late = setTimeout(() => this.pair === pair && !this.open && this.#wait(), LATE_MS);
    try {
      const both = await this.#images.both(pair);
      if (this.pair !== pair) return;
      // Of the whole page, whose width hangs on it.
      document.documentElement.style.setProperty("--drawn", `${both[0].naturalWidth}px`);
      this.#sides.forEach((side, index) => side.replaceChildren(both[index]));
      for (const side of this.#sides) side.classList.remove("sail-waiting");
      this.#begin(true);
      this.#root.dataset.ready = pair.id;
      trouble("", "image");
    } catch {
      if (this.pair !== pair) return;
      for (const side of this.#sides) side.replaceChildren();
      this.#begin("to skip"); // Nobody chooses between images they cannot see.
      trouble("An image of this pair could not be loaded. It is tried again; or skip the pair with S.", "image");
      this.#failed(pair);
      setTimeout(() => this.pair === pair && this.open === "to skip" && this.#put(pair), TRY_AGAIN_MS);
    } finally {
      clearTimeout(late);
    }
  }

  #wait() {
    this.#begin("to skip");
    trouble("The images of this pair are long in coming. Wait for them, or skip the pair with S.", "image");
  }

  #begin(open) {
    this.open = open;
    this.restart();
    // Nobody has looked at a new pair yet.
    this.#takesAt = this.#known ? 0 : this.#since + GUARD_MS;
  }

  /** Time away is not time spent choosing. */
  restart() {
    this.#since = performance.now();
  }

  get elapsedMs() {
    return Math.min(Math.round(performance.now() - this.#since), SLOWEST_MS);
  }

  /** Why an answer does not count, in a sentence: no press is dropped without a word. */
  whyNot(value) {
    if (!this.open) return "The images are still loading. Answer when you see them.";
    if (this.open === "to skip" && value !== "skip") return "This pair cannot be seen. Skip it with S.";
    return performance.now() < this.#takesAt ? TOO_FAST : "";
  }
}
