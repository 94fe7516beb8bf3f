// The bar on top: which project, and what the device does.

import { act, doing, h, isActive, onProjects, onStatus, openTab, project, Refused, rememberTab } from "/ui/core.js";
import { giveName, isNamed, nameShown, onName } from "/ui/names.js";

export function mount(root) {
  rememberTab();
  const select = root.querySelector("select");
  const device = root.querySelector(".sail-device");
  device.addEventListener("click", () => openTab("rounds"));
  select.addEventListener("change", () => {
    location.search = new URLSearchParams({ project: select.value });
  });
  mountName(root);
  onProjects((names) =>
    select.replaceChildren(
      // Where this page's is none of them, the first would look chosen, and could not be chosen.
      ...(names.includes(project) ? [] : [h("option", { value: "", selected: true, disabled: true }, "Choose…")]),
      ...names.map((name) => h("option", { value: name, selected: name === project }, name)),
    ),
  );
  onStatus((status) => {
    const runs = status.runs.filter(isActive);
    const first = runs.find((run) => run.state !== "waiting") ?? runs[0];
    device.dataset.state = first ? "busy" : status.elsewhere.length ? "elsewhere" : "idle";
    device.textContent = first
      ? doing(first)
      : status.elsewhere.length
        ? `Busy with ${status.elsewhere[0]}`
        : "Idle";
  });
}

/** What this person is called, to be changed at any time. */
function mountName(root) {
  const [button, dialog] = [root.querySelector(".sail-name"), root.querySelector('[data-testid="name-dialog"]')];
  const [form, input] = [dialog.querySelector("form"), dialog.querySelector("input")];
  const error = dialog.querySelector('[role="alert"]');
  onName(() => (button.textContent = nameShown()));
  button.addEventListener("click", () => {
    input.value = isNamed() ? nameShown() : "";
    input.placeholder = nameShown();
    error.textContent = "";
    dialog.showModal();
    input.focus();
  });
  dialog.querySelector('[data-part="cancel"]').addEventListener("click", () => dialog.close());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(form.querySelector(".sail-primary"), async () => {
      try {
        await giveName(input.value);
        dialog.close();
      } catch (refused) {
        error.textContent =
          refused instanceof Refused ? refused.message : "The app does not answer. Try again in a moment.";
      }
    });
  });
}
