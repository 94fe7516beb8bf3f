// Export: what it holds, the run that writes it, the files.

import { act, ask, askAnew, base, isActive, onStatus, openTab } from "/ui/core.js";
import { actionButton, factTable, h, isShown, put, putParts } from "/ui/page.js";
import { keepUp, runBlock } from "/ui/runs.js";
import { dayAndTime, percent, plural, size } from "/ui/words.js";

const BESIDE_BASE = " against base";

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const button = find("export");
  const merged = find("merged").querySelector("input");
  find("download-history").href = `${base}/history.csv`;
  let seen = "";
  let state = null;
  let exported = null; // the newest export of the current round

  onStatus((status) => {
    state = status;
    drawState();
    root.dataset.mounted = "yes";
    if (!isShown(root)) return;
    // What it holds changes with labels, rounds and finished exports.
    const key = JSON.stringify([
      status.current,
      status.newest_label,
      status.review,
      status.runs.filter((run) => run.job === "export").map((run) => [run.id, run.state]),
    ]);
    if (key !== seen) {
      seen = key;
      load();
    }
  });

  async function load() {
    const asked = seen;
    const found = await ask(`${base}/export`).catch(() => null);
    if (asked !== seen) return;
    if (!found) {
      seen = "";
      return askAnew();
    }
    find("export-facts").replaceChildren(...(found.round ? [facts(found.facts)] : nothingYet()));
    button.hidden = find("merged").hidden = !found.round;
    find("merged-size").textContent = found.merged_bytes ? `, about ${size(found.merged_bytes)} in float32` : ", in float32";
    exported = found.round && found.exports.find((one) => one.round === found.round.round);
    button.className = exported ? "sail-quiet" : "sail-primary";
    button.textContent = found.round ? `Export round ${found.round.round}${exported ? " again" : ""}` : "";
    find("exports").hidden = !found.exports.length;
    put(find("export-list"), [found.exports, found.round], () => found.exports.map((one) => row(one, found.round)));
    drawState();
    find("export-preferences").replaceChildren(
      ...(found.preferences
        ? [
            h(
              "a",
              { href: `${base}/preferences.parquet`, class: "sail-quiet", download: true, "data-testid": "download-preferences" },
              `Download ${plural(found.preferences, "row")} as parquet`,
            ),
            h(
              "p",
              { class: "sail-dim" },
              `${plural(found.by_people, "answer")} of people, all but skips; ${plural(found.by_model, "pair")} that the model judged.`,
            ),
            h(
              "a",
              {
                href: `${base}/preferences.parquet?people=false`,
                class: "sail-quiet",
                download: true,
                "data-testid": "download-to-publish",
              },
              "Download them without the columns about people, to publish them",
            ),
            h("p", { class: "sail-dim" }, "Prompts and images stay in it: look through them before you do."),
          ]
        : [h("span", { class: "sail-dim" }, "Nothing is judged yet.")]),
    );
  }

  function nothingYet() {
    return [
      h(
        "p",
        { class: "sail-dim", style: "margin-bottom:.9rem" },
        "No trained round is current, so there is no adapter to take away. Train a round, or make one current in Rounds.",
      ),
      actionButton("Open Rounds", "export-rounds", () => openTab("rounds"), true),
    ];
  }

  function facts(found) {
    const shown = (name, value) => {
      if (value === null) return "not measured";
      if (typeof value !== "number") return String(value);
      if (name.endsWith(BESIDE_BASE)) return `${value.toFixed(2)} × base's`;
      return /share|ratio/.test(name) ? percent(value) : String(value);
    };
    return factTable(Object.entries(found).map(([name, value]) => [name.replace(BESIDE_BASE, ""), shown(name, value)]));
  }

  /** One export: what it is of, when it was made, one file to take away, and what is in it. */
  function row(one, round) {
    return h(
      "li",
      { "data-testid": `export-${one.id}` },
      h(
        "div",
        { class: "sail-row" },
        h("strong", {}, `Round ${one.round}`),
        round?.round === one.round && h("span", { class: "sail-chip", "data-state": "current" }, "current"),
        h("span", { class: "sail-dim sail-grow" }, `${dayAndTime(one.at)} · ${size(one.bytes)}`),
        h(
          "a",
          {
            class: "sail-primary",
            href: `${base}/export/${one.id}.zip`,
            download: true,
            "data-testid": `download-${one.id}`,
          },
          `Download ${one.name}`,
        ),
      ),
      one.pipeline &&
        h(
          "p",
          { "data-testid": `pipeline-${one.id}` },
          `The whole pipeline, ${size(one.pipeline.bytes)}, lies in `,
          h("code", {}, one.pipeline.folder),
          " (not in the zip). DiffusionPipeline.from_pretrained reads that folder.",
        ),
      h(
        "details",
        {},
        h("summary", {}, plural(one.files.length, "file")),
        h("ul", { class: "sail-list" }, one.files.map((file) => fileRow(one, file))),
      ),
    );
  }

  function fileRow(one, file) {
    return h(
      "li",
      {},
      h("a", { href: `${base}/export/${one.id}/${file.index}`, download: true }, file.path.replace(/^export\//, "")),
      h("span", { class: "sail-dim" }, ` ${size(file.bytes)} · sha256 `),
      h("code", { title: file.sha256 }, file.sha256.slice(0, 12)),
    );
  }

  function drawState() {
    const run = state.runs.find((one) => one.job === "export");
    const busy = Boolean(run && isActive(run));
    const place = find("export-run");
    button.disabled = busy;
    place.hidden = !busy;
    putParts(place, busy ? [runBlock(run, "export")] : []);
    if (busy) keepUp(place, run, state);
    find("export-state").textContent = busy || !state.rounds.length
      ? ""
      : run && run.state !== "done"
        ? `The last export ${run.state}. ${run.message}`
        : exported
          ? `Its file is below. Unpacked, diffusers takes it with load_lora_weights("lora"); its README.md says which file other tools take.`
          : "A LoRA for diffusers, ComfyUI and others with its model card, as one file.";
  }

  button.addEventListener("click", () => act(button, () => ask(`${base}/runs`, { job: "export", merged: merged.checked })));
}
