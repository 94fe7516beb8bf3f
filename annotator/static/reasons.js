// Why the last answer was given: a few words to choose from and a free one. Knows a label and a form.

import { keyName } from "/ui/keys.js";
import { h } from "/ui/page.js";

export class Reasons {
  #dialog;
  #label = null;
  #explain;

  /** `explain` is called with the label, the reasons chosen and the text; nothing is called where nothing changed. */
  constructor(dialog, explain) {
    [this.#dialog, this.#explain] = [dialog, explain];
    const part = (name) => dialog.querySelector(`[data-part="${name}"]`);
    dialog.querySelector("form").addEventListener("submit", () => this.#keep());
    dialog.addEventListener("click", ({ target, detail }) => {
      const chip = target.closest("[data-reason]");
      if (chip) press(chip, chip.ariaPressed !== "true");
      // By mouse: Enter saves, and would press the chip once more.
      if (chip && detail) part("save").focus();
      if (target.closest('[data-part="cancel"]')) dialog.close();
    });
    dialog.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
      if (event.target === part("text")) return;
      const chip = dialog.querySelector(`[data-key="${CSS.escape(keyName(event))}"]`);
      if (!chip) return;
      event.preventDefault();
      press(chip, chip.ariaPressed !== "true");
    });
  }

  get #chips() {
    return [...this.#dialog.querySelectorAll("[data-reason]")];
  }

  get #text() {
    return this.#dialog.querySelector('[data-part="text"]');
  }

  open(label, words) {
    this.#label = label;
    const side = (name) =>
      h("img", { src: label.pair[name], alt: name, "data-chosen": name === label.value || null });
    this.#dialog.querySelector('[data-part="pair"]').replaceChildren(side("left"), side("right"));
    this.#dialog.querySelector('[data-part="answer"]').textContent = words;
    for (const chip of this.#chips) press(chip, label.reasons.includes(chip.dataset.reason));
    this.#text.value = label.text;
    this.#dialog.showModal();
    this.#dialog.querySelector('[data-part="save"]').focus();
  }

  #keep() {
    const chosen = this.#chips.filter((chip) => chip.ariaPressed === "true").map((chip) => chip.dataset.reason);
    // Half of a character, as the field's limit may leave it, cannot be sent.
    const written = this.#text.value.trim();
    const text = written.toWellFormed?.() ?? written;
    const { reasons, text: before } = this.#label;
    if (chosen.join() !== reasons.join() || text !== before) this.#explain(this.#label, chosen, text);
  }
}

const press = (chip, yes) => (chip.ariaPressed = String(yes));
