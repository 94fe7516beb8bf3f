// Two short notes beside the pair that wait for no answer: practice for who is new, and what to be called.

import { act, keep, kept, Refused } from "/ui/core.js";
import { giveName, hearName, isNamed, madeUp, onName } from "/ui/names.js";
import { mountPractice } from "/ui/practice.js";

const KEPT = "sail.notes";
const ASK_NAME_AFTER = 5;

export function mountNotes(root, answers) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const [practice, name] = [find("note-practice"), find("note-name")];
  const seen = new Set((kept(KEPT) ?? "").split(" "));
  const practise = mountPractice(find("practice"), { done: () => dismiss("practice") });
  let given = 0;

  function dismiss(which) {
    seen.add(which);
    draw();
    keep(KEPT, [...seen].join(" ").trim());
  }

  function draw() {
    // Who has answered before knows the keys.
    practice.hidden = seen.has("practice") || answers.past.length > 0;
    name.hidden = seen.has("name") || isNamed() || given < ASK_NAME_AFTER;
  }

  root.addEventListener("click", ({ target }) => {
    const which = target.closest("[data-dismiss]")?.dataset.dismiss;
    if (which) dismiss(which);
  });
  name.querySelector("input").placeholder = madeUp();
  name.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = name.querySelector("input").value;
    act(name.querySelector("button"), async () => {
      if (!wanted.trim()) throw new Refused("Type a name first, or choose “Not now”.");
      await giveName(wanted);
    });
  });
  // It may be given on top of the page as well.
  onName(draw);

  return {
    practise,
    /** The name that this project has for this person, or null. */
    async hear(known) {
      await hearName(known);
      given = Math.max(given, answers.past.length);
      draw();
    },
    labelled() {
      given += 1;
      draw();
    },
  };
}
