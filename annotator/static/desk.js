// Where a pair is answered, in Label and Compare alike: its images, the tools of looking closer, keys and buttons, and
// what is said under them. Knows neither what an answer means nor where pairs come from.

import { lookCloser } from "/ui/closer.js";
import { Images } from "/ui/images.js";
import { FLIPPED, isFollowed, leaveToKeys, meant, ZOOMED_IN } from "/ui/keys.js";
import { Look } from "/ui/look.js";
import { isShown } from "/ui/page.js";
import { Screen } from "/ui/screen.js";

export const AHEAD = 3; // pairs whose images are decoded before they are shown

export class Desk {
  screen;
  #section;
  #images = new Images();
  #look;
  #closer;
  #announcement;

  /**
   * `prefix` begins the names of its parts in `root`. `act` is called with what `keys` and buttons stand for; by key and
   * without a pair, only with what is `always` there. `hint` says why something did not count; `failed` is Screen's.
   */
  constructor(root, { prefix = "", keys, always, act, hint, failed }) {
    const part = (name) => root.querySelector(`[data-testid="${prefix}${name}"]`);
    [this.#section, this.#announcement] = [part("desk"), part("announcement")];
    this.#look = new Look(part("pair"), { changed: () => this.#looked(), refused: () => hint(ZOOMED_IN) });
    this.screen = new Screen(root, {
      sides: [part("image-left"), part("image-right")],
      prompt: part("prompt"),
      images: this.#images,
      fresh: () => this.#look.fresh(),
      failed,
    });
    this.#closer = lookCloser(root, this.#look, this.screen);
    root.addEventListener("click", ({ target }) => {
      const value = target.closest("[data-answer]")?.dataset.answer;
      if (value) act(value);
    });
    leaveToKeys(root);
    document.addEventListener("keydown", (event) => {
      const key = isShown(root) ? meant(event) : "";
      if (this.#closer.hears(event, key)) return;
      const value = keys[key];
      if (!value || (!this.screen.pair && !always.includes(value))) return;
      event.preventDefault();
      act(value);
    });
  }

  #looked() {
    this.#closer.draw();
    if (isFollowed(this.#announcement.textContent, this.#look)) this.say("");
  }

  say(text, kind = "") {
    this.#announcement.dataset.kind = kind;
    this.#announcement.textContent = text;
  }

  /** Why an answer does not count now, in a sentence; empty where it does. */
  whyNot(value) {
    return this.#look.flipped ? FLIPPED : this.screen.whyNot(value);
  }

  /** As Screen shows it; where there is no pair nothing of this is on the page, and what stands there instead is as high:
   * who is faster than the drawing sees nothing jump. */
  show(pair, how) {
    if (!pair && !this.#section.hidden) this.#section.parentElement.style.setProperty("--desk", `${this.#section.offsetHeight}px`);
    this.#section.hidden = !pair;
    return this.screen.show(pair, how);
  }

  /** Images of the pairs that come next, and of those that undo may bring back. */
  preload(next, past) {
    const last = past.slice(-AHEAD).map((one) => one.pair);
    this.#images.preload(next, AHEAD + 1, last);
  }
}
