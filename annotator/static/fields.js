// What is wrong with a form, said at the field that it is wrong with. Knows forms; sends nothing.

import { h } from "/ui/page.js";

const FAULT = "sail-fault";
let fresh = 0;

/**
 * Marks the fields that faults are about and moves to the first one of them. Returns what belongs to no field, as a
 * sentence; empty where every fault stands at its field. `fieldOf` finds the element of a fault's path.
 */
export function mark(form, faults, fieldOf) {
  const elsewhere = [];
  for (const fault of faults) {
    const field = fieldOf(fault.field);
    if (field) say(field, fault.sentence || `${titleOf(field)} ${fault.rule}.`);
    else elsewhere.push(fault.sentence || `${fault.field} ${fault.rule}.`);
  }
  const first = form.querySelector("[aria-invalid]");
  const fold = first?.closest("details");
  if (fold) fold.open = true;
  first?.closest("[hidden]")?.removeAttribute("hidden");
  first?.focus();
  return elsewhere.join(" ");
}

/** Takes all marks off; what was typed stays. */
export function unmark(form) {
  for (const field of form.querySelectorAll("[aria-invalid]")) clear(field);
}

function say(field, text) {
  clear(field);
  const note = h("small", { class: FAULT, id: `${FAULT}-${(fresh += 1)}` }, text);
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-errormessage", note.id);
  field.setAttribute("aria-describedby", note.id);
  field.after(note);
  // What is being corrected is not wrong any more until it is sent again.
  field.addEventListener("input", () => clear(field), { once: true });
}

function clear(field) {
  for (const name of ["aria-invalid", "aria-errormessage", "aria-describedby"]) field.removeAttribute(name);
  if (field.nextElementSibling?.classList.contains(FAULT)) field.nextElementSibling.remove();
}

/** The field's own name on the page. */
const titleOf = (field) => field.closest("label").querySelector("span").textContent.trim();
