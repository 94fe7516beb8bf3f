// How far labelling is, and what stands where the pair was when there is none: what comes next, with buttons that
// train, draw and resume. Takes no answer.

import { act, ask, base, beEager, endedEarly, isActive, openTab, train as askToTrain } from "/ui/core.js";
import { answered, toLearnFrom } from "/ui/counts.js";
import { actionButton as button, drawUnsent, h, putParts, readOut, text, title } from "/ui/page.js";
import { keepUp, runBlock, runButton } from "/ui/runs.js";
import { duration, plural } from "/ui/words.js";

export class Progress {
  counts = null;
  status = null;
  usualMs = null;
  #find;
  #answers;
  #pairs;
  #message;

  constructor(find, answers, pairs) {
    [this.#find, this.#answers, this.#pairs] = [find, answers, pairs];
    this.#message = find("label-message");
    find("train-early").addEventListener("click", (event) => act(event.currentTarget, train));
  }

  hear({ labels, usual_ms }) {
    this.counts = labels;
    this.usualMs = usual_ms;
    this.draw();
  }

  follow(status) {
    this.status = status;
    // While labels are on their way the status is from before them.
    if (!this.#answers.sending && !this.#answers.waiting.length) this.counts = status.labels;
    this.draw();
  }

  draw() {
    this.#drawBadge();
    this.#drawMessage();
    if (this.counts) this.#drawCounts();
  }

  #drawBadge() {
    drawUnsent(this.#find("unsent"), this.#answers.waiting.length, this.#answers.failures > 0);
    this.#find("answer-undo").disabled = this.#find("answer-reasons").disabled = !this.#answers.past.length;
  }

  #drawCounts() {
    const { counts, usualMs, status } = this;
    const done = Math.max(0, counts.labelled + counts.skipped + this.#answers.unheard);
    const total = Math.max(counts.planned, done);
    const pace = usualMs ? ` · ${(usualMs / 1000).toFixed(1)} s each` : "";
    const left = usualMs && total > done ? ` · about ${duration(((total - done) * usualMs) / 1000)} left` : "";
    const text = this.#find("label-progress");
    // Of those that are on their way nobody knows yet whether they count.
    const lacks = status?.next.name === "label" ? counts.needed - counts.trainable : 0;
    const enough = lacks > 0 ? ` · ${plural(lacks, "more choice")} until it can learn` : "";
    text.textContent = total ? `${done} of ${total} answered${pace}${left}${enough}` : "";
    text.title = done ? answered(counts) : "";
    Object.assign(this.#find("label-bar"), { max: Math.max(total, 1), value: done });
    const early = this.#find("train-early");
    const training = status?.runs.some((run) => run.job === "train" && isActive(run));
    early.hidden = !(this.#pairs.first && status?.next.name === "train" && !training);
    if (!early.hidden) early.textContent = `Train round ${status.next.round} now`;
  }

  #drawMessage() {
    const { counts, status } = this;
    const none = !this.#pairs.first;
    this.#message.hidden = !none || !counts || !status;
    const heading = this.#find("label-heading");
    if (this.#message.hidden) heading.textContent = "";
    const drawing = status?.runs.find((run) => run.job === "draw" && isActive(run));
    beEager(Boolean(none && drawing));
    if (this.#message.hidden) return;
    const parts = this.#nothingLeft(drawing);
    // By touch there is no other way back: the buttons went with the last pair.
    const undo = this.#answers.past.length && h("button", { type: "button", class: "sail-quiet", "data-answer": "undo", "data-testid": "undo-last" }, "Undo the last answer");
    putParts(this.#message, [...parts, undo]);
    if (drawing) keepUp(this.#message, drawing, status);
    const words = readOut(parts);
    if (heading.textContent !== words) heading.textContent = words;
  }

  #nothingLeft(drawing) {
    const last = this.status.runs.find((run) => run.job === "draw");
    if (drawing) return this.#drawing(drawing);
    if (this.#pairs.failed)
      return [title("The next pairs are not here yet"), text("They are asked for again by themselves. Nothing you answered is lost.")];
    if (this.#pairs.asking) return [title("Looking for more pairs…")];
    if (this.#pairs.withOthers) return this.#withOthers();
    if (last && endedEarly(last)) return this.#stopped(last);
    if (!this.counts.drawn) return [title("No pairs are drawn yet"), drawFirst(true)];
    return this.#allDone();
  }

  /** What it was asked for holds when it is resumed; where a model was moved since, or has no room, only another can
   * help. */
  #stopped(run) {
    const on = this.#goesOn();
    // The same would mostly fail again.
    const anew = run.state === "failed";
    return [
      title("Drawing pairs stopped"),
      text(`${run.message} What was changed in Setup since counts only for what is drawn anew.`.trim()),
      runButton(run, "resume", "Resume", "resume-draw", !on?.primary && !anew),
      on ? drawMore(20, !on.primary && anew) : drawFirst(anew),
      ...(on ? [...on.parts, on.primary] : []),
    ];
  }

  #drawing(run) {
    // Who comes for the first time has a minute to read, and nobody has told them yet what this is.
    const purpose =
      "You will see pairs of images of the same prompt. Pick the one that you like better: after a few dozen picks the model starts to learn your taste.";
    return [runBlock(run, "label"), !this.counts.labelled && text(purpose)];
  }

  #withOthers() {
    const { withOthers, holders } = this.#pairs;
    return [
      title(`${plural(withOthers, "pair is", "pairs are")} with other people right now`),
      text(`Shown to ${listed(holders)} a moment ago; who is away for some minutes keeps no pair from you.`),
    ];
  }

  #allDone() {
    const { parts, primary, draws } = this.#goesOn();
    const { drawn } = this.counts;
    return [
      title(drawn === 1 ? "The one pair is answered" : `All ${plural(drawn, "pair")} are answered`),
      ...parts,
      primary,
      draws && drawMore(20, !primary),
    ];
  }

  /** What comes after the pairs that are drawn, null where none is: `parts` say how things stand, `primary` is the button
   * that goes on in the loop, null where more pairs are needed first, and `draws` whether they are offered beside it. */
  #goesOn() {
    const { counts, status } = this;
    const { next } = status;
    if (!counts.drawn) return null;
    const broken = `${plural(counts.withdrawn, "pair was", "pairs were")} withdrawn: an image is broken.`;
    const withdrawn = counts.withdrawn ? [text(broken)] : [];
    const said = [text(answered(counts)), ...withdrawn];
    const training = status.runs.find((run) => run.job === "train" && isActive(run));
    if (training)
      return {
        parts: [...said, text(`Round ${training.round} is being trained.`)],
        primary: button("Watch it in Rounds", "open-rounds", () => openTab("rounds"), true),
        draws: false,
      };
    if (next.name === "train")
      return {
        parts: [text(toLearnFrom(counts)), ...withdrawn],
        primary: button(`Train round ${next.round}`, "train", train, true),
        draws: true,
      };
    if (next.name === "label") {
      const lacks = `Training needs ${counts.needed} pairs with a winner beside those kept aside to check the model, and there are ${counts.trainable}.`;
      return { parts: [...said, text(lacks)], primary: null, draws: true };
    }
    const review = next.name === "review";
    const label = review ? "Review what the model chose" : `Go on with round ${next.round} in Rounds`;
    return {
      parts: said,
      primary: button(label, "go-on", () => openTab(review ? "review" : "rounds"), true),
      draws: true,
    };
  }
}

const listed = (names) => new Intl.ListFormat("en").format(names);

async function train() {
  await askToTrain();
  openTab("rounds");
}

const drawFirst = (primary) => drawing("Draw 60 pairs", 60, primary);
const drawMore = (count, primary = false) => drawing(`Draw ${count} more pairs`, count, primary);
const drawing = (words, count, primary) =>
  button(words, "draw-more", () => ask(`${base}/runs`, { job: "draw", count }), primary);
