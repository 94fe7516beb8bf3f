// What every tab shares: the project, requests, the poll, what went wrong. Knows no tab and makes no element.

const query = new URLSearchParams(location.search);
/** What the app wrote into the page's head. */
export const inHead = (name) => document.querySelector(`meta[name="sail-${name}"]`).content;

export const project = query.get("project") || inHead("default-project");

/** Where a project is, on the tab that is open here. */
export const addressOf = (name) => `?${new URLSearchParams({ project: name, tab: openedTab() })}`;
export const openedTab = () => query.get("tab") ?? "label";

if (!query.has("project")) {
  // The open project is part of the address, so that two browser tabs may have two projects.
  query.set("project", project);
  history.replaceState(null, "", `${location.pathname}?${query}${location.hash}`);
}

export const base = `/api/projects/${encodeURIComponent(project)}`;

export class Refused extends Error {
  /** `faults` says what is wrong with which field, where fields are to blame. */
  constructor(message, faults = []) {
    super(message);
    this.faults = faults;
  }
}

/** Refused until something is over; `kind` is the trouble that is taken away then. */
export class TooEarly extends Refused {
  constructor(message, kind) {
    super(message);
    this.kind = kind;
  }
}

/** What a browser keeps for this address; null where it keeps nothing, or may not. */
export function kept(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** Has the browser keep a value; null forgets it. Where it keeps nothing, the value holds until the page goes. */
export function keep(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // Nothing depends on it.
  }
}

const personInCookie = () => /(?:^|; )sail_person=([^;]+)/.exec(document.cookie)?.[1];

/** Whether it keeps who this is, and what the app has not taken yet. */
export function keeps() {
  try {
    localStorage.getItem("sail");
    return Boolean(personInCookie());
  } catch {
    return false;
  }
}

// Who this browser is. Accounts come later; until then a name of its own making. Cookies end, so each visit begins
// the year anew, and where only the cookie is gone the same person comes back.
export const person = personInCookie() ?? kept("sail.person") ?? `person-${crypto.randomUUID().slice(0, 8)}`;
document.cookie = `sail_person=${person}; path=/; max-age=31536000; samesite=strict`;
keep("sail.person", person);

/** A tunnel whose other end is gone takes requests and never answers them. */
const PATIENCE_MS = 20_000;
export const patience = () => AbortSignal.timeout(PATIENCE_MS);

/** JSON from our own server; what is only looked at is given up after a while. Throws Refused with one sentence;
 * another error where nobody answers. */
