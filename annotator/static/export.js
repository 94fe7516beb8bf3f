// Export: what it holds, the run that writes it, the files.

import { act, ask, base, doing, h, isActive, onStatus, plural, size } from "/ui/core.js";

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const button = find("export");
  let seen = "";
  let state = null;

  onStatus((status) => {
    state = status;
    drawState();
    // What it holds changes with labels, rounds and finished exports.
    const key = JSON.stringify([
      status.current,
      status.labels.labelled,
      status.review,
      status.runs.filter((run) => run.job === "export").map((run) => [run.id, run.state]),
    ]);
    if (key !== seen) {
      seen = key;
      load();
    }
  });

  async function load() {
    const found = await ask(`${base}/export`).catch(() => null);
    if (!found) return void (seen = "");
    find("export-facts").replaceChildren(
      found.round
        ? facts(found.facts)
        : h(
            "p",
            { class: "sail-dim" },
            "No round is accepted yet, so there is no adapter to export. Train a round first.",
          ),
    );
    button.hidden = !found.round;
    button.textContent = found.round ? `Export round ${found.round.round}` : "";
    find("export-files").replaceChildren(
      ...(found.run?.files.length ? [h("h3", {}, filesTitle(found)), files(found.run)] : []),
    );
    find("export-preferences").replaceChildren(
      ...(found.preferences
        ? [
            h(
              "a",
              { href: `${base}/preferences.parquet`, download: true, "data-testid": "download-preferences" },
              `Download ${plural(found.preferences, "judged pair")} as parquet`,
            ),
            h(
              "p",
              { class: "sail-dim" },
              `${plural(found.by_people, "answer")} of people, all but skips; ${plural(found.by_model, "pair")} that the model judged.`,
            ),
          ]
        : [h("span", { class: "sail-dim" }, "Nothing is judged yet.")]),
    );
    root.dataset.mounted = "yes";
  }

  function filesTitle({ run, round }) {
    const older = round && run.round !== round.round;
    return older ? `Files of round ${run.round}, not of the current round` : `Files of round ${run.round}`;
  }

  function facts(found) {
    const shown = (value) =>
      value == null
        ? "not measured"
        : typeof value === "number" && !Number.isInteger(value)
          ? value.toFixed(3)
          : String(value);
    return h(
      "table",
      { class: "sail-table" },
      h(
        "tbody",
        {},
        Object.entries(found).map(([name, value]) =>
          h("tr", {}, h("td", { class: "sail-dim" }, name), h("td", {}, shown(value))),
        ),
      ),
    );
  }

  function files(run) {
    return h(
      "table",
      { class: "sail-table" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["File", "Size", "sha256"].map((head) => h("th", { scope: "col" }, head)),
        ),
      ),
      h(
        "tbody",
        {},
        run.files.map((file) =>
          h(
            "tr",
            {},
            h(
              "td",
              {},
              h(
                "a",
                {
                  href: `${base}/export/${run.id}/${file.index}`,
                  download: true,
                  "data-testid": `download-${file.index}`,
                },
                file.path.replace(/^export\//, ""),
              ),
            ),
            h("td", {}, size(file.bytes)),
            h("td", {}, h("code", { title: file.sha256 }, file.sha256.slice(0, 12))),
          ),
        ),
      ),
    );
  }

  function drawState() {
    const run = state.runs.find((one) => one.job === "export");
    const busy = run && isActive(run);
    button.disabled = Boolean(busy);
    find("export-state").textContent = busy
      ? doing(run)
      : run && run.state !== "done"
        ? `The last export ${run.state}. ${run.message}`
        : run
          ? `Round ${run.round} is exported. Load it with load_lora_weights("lora").`
          : "";
  }

  button.addEventListener("click", () => act(button, () => ask(`${base}/runs`, { job: "export" })));
}
