// Try: a prompt with base and any rounds, side by side on the same noise; what was tried before stays below.

import { act, ask, askAnew, base, beEager, endedEarly, isActive, locked, onStatus, Refused, whyNot } from "/ui/core.js";
import { enlarge } from "/ui/enlarge.js";
import { mark, unmark } from "/ui/fields.js";
import { h, isShown, put } from "/ui/page.js";
import { keepUp, runBlock, runButton, standing } from "/ui/runs.js";
import { strange } from "/ui/strange.js";
import { roundTitle } from "/ui/words.js";

const LARGEST_SEED = 999_999;
const NAME_CHARS = 60;
const NOT_IN_NAMES = /[^\p{L}\p{N} ,.×-]+/gu;

export function mount(root) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const [form, list, choices] = [find("try-form"), find("tries"), find("try-rounds")];
  const field = form.elements;
  const places = new Map();
  let status = null;
  let tries = [];
  let seen = "";
  let loading = null;
  let known = null; // words, where the model knows few

  /** What came in while one was loading is loaded after it. */
  function load(key) {
    loading = Promise.resolve(loading)
      .then(() => ask(`${base}/tries`))
      .then((answer) => {
        if (key) seen = key;
        ({ tries } = answer);
        known = answer.words;
        find("try-starter").hidden = !known;
        tellStrange();
        draw();
        root.dataset.mounted = "yes";
      })
      .catch(askAnew);
    return loading;
  }

  // The form

  function tellStrange() {
    const words = strange(field.prompt.value, known);
    find("try-strange").hidden = !words;
    find("try-strange").textContent = words && `It does not know: ${words}`;
  }

  function drawChoices() {
    const rounds = [null, ...status.rounds.map((one) => one.round)];
    const key = JSON.stringify(rounds);
    if (choices.dataset.key === key) return;
    const before = choices.dataset.key ? chosen() : null;
    choices.dataset.key = key;
    const newest = status.current ?? rounds.at(-1);
    for (const old of choices.querySelectorAll("label")) old.remove();
    choices.append(
      ...rounds.map((round) => {
        const checked = round === null || round === newest;
        const box = h("input", {
          type: "checkbox",
          value: round ?? "base",
          "data-testid": `try-${round ?? "base"}`,
        });
        box.checked = before ? before.includes(round) || round === newest : checked;
        return h("label", { class: "sail-check" }, box, roundTitle(round));
      }),
    );
  }

  function chosen() {
    const boxes = [...choices.querySelectorAll("input:checked")];
    return boxes.map((box) => (box.value === "base" ? null : Number(box.value)));
  }

  function drawStrength() {
    find("try-strength-value").textContent = Number(field.strength.value).toFixed(2);
  }

  function fill(one) {
    field.prompt.value = one.prompt;
    field.count.value = one.count;
    field.noise_seed.value = one.noise_seed;
    field.strength.value = one.looks.find((look) => look.round != null)?.strength ?? 1;
    const rounds = one.looks.map((look) => look.round);
    for (const box of choices.querySelectorAll("input"))
      box.checked = rounds.includes(box.value === "base" ? null : Number(box.value));
    drawStrength();
    tellStrange();
    field.prompt.focus();
    form.scrollIntoView({ block: "nearest" });
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = find("try-submit");
    unmark(form);
    find("try-error").textContent = "";
    find("try-state").textContent = "Asking…";
    try {
      await locked(button, async () => {
        await ask(`${base}/tries`, {
          prompt: field.prompt.value,
          rounds: chosen(),
          strength: Number(field.strength.value),
          count: Number(field.count.value),
          // What is no number is an empty field to the browser.
          noise_seed: field.noise_seed.value === "" ? null : Number(field.noise_seed.value),
        });
        await act(button, () => load());
      });
    } catch (error) {
      const faults = error instanceof Refused ? error.faults : [];
      find("try-error").textContent = faults.length ? mark(form, faults, (path) => field[path]) : whyNot(error);
    } finally {
      find("try-state").textContent = "";
      draw();
    }
  });

  field.prompt.addEventListener("keydown", (event) => {
    // Safari ends a composition with a key of this code.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!event.repeat && !find("try-submit").disabled) form.requestSubmit();
  });
  field.prompt.addEventListener("input", tellStrange);
  field.strength.addEventListener("input", drawStrength);
  find("try-other-seed").addEventListener("click", () => {
    field.noise_seed.value = Math.floor(Math.random() * (LARGEST_SEED + 1));
  });

  // What was tried

  function draw() {
    const runs = new Map(status.runs.map((run) => [run.id, run]));
    const active = (one) => isActive(runs.get(one.run.id) ?? one.run);
    beEager(isShown(root) && tries.some((one) => one.mine && active(one)), "try");
    for (const one of tries) {
      const id = one.run.id;
      if (!places.has(id))
        places.set(id, h("section", { class: "sail-card sail-try-one", "data-testid": `try-run-${id}` }));
      const run = runs.get(id) ?? one.run;
      put(places.get(id), [one, standing(run)], () => card(one, run));
      if (isActive(run)) keepUp(places.get(id), run, status);
    }
    put(
      list,
      tries.map((one) => one.run.id),
      () =>
        tries.length
          ? tries.map((one) => places.get(one.run.id))
          : h("p", { class: "sail-dim" }, "Nothing was tried yet. The last twelve tries stay here."),
    );
  }

  function card(one, run) {
    const again = h("button", { type: "button", class: "sail-quiet" }, "Use again");
    again.addEventListener("click", () => fill(one));
    return [
      h(
        "div",
        { class: "sail-row" },
        h("h3", { class: "sail-grow" }, one.prompt),
        h("span", { class: "sail-dim" }, `noise seed ${one.noise_seed}`),
        again,
      ),
      isActive(run) ? runBlock(run, `try-${run.id}`) : endedEarly(run) && stopped(run),
      columns(one, run),
    ];
  }

  const stopped = (run) =>
    h(
      "div",
      { class: "sail-row" },
      h("span", { class: run.state === "stopped" ? "sail-dim" : "sail-error" }, run.message),
      runButton(run, "resume", "Resume", "try-resume"),
    );

  /** A column a look, a row an index: images in one row started from the same noise. */
  function columns(one, run) {
    if (!isActive(run) && !one.looks[0].images.length) return null;
    return h(
      "div",
      { class: "sail-looks" },
      one.looks.map((look) =>
        h(
          "figure",
          {},
          h("figcaption", {}, lookName(look)),
          Array.from({ length: one.count }, (_, index) =>
            look.images[index] ? image(one, look, index) : h("div", { class: "sail-blank" }),
          ),
        ),
      ),
    );
  }

  /** A click shows it as large as may be, beside base's of the same noise. */
  function image(one, look, index) {
    const { prompt, looks } = one;
    const shownAs = (other) => ({
      src: other.images[index],
      alt: `${prompt}, ${roundTitle(other.round)}`,
      words: lookName(other),
    });
    const beside = look === looks[0] ? looks[1] : looks[0];
    const two = [beside, look].filter((other) => other?.images[index]);
    const large = h(
      "button",
      {
        type: "button",
        class: "sail-plain",
        title: "Enlarge",
        onclick: () => enlarge(prompt, looks.filter((other) => two.includes(other)).map(shownAs)),
      },
      h("img", { src: look.images[index], alt: `${prompt}, ${roundTitle(look.round)}`, loading: "lazy" }),
    );
    const name = `${prompt.slice(0, NAME_CHARS)}, ${lookName(look)}, noise seed ${one.noise_seed}, ${index + 1}`;
    const link = { href: look.images[index], download: `${name.replace(NOT_IN_NAMES, "-")}.png` };
    return h("div", {}, large, h("a", { ...link, "aria-label": `Download ${lookName(look)}, image ${index + 1}` }, "Download"));
  }

  const lookName = ({ round, strength }) =>
    round == null || strength === 1 ? roundTitle(round) : `${roundTitle(round)} × ${strength}`;

  onStatus((now) => {
    status = now;
    drawChoices();
    const key = JSON.stringify(now.runs.filter((run) => run.job === "try").map((run) => [run.id, run.state]));
    if (key !== seen) load(key);
    draw();
  });
}