export async function ask(path, body, { signal = body === undefined ? patience() : undefined } = {}) {
  const response = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    signal,
    headers: { ...ofThisProject(), ...(body === undefined ? {} : { "content-type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    const why = sentence(answer.detail) ?? `The app answered ${response.status}.`;
    throw new Refused(why, answer.faults);
  }
  return response.json();
}

const IDENTIFY_AGAIN_MS = 2000;
const IDLE_MS = 15_000; // between two looks where nothing goes on, or the app says that there is nothing
let identity = null;

/** Which project this page is of; null before the app said so. Another machine or a backup may have another one under
 * the same name, and what was said of one means nothing to the other. */
export const projectId = () => identity;

/** A header by which a request is refused where another project of that name answers. */
const ofThisProject = () => (identity ? { "x-sail-project": identity } : {});

async function identify() {
  while (!identity)
    try {
      identity = (await ask(`${base}/identity`)).id;
    } catch (error) {
      const after = error instanceof Refused ? IDLE_MS : IDENTIFY_AGAIN_MS;
      await new Promise((resolve) => setTimeout(resolve, after));
    }
}

export const identified = identify();

function sentence(detail) {
  return typeof detail === "string" ? detail : undefined;
}

/** Where the page is narrow, Gradio moves tabs into a menu, where they have no id but their title. */
const titleOf = (tab) => tab.textContent.trim().toLowerCase();

export function openTab(name) {
  const inMenu = [...document.querySelectorAll(".overflow-dropdown button")].find((one) => titleOf(one) === name);
  const tab = document.getElementById(`sail-tab-${name}-button`) ?? inMenu;
  // What is pressed by key goes with its panel, and the focus would begin at the top of the page.
  const isLost = Boolean(holder?.closest('[role="tabpanel"]')) || document.activeElement?.matches('[role="tabpanel"] :focus-visible');
  // Hidden with its panel a dialog is not drawn any more, and still keeps everybody from the rest of the page.
  for (const one of document.querySelectorAll('[role="tabpanel"] dialog[open]')) one.close();
  tab?.click();
  if (isLost) tab?.focus();
}

const SHOWN_AFTER_MS = 50;

/** The open tab is part of the address: a reload, and a link to it, opens the same, and Back the one before. */
export function rememberTab() {
  // Who chose a tab while the page came meant that one.
  const selected = document.querySelector('[role="tab"][aria-selected="true"]');
  const isUntouched = !selected || selected.id === "sail-tab-label-button";
  if (query.has("tab") && isUntouched) openTab(openedTab());
  document.addEventListener("click", (event) => {
    const tab = event.target.closest('[role="tab"], .overflow-dropdown button');
    if (!tab) return;
    // What a hidden tab did not draw is drawn when it is there.
    setTimeout(() => tell(true), SHOWN_AFTER_MS);
    const chosen = /^sail-tab-(\w+)-button$/.exec(tab.id)?.[1] ?? titleOf(tab);
    if (chosen === openedTab()) return;
    query.set("tab", chosen);
    history.pushState(null, "", `${location.pathname}?${query}${location.hash}`);
  });
  addEventListener("popstate", () => {
    query.set("tab", new URLSearchParams(location.search).get("tab") ?? "label");
    openTab(openedTab());
  });
}

const troubles = new Map(); // by kind, in the order in which they were said

/** One sentence about what went wrong, over the top of the page, so that nothing moves under a finger; empty takes it
 * away, and what was said before it and still holds is shown again. A click closes it; it comes back when something
 * else is wrong. */
export function trouble(text, kind) {
  if (troubles.get(kind)?.text !== text) {
    troubles.delete(kind);
    if (text) troubles.set(kind, { text, closed: false });
  }
  drawTrouble();
}

const openTrouble = () => [...troubles.values()].findLast(({ closed }) => !closed);

function drawTrouble() {
  const place = document.querySelector(".sail-trouble");
  if (!place) return;
  const text = openTrouble()?.text ?? "";
  // Else it would be read out again at every poll.
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
}

function close() {
  const shown = openTrouble();
  if (shown) shown.closed = true;
  drawTrouble();
}

document.addEventListener("click", ({ target }) => target.matches(".sail-trouble") && close());
// After all others that Esc may mean something to.
addEventListener("keydown", (event) => {
  const { key, target } = event;
  const isMeant = !event.defaultPrevented && !event.repeat && !event.isComposing && event.keyCode !== 229;
  if (key === "Escape" && isMeant && !target.closest?.("select") && !document.querySelector("dialog[open]")) close();
});

const keepers = [];

/** `keep` is called before training. It throws Refused where something a person said is not kept. */
export const beforeTraining = (keep) => keepers.push(keep);

/** Asks for the next round, once all that was said on this page is with the server. */
export async function train(settings = {}) {
  for (const keep of keepers) await keep();
  const run = await ask(`${base}/runs`, { job: "train", ...settings });
  trouble(run.left_out ?? "", "left out");
  return run;
}

/** Why an action failed, in a sentence. */
export const whyNot = (error) =>
  error instanceof Refused ? error.message : "The app does not answer. Try again in a moment.";

let holder = null; // a button that is locked and was pressed by key

/** Locks a button while `action` goes on. Locked, it loses the focus, and who pressed it by key would be at the top of
 * the page. */
export async function locked(button, action) {
  const hadFocus = document.activeElement === button;
  const byKey = hadFocus && button.matches(":focus-visible");
  if (byKey) holder = button;
  button.disabled = true;
  try {
    return await action();
  } finally {
    button.disabled = false;
    if (byKey) holder = null;
    if (hadFocus && document.activeElement === document.body) button.focus({ preventScroll: true });
  }
}

/** Runs an action of a button: locked meanwhile, and a refusal is shown. */
export async function act(button, action) {
  const shown = ["action", "unanswered"];
  // Who presses again is told again, although they closed it.
  for (const kind of shown) troubles.delete(kind);
  try {
    const result = await locked(button, action);
    for (const kind of shown) trouble("", kind);
    return result;
  } catch (error) {
    const kind = error instanceof Refused ? (error.kind ?? "action") : "unanswered";
    troubles.delete(kind);
    trouble(whyNot(error), kind);
    return undefined;
  } finally {
    poll();
  }
}

// The poll: one for the whole page.

const listeners = new Set();
const projectListeners = new Set();
const awayListeners = new Set();
let projects = null;
let status = null;
let etag = null;
let timer = 0;
const eager = new Set();
let asking = null;
let next = null;
let away = false;
let missing = false; // the page never had a project

/** Calls `listener` with the state of the project, now if it is known, whenever it changes, and, with true beside it,
 * when a tab of the page was opened. */
export function onStatus(listener) {
  listeners.add(listener);
  if (status) listener(status);
  else poll();
}

/** Calls `listener` with the names of all projects, also where the one of this page is none of them. */
export function onProjects(listener) {
  projectListeners.add(listener);
  if (projects) listener(projects);
  else poll();
}

/** Calls `listener` whenever the app does not answer; what it says next goes to all who hear of the state. */
export const onAway = (listener) => awayListeners.add(listener);

let tellNames;
/** Done once it is known which projects there are. */
export const namesKnown = new Promise((done) => (tellNames = done));

/** Whether there is a project of that name, as far as is known. */
export const isThere = (name) => projects === null || projects.includes(name);

function tellProjects(names) {
  tellNames();
  if (projects?.join("\n") === names.join("\n")) return;
  projects = names;
  callAll(projectListeners, names);
}

/** While someone waits for the first pairs, look more often; `who` says which part of the page waits. */
export function beEager(yes, who = "label") {
  if (yes && !eager.size) schedule(200);
  if (yes) eager.add(who);
  else eager.delete(who);
}

const tell = (opened = false) => status && callAll(listeners, status, opened);

/** A fault in one part of the page is said as one, and is no reason for the others not to hear. */
function callAll(all, ...said) {
  for (const listener of all)
    try {
      listener(...said);
    } catch (error) {
      reportError(error);
    }
}

/** What could not be loaded is asked for again with the next look, although nothing changed. */
export const askAnew = () => (etag = null);

/** An answer that is on its way may be from before what the caller did, so this always asks once more. */
export function poll() {
  next ??= Promise.resolve(asking).then(() => {
    next = null;
    asking = look().finally(() => schedule());
    return asking;
  });
  return next;
}

/** Of a project that is not there nothing is shown but where one is chosen. */
function miss() {
  if (!missing) openTab("setup");
  missing = true;
  document.body.dataset.project = "missing";
}

/** The app answers again: that it did not is over. */
function back() {
  if (away) trouble("", "unanswered");
  away = false;
}

async function look() {
  try {
    const response = await fetch(`${base}/status`, {
      headers: { ...ofThisProject(), ...(etag ? { "if-none-match": etag } : {}) },
      cache: "no-store",
      signal: patience(),
    });
    back();
    if (response.status === 304) return trouble("", "poll");
    const answer = await response.json();
    if (!response.ok) {
      trouble(sentence(answer.detail) ?? "The app cannot say how things stand.", "poll");
      if (response.status === 404 && !status) miss();
      // Where this is refused as well, what was said first holds.
      const known = await ask("/api/projects").catch(() => null);
      return known && tellProjects(known.projects);
    }
    etag = response.headers.get("etag");
    status = answer;
    missing = false;
    delete document.body.dataset.project;
    trouble("", "poll");
    tellProjects(status.projects);
    tell();
  } catch {
    away = true;
    askAnew();
    callAll(awayListeners);
    trouble("The app does not answer. What you labelled or decided is kept here and sent when it is back.", "poll");
  }
}

export const isActive = (run) => ["running", "stopping", "waiting"].includes(run.state);
/** Of `runs` those that are not over: what is at work, then what waits, in the order in which it will be done. */
export const inTurn = (runs) => {
  const turn = (run) => (run.state === "waiting" ? run.ahead : -1);
  return runs.filter(isActive).sort((one, other) => turn(one) - turn(other));
};
export const endedEarly = (run) => ["stopped", "failed", "interrupted"].includes(run.state);

function schedule(after) {
  clearTimeout(timer);
  if (document.hidden) return;
  const busy = status ? status.runs.some(isActive) : !missing;
  const wait = after ?? (missing ? IDLE_MS : eager.size ? 700 : busy ? 2000 : IDLE_MS);
  timer = setTimeout(poll, wait * (0.9 + 0.2 * Math.random()));
}

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));
