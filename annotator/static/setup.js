// Setup: open, create and change projects.

import { addressOf, ask, base, identified, locked, onProjects, project, Refused } from "/ui/core.js";
import { mark, unmark } from "/ui/fields.js";
import { factTable, h } from "/ui/page.js";
import { strange } from "/ui/strange.js";
import { plural } from "/ui/words.js";

const LOOK_AGAIN_MS = 2000;
const SAID_MS = 4000;
const ENOUGH_PROMPTS = 200; // for a taste to be learned
const SAMPLING = ["steps", "guidance", "size"]; // what can be said of it before the first image
const SIZE = /^(\d+)\s*[x×*,]\s*(\d+)$/i; // height, width

const promptsIn = (text) => new Set(text.split("\n").map((line) => line.trim()).filter(Boolean));

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const [create, moved, renamed, settings, prompts] = ["create", "moved", "renamed", "settings", "prompts"].map(find);
  let model = {}; // what runs are started with, and where
  let loaded = {}; // the settings as this page last heard of them
  let defaults = {}; // what the model brought along
  let version = null; // of the prompts that this page shows
  let promptsSaved = "";
  const known = new Map(); // form -> the words that its model knows; null where nobody can say
  let leaving = false; // what was typed is with the app

  onProjects((names) => {
    find("projects").replaceChildren(
      ...names.map((name) =>
        h("li", {}, h("a", { href: addressOf(name), "aria-current": name === project ? "page" : null }, name)),
      ),
    );
    drawRemoved();
  });

  async function drawRemoved() {
    const { removed } = await ask("/api/projects").catch(() => ({}));
    if (!removed) return;
    find("removed-fold").hidden = !removed.length;
    find("removed").replaceChildren(
      ...removed.map((name) => {
        const back = h("button", { class: "sail-quiet", "aria-label": `Put ${name} back` }, "Put back");
        back.onclick = () =>
          sending("removed", back, async () => go((await ask("/api/removed/put-back", { name })).project));
        return h("li", {}, name, back);
      }),
    );
  }

  /** Leaves for another project; what is typed is with the app. */
  function go(name) {
    leaving = true;
    location.search = new URLSearchParams({ project: name, tab: "setup" });
  }

  async function load() {
    const found = await ask(`${base}/setup`);
    drawFacts(found);
    fillModel(found);
    renamed.elements.name.value = found.name;
    prompts.elements.prompts.value = promptsSaved = found.prompts;
    countPrompts(prompts);
    version = found.prompts_version;
    defaults = found.defaults;
    fill(found);
    find("create-copy").hidden = false;
    find("create-copy").textContent = `Copy the prompts of ${found.name}`;
    openForChange(true);
    root.dataset.mounted = "yes";
  }

  /** Before it is known what holds, there is nothing to change: what is typed then would be written over. */
  function openForChange(open) {
    part("facts").hidden = !open;
    for (const form of [moved, renamed, settings, prompts]) for (const one of form.elements) one.disabled = !open;
  }

  async function loadUntilHeard() {
    openForChange(false);
    // Of a project that is not there, nothing is.
    await identified;
    for (;;) {
      try {
        return await load();
      } catch {
        await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
      }
    }
  }

  function drawFacts(found) {
    part("title").textContent = found.name;
    const model = found.model.revision
      ? `${found.model.source} at ${found.model.revision}`
      : found.model.source;
    find("project-facts").replaceChildren(
      factTable([
        ["Model", model],
        ["Folder", found.folder],
        ["Prompts", plural(found.prompts.split("\n").length, "prompt")],
      ]),
    );
  }

  function fillModel(found) {
    model = found.model;
    moved.elements["model.source"].value = model.source;
    moved.elements["model.revision"].value = model.revision ?? "";
    moved.elements.download.checked = found.download;
    known.set(prompts, found.words);
    tellStrange(prompts);
    offerHub(moved);
  }

  /** Of a single file the hub may have the configuration. */
  function offerHub(form) {
    const hub = /^[\w.-]+\/[\w.-]+$|\.safetensors$/.test(form.elements["model.source"].value.trim());
    for (const name of ["revision", "download"]) form.querySelector(`[data-part="${name}"]`).hidden = !hub;
  }

  /** The model that a form asks for. */
  function modelOf(form) {
    const value = (name) => form.elements[name].value.trim();
    // What is hidden was typed for another source.
    const ofHub = !form.querySelector('[data-part="revision"]').hidden;
    return { source: value("model.source"), revision: (ofHub && value("model.revision")) || null };
  }

  function at(values, name) {
    const found = name.split(".").reduce((value, key) => value?.[key], values) ?? "";
    return Array.isArray(found) ? found.join(" x ") : String(found);
  }

  /** What was typed into a field, as its setting. */
  function typed(input) {
    const text = input.value.trim();
    if (input.dataset.kind === "size" && text) return text.match(SIZE)?.slice(1).map(Number) ?? text;
    if (input.type === "text" && !input.dataset.kind) return text;
    return text === "" ? null : Number(text);
  }

  const setting = (name) => at(loaded, name);
  const fields = () => [...settings.querySelectorAll("input")];

  /** What was typed since `sent` was, by name, stays. */
  function fill(found, sent = null) {
    loaded = { ...found.settings, launcher: found.launcher };
    for (const input of fields())
      if (!sent || input.value === sent.get(input.name)) input.value = setting(input.name);
    drawDefaults();
  }

  /** What the model brought along, wherever it was changed. */
  function drawDefaults() {
    const changed = fields().filter((input) => setting(input.name) !== at(defaults, input.name));
    for (const input of fields()) {
      const note = settings.querySelector(`[data-default="${input.name}"]`);
      note.hidden = !changed.includes(input);
      note.textContent = `Default ${at(defaults, input.name) || input.dataset.none || "none"}.`;
    }
    const folded = fields().filter((input) => input.closest("details"));
    const count = folded.filter((input) => changed.includes(input)).length;
    part("advanced").textContent =
      `Advanced: ${folded.length} more, ${count ? `${count} of them changed` : "all at their defaults"}`;
  }

  /** Of one of a setting's two numbers: the setting. */
  const withoutPlace = (path) => path.replace(/\.\d+$/, "");

  /** Does what a button stands for, and says under `name` why it was refused. */
  async function sending(name, button, send, tell = (faults) => faults[0].sentence) {
    find(`${name}-error`).textContent = "";
    try {
      await locked(button, send);
    } catch (error) {
      find(`${name}-error`).textContent = !(error instanceof Refused)
        ? "The app does not answer, so nobody knows whether this was saved. What you typed is still here: try again in a moment."
        : error.faults.length
          ? tell(error.faults)
          : error.message;
    }
  }

  /** Sends a form; what is refused is said at the field that is to blame, and nothing that was typed is lost. */
  function onSubmit(form, name, send, fieldOf = (path) => form.elements[withoutPlace(path)]) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      unmark(form);
      if (find(`${name}-saved`)) find(`${name}-saved`).textContent = "";
      sending(name, form.querySelector('button:not([type="button"])'), send, (faults) => mark(form, faults, fieldOf));
    });
  }

  const fading = {};

  function said(name, text) {
    find(`${name}-saved`).textContent = text;
    clearTimeout(fading[name]);
    fading[name] = setTimeout(() => (find(`${name}-saved`).textContent = ""), SAID_MS);
  }

  const changedHere = () => fields().filter((input) => input.value !== setting(input.name));
  // What several settings are to blame for together is the fault of the one that was changed.
  const settingOf = (path) =>
    settings.elements[withoutPlace(path.replace(/^settings\./, ""))] ?? (changedHere().length === 1 ? changedHere()[0] : null);

  onSubmit(
    settings,
    "settings",
    async () => {
      const changes = {};
      // Only what was changed here: another page may have changed the rest since.
      for (const input of changedHere()) {
        const keys = input.name.split(".");
        const last = keys.pop();
        const place = keys.reduce((value, key) => (value[key] ??= {}), changes);
        place[last] = typed(input);
      }
      const { launcher, ...rest } = changes;
      const sent = new Map(fields().map((input) => [input.name, input.value]));
      fill(await ask(`${base}/settings`, { settings: rest, launcher }), sent);
      said("settings", "Saved.");
    },
    settingOf,
  );

  onSubmit(prompts, "prompts", async () => {
    if (version === null) throw new Refused("The prompts are still being loaded. Try again in a moment.");
    const typedNow = prompts.elements.prompts.value;
    const saved = await ask(`${base}/prompts`, { prompts: typedNow, version });
    offerFormer(prompts, promptsSaved, typedNow);
    [version, promptsSaved] = [saved.version, typedNow];
    said("prompts", `Saved ${plural(saved.prompts, "prompt")}.`);
    // It is saved, whether or not this comes.
    await ask(`${base}/setup`).then(drawFacts, () => {});
  });

  onSubmit(moved, "moved", async () => {
    await ask(`${base}/model`, { model: { ...model, ...modelOf(moved) }, download: moved.elements.download.checked });
    const found = await ask(`${base}/setup`).catch(() => null);
    if (found) {
      drawFacts(found);
      fillModel(found);
      defaults = found.defaults;
      drawDefaults();
    }
    said("moved", "Saved. Runs that are asked for from now on use it; a waiting or resumed one looks where the model was before.");
  });

  onSubmit(renamed, "renamed", async () =>
    go((await ask(`${base}/rename`, { name: renamed.elements.name.value.trim() })).project),
  );
  find("remove").onclick = (event) =>
    sending("renamed", event.currentTarget, async () => go((await ask(`${base}/remove`, {})).open));

  onSubmit(create, "create", async () => {
    const value = (name) => create.elements[name].value.trim();
    const made = await ask("/api/projects", {
      name: value("name"),
      model: modelOf(create),
      download: create.elements.download.checked,
      prompts: create.elements.prompts.value,
      seed_pairs: typed(create.elements.seed_pairs),
      settings: { sampling: Object.fromEntries(SAMPLING.filter((one) => value(`sampling.${one}`)).map((one) => [one, typed(create.elements[`sampling.${one}`])])) },
    });
    leaving = true;
    location.search = new URLSearchParams({ project: made.project });
  });

  // Beyond it a browser drops what is typed without a word.
  const { name } = create.elements;
  name.addEventListener("input", () => {
    const isFull = name.value.length >= name.maxLength;
    find("create-name-hint").textContent = isFull ? `A name has ${name.maxLength} characters at most.` : "";
  });

  /** How many there are, and whether that is enough. */
  function countPrompts(form) {
    const count = promptsIn(form.elements.prompts.value).size;
    const enough = count < ENOUGH_PROMPTS ? ": enough to try; two hundred or more to learn a taste" : "";
    form.querySelector('[data-part="count"]').textContent = count ? `${plural(count, "prompt")}${enough}.` : "";
    tellStrange(form);
  }

  /** Words that its model does not know. */
  function tellStrange(form) {
    const place = form.querySelector('[data-part="strange"]');
    place.textContent = strange(form.elements.prompts.value, known.get(form));
    place.parentElement.hidden = !place.textContent;
  }

  for (const form of [create, prompts]) form.elements.prompts.addEventListener("input", () => countPrompts(form));
  for (const form of [create, moved])
    form.elements["model.source"].addEventListener("input", () => offerHub(form));

  /** What is drawn with where nothing is entered, as far as the app can see it. */
  async function drawSampling() {
    const { source, revision } = modelOf(create);
    const asked = new URLSearchParams({ source, ...(revision && { revision }) });
    const usual = await ask(`/api/models/sampling?${asked}`).catch(() => ({}));
    if (modelOf(create).source !== source) return;
    known.set(create, usual.words);
    tellStrange(create);
    for (const one of ["steps", "guidance"]) create.elements[`sampling.${one}`].placeholder = usual[one] ?? "";
  }

  for (const field of ["model.source", "model.revision"]) create.elements[field].addEventListener("change", drawSampling);
  drawSampling();

  /** Puts prompts into a form in place of those that are there. */
  function takePrompts(form, text) {
    const box = form.elements.prompts;
    const before = box.value;
    box.value = text;
    box.dispatchEvent(new Event("input"));
    box.focus();
    offerFormer(form, before, text);
  }

  /** What went out of a form's prompts can be had again. */
  function offerFormer(form, before, now) {
    const stay = promptsIn(now);
    const gone = [...promptsIn(before)].filter((prompt) => !stay.has(prompt)).length;
    const place = form.querySelector('[data-part="former"]');
    const back = form === prompts ? "Put back what was there, to be saved" : "Put back what was there";
    place.hidden = !gone;
    place.replaceChildren(
      h("span", { class: "sail-dim" }, `${plural(gone, "former prompt")} went.`),
      h("button", { type: "button", class: "sail-quiet", onclick: () => takePrompts(form, before) }, back),
    );
  }

  find("create-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    // Else the same file, once it is mended, would be no change.
    event.target.value = "";
    if (!file) return;
    unmark(create);
    const refuse = (sentence) => mark(create, [{ field: "prompts", sentence }], (path) => create.elements[path]);
    try {
      const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
      if (text.trim()) takePrompts(create, text);
      else refuse(`${file.name} has no prompts.`);
    } catch {
      refuse(`${file.name} is no text in UTF-8. Save it as UTF-8, or paste its lines here.`);
    }
  });
  find("create-copy").addEventListener("click", () => takePrompts(create, prompts.elements.prompts.value));

  const isFilledIn = () =>
    [...create.querySelectorAll('textarea, input:not([type="checkbox"], [type="file"])')].some(
      (field) => field.value.trim() !== field.defaultValue,
    );
  // Before anything is loaded the fields are empty, and so they are unchanged.
  const isChanged = () => version !== null && (prompts.elements.prompts.value !== promptsSaved || changedHere().length > 0);
  addEventListener("beforeunload", (event) => (isFilledIn() || isChanged()) && !leaving && event.preventDefault());

  loadUntilHeard();
}
