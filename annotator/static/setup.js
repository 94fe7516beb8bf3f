// Setup: open, create and change projects.

import { ask, base, h, onStatus, plural, project, Refused } from "/ui/core.js";

const address = (name) => `?${new URLSearchParams({ project: name })}`;

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const [create, settings, prompts] = [find("create"), find("settings"), find("prompts")];
  let names = "";
  let loaded = {}; // the settings as this page last heard of them
  let version = null; // of the prompts that this page shows

  onStatus((status) => {
    if (status.projects.join("\n") === names) return;
    names = status.projects.join("\n");
    find("projects").replaceChildren(
      ...status.projects.map((name) =>
        h("li", {}, h("a", { href: address(name), "aria-current": name === project ? "page" : null }, name)),
      ),
    );
  });

  async function load() {
    const found = await ask(`${base}/setup`);
    part("title").textContent = found.name;
    const model = found.model.revision
      ? `${found.model.source} at ${found.model.revision}`
      : found.model.source;
    const rows = [
      ["Model", model],
      ["Folder", found.folder],
      ["Prompts", plural(found.prompts.split("\n").length, "prompt")],
    ];
    find("project-facts").replaceChildren(
      h(
        "table",
        { class: "sail-table" },
        h(
          "tbody",
          {},
          rows.map(([name, value]) =>
            h(
              "tr",
              {},
              h("td", { class: "sail-dim" }, name),
              h("td", { style: "overflow-wrap:anywhere" }, value),
            ),
          ),
        ),
      ),
    );
    prompts.elements.prompts.value = found.prompts;
    version = found.prompts_version;
    fill(found.settings);
    root.dataset.mounted = "yes";
  }

  const setting = (name) => String(name.split(".").reduce((value, key) => value?.[key], loaded) ?? "");

  function fill(found) {
    loaded = found;
    for (const input of settings.querySelectorAll("input")) input.value = setting(input.name);
  }

  /** Sends a form; what is refused is said beside its button. */
  function onSubmit(form, name, send) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      button.disabled = true;
      find(`${name}-error`).textContent = "";
      if (find(`${name}-saved`)) find(`${name}-saved`).textContent = "";
      try {
        await send();
      } catch (error) {
        find(`${name}-error`).textContent =
          error instanceof Refused ? error.message : "The app does not answer. Try again in a moment.";
      } finally {
        button.disabled = false;
      }
    });
  }

  function said(name, text) {
    find(`${name}-saved`).textContent = text;
    setTimeout(() => (find(`${name}-saved`).textContent = ""), 4000);
  }

  onSubmit(settings, "settings", async () => {
    const changes = {};
    for (const input of settings.querySelectorAll("input")) {
      // Only what was changed here: another page may have changed the rest since.
      if (input.value === setting(input.name)) continue;
      const keys = input.name.split(".");
      const last = keys.pop();
      const place = keys.reduce((value, key) => (value[key] ??= {}), changes);
      place[last] = input.value === "" ? null : Number(input.value);
    }
    fill((await ask(`${base}/settings`, { settings: changes })).settings);
    said("settings", "Saved.");
  });

  onSubmit(prompts, "prompts", async () => {
    if (version === null) throw new Refused("The prompts are still being loaded. Try again in a moment.");
    const saved = await ask(`${base}/prompts`, { prompts: prompts.elements.prompts.value, version });
    version = saved.version;
    said("prompts", `Saved ${plural(saved.prompts, "prompt")}.`);
    load();
  });

  onSubmit(create, "create", async () => {
    const value = (name) => create.elements[name].value.trim();
    const made = await ask("/api/projects", {
      name: value("name"),
      model: { source: value("model"), revision: value("revision") || null },
      download: create.elements.download.checked,
      prompts: create.elements.prompts.value,
      seed_pairs: Number(value("seed_pairs")),
    });
    location.search = address(made.project);
  });

  create.elements.model.addEventListener("input", () => {
    // Of a single file the hub may have the configuration.
    const hub = /^[\w.-]+\/[\w.-]+$|\.safetensors$/.test(create.elements.model.value.trim());
    part("revision").hidden = part("download").hidden = !hub;
  });
  find("create-file").addEventListener("change", async (event) => {
    const file = event.target.files[0];
    if (file) create.elements.prompts.value = await file.text();
  });

  load();
}
