// What this person is called. Who they are is the id in their cookie, which a name never changes.

import { ask, base, inHead, keep, kept, person } from "/ui/core.js";

const KEPT = "sail.name";
/** As the app makes names: what comes first, and what second. */
const [FIRST, SECOND] = inHead("names")
  .split(",")
  .map((words) => words.split(" "));
const listeners = new Set();
let known = null;
let told = false;

/** Until somebody says otherwise: always the same one for the same id. */
export function madeUp() {
  let sum = 0;
  for (const letter of person) sum = (sum * 31 + letter.charCodeAt(0)) % 256;
  return `${FIRST[sum >> 4]} ${SECOND[sum & 15]}`;
}

export const nameShown = () => known ?? madeUp();
export const isNamed = () => known !== null;

export function onName(listener) {
  listeners.add(listener);
  listener();
}

/** What the project knows. A name that this browser was given in another project is told to this one, once. */
export async function hearName(name) {
  const given = kept(KEPT);
  if (name === null && given && !told) {
    told = true;
    // Somebody else may have it here; then it is asked for again.
    return giveName(given).catch(() => {});
  }
  if (name !== known) set(name);
}

/** Refused where it cannot be a name or somebody else has it. */
export async function giveName(name) {
  const given = (await ask(`${base}/name`, { name })).name;
  keep(KEPT, given);
  set(given);
}

function set(name) {
  known = name;
  for (const listener of listeners) listener();
}
