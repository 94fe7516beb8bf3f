// The bar on top: which project, and what the device does.

import {
  act,
  addressOf,
  base,
  inTurn,
  keeps,
  onAway,
  onProjects,
  onStatus,
  openTab,
  poll,
  project,
  rememberTab,
  trouble,
  whyNot,
} from "/ui/core.js";
import { tellLate } from "/ui/decisions.js";
import { goByArrows, leaveToKeys, offerKeys } from "/ui/keys.js";
import { giveName, isNamed, nameShown, onName } from "/ui/names.js";
import { Outbox } from "/ui/outbox.js";
import { h } from "/ui/page.js";
import { Sending } from "/ui/sending.js";
import { doingElsewhere, doingInParts, percent, runTitle } from "/ui/words.js";

const SETTLED_MS = 1500;

export function mount(root) {
  rememberTab();
  leaveToKeys(document, '[role="tab"]');
  goByArrows();
  const select = root.querySelector("select");
  const device = root.querySelector(".sail-device");
  device.addEventListener("click", () => openTab("rounds"));
  chosen(select, () => {
    if (!select.value || select.value === project) return;
    location.search = addressOf(select.value);
    // Who stays for what they typed is still in this one.
    select.value = project;
  });
  if (!keeps())
    trouble(
      "The browser keeps no cookies or site data for this address, and without them nobody can answer here. Allow them and reload the page.",
      "storage",
    );
  sendLeftOver("sail.reviews", `${base}/reviews`, "A decision in Review", tellLate);
  sendLeftOver("sail.comparisons", `${base}/comparisons/answers`, "A comparison");
  sendLeftOver("sail.doubted", `${base}/labels`, "An answer in Rounds");
  mountName(root);
  offerKeys(root);
  onProjects((names) =>
    select.replaceChildren(
      // Where this page's is none of them, the first would look chosen, and could not be chosen.
      ...(names.includes(project) ? [] : [h("option", { value: "", selected: true, disabled: true }, "Choose…")]),
      ...names.map((name) => h("option", { value: name, selected: name === project }, name)),
    ),
  );
  // How far it was is not how far it is.
  onAway(() => (device.dataset.state = "away"));
  onStatus((status) => {
    const [first] = inTurn(status.runs);
    const [other] = status.elsewhere;
    device.dataset.state = first ? "busy" : other ? "elsewhere" : "idle";
    device.replaceChildren(...inParts(first, other).map((part) => h("span", {}, part)));
    // Who works elsewhere meanwhile sees how far it is.
    document.title = [far(first), project, "SAIL"].filter(Boolean).join(" · ");
  });
}

/** What the device does, for this project and for another one. Where there is no room for all of it, what stands at an
 * even place is cut (app.css): the long words, not how far it is. */
function inParts(run, other) {
  if (!run) return [other ? `Busy: ${doingElsewhere(other)}` : "Idle"];
  if (!other) return doingInParts(run);
  const own = run.state === "waiting" ? [`${runTitle(run)} waits`] : doingInParts(run);
  return [...own, ` · ${doingElsewhere(other)}`];
}

/** Its share done, where that is known. */
const far = (run) => run && run.state !== "waiting" && run.total > 1 && percent(run.step / run.total);

/** What an earlier visit said in a tab that is not opened now is sent as well. That tab may send it once more: by its
 * uuid the app takes each once. */
function sendLeftOver(kind, path, name, tell = () => {}) {
  const outbox = new Outbox(kind);
  if (!outbox.holds) return;
  const sending = new Sending(outbox, path, { name, heard: tell, changed() {}, sent: poll });
  sending.send();
  sending.holdTraining();
}

/** Arrow keys choose whatever they come by, so that by key it is chosen by Enter, by leaving, or after a while. */
function chosen(select, go) {
  let timer = 0;
  let byKey = false;
  select.addEventListener("pointerdown", () => (byKey = false));
  select.addEventListener("keydown", ({ key }) => {
    clearTimeout(timer);
    byKey = key !== "Enter";
    if (key === "Escape") select.value = project;
    if (!byKey) go();
  });
  select.addEventListener("change", () => (byKey ? (timer = setTimeout(go, SETTLED_MS)) : go()));
  select.addEventListener("blur", go);
}

/** What this person is called, to be changed at any time. */
function mountName(root) {
  const [button, dialog] = [root.querySelector(".sail-name"), root.querySelector('[data-testid="name-dialog"]')];
  const [form, input] = [dialog.querySelector("form"), dialog.querySelector("input")];
  const error = dialog.querySelector('[role="alert"]');
  let byPointer = false;
  // Else Space, which flips a pair, would open it again.
  dialog.addEventListener("close", () => byPointer && button.blur());
  onName(() => (button.textContent = nameShown()));
  button.addEventListener("click", ({ detail }) => {
    byPointer = detail > 0;
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
        error.textContent = whyNot(refused);
      }
    });
  });
}
