// Which two rounds are compared: the current one with base, until somebody chooses others. Knows two selects.

import { onChoice } from "/ui/keys.js";
import { h } from "/ui/page.js";
import { roundTitle } from "/ui/words.js";

export class Choice {
  match = null; // two rounds as the server is asked for them, null being base
  #stays = false;
  #place;
  #selects;
  #changed;

  /** `changed` is called when others are compared than before, `chosen` after it where a person chose them. */
  constructor(find, { changed, chosen }) {
    [this.#place, this.#changed] = [find("match"), changed];
    this.#selects = { one: find("compare-one"), two: find("compare-two") };
    for (const [side, select] of Object.entries(this.#selects))
      onChoice(select, () => {
        this.#choose(side);
        chosen();
      });
  }

  /** From now on a new round does not change what is compared. */
  stay() {
    this.#stays = true;
  }

  /** Unless a pair `isShown`, the round that is current now takes the place of the one before. */
  draw({ rounds, current }, isShown) {
    const newest = rounds.map((one) => one.round).reverse();
    this.#place.hidden = !newest.length;
    const key = JSON.stringify(newest);
    if (!newest.length || this.#selects.one.dataset.key === key) return;
    const usual = current ?? newest[0];
    if (!this.#stays && !isShown && this.match?.one !== usual) this.#set({ one: usual, two: null });
    for (const [side, select] of Object.entries(this.#selects)) {
      select.dataset.key = key;
      select.replaceChildren(
        ...[...newest, null].map((round) => h("option", { value: round ?? "base" }, roundTitle(round))),
      );
      select.value = this.match[side] ?? "base";
    }
  }

  #choose(side) {
    const { one, two } = this.#selects;
    const other = side === "one" ? two : one;
    const value = (select) => (select.value === "base" ? null : Number(select.value));
    // Who chooses the same twice means to swap them.
    if (one.value === two.value) other.value = this.match[side] ?? "base";
    this.stay();
    this.#set({ one: value(one), two: value(two) });
  }

  #set(match) {
    this.match = match;
    this.#changed();
  }
}
