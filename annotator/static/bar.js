// The bar on top: which project, and what the device does.

import { doing, h, isActive, onStatus, openTab, project, rememberTab } from "/ui/core.js";

export function mount(root) {
  rememberTab();
  const select = root.querySelector("select");
  const device = root.querySelector(".sail-device");
  device.addEventListener("click", () => openTab("rounds"));
  select.addEventListener("change", () => {
    location.search = new URLSearchParams({ project: select.value });
  });
  onStatus((status) => {
    const names = status.projects.join("\n");
    if (select.dataset.names !== names) {
      select.dataset.names = names;
      select.replaceChildren(
        ...status.projects.map((name) => h("option", { value: name, selected: name === project }, name)),
      );
    }
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
