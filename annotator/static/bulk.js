// Approving the clear pairs in one go: over which margin, which pairs, how often the judge errs there; and
// taking it back. Knows pairs; decides none by itself.

import { act, ask, base, keep, kept, patience, project } from "/ui/core.js";
import { h, put } from "/ui/page.js";
import { asClear, typical, when } from "/ui/selfpair.js";
import { FEW, interval, outOf, plural, POOR } from "/ui/words.js";

const FIRST_OVER = 1;

/** `said` are the decisions that it stands in line with, `changed` loads what holds then, `look` shows one pair. */
export function bulk(root, { said, changed, look }) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const [slider, open, preview] = [find("bulk-threshold"), find("bulk-open"), find("bulk-preview")];
  const lost = new Set(); // approvals that did not come about
  let review = null;

  /** How clear is clear is kept in this browser, one for each run: pairs of another are clear in another way. */
  const draft = () => `sail.clarity/${encodeURIComponent(project)}/${review.run}`;
  const threshold = () => review.audit.by_threshold[Number(slider.value)];
  const clear = () =>
    review.pairs.filter((pair) => pair.judge && !pair.said && pair.judge.clarity >= threshold().over);

  /** Brings the card up to these pairs. */
  function show(now) {
    const first = review?.run !== now.run;
    review = now;
    // It came about after all: the answer was lost and not the request.
    lost.delete(review.bulk?.uuid);
    if (first) {
      const thresholds = review.audit.by_threshold;
      slider.max = thresholds.length - 1;
      const indexOf = (over) => thresholds.findIndex((one) => one.over === over);
      const before = indexOf(Number(kept(draft()) ?? FIRST_OVER));
      slider.value = before < 0 ? indexOf(FIRST_OVER) : before;
      expand(false);
    }
    find("bulk").hidden = !review.audit.done || !review.pairs.length;
    draw();
  }

  function draw() {
    const pairs = clear();
    const { over, error } = threshold();
    find("bulk-value").textContent = typical(over);
    open.textContent = offer(pairs.length);
    const clearness = over ? `${asClear(over, "pair of this round")}.` : "However clear they are.";
    find("bulk-text").textContent = `${clearness[0].toUpperCase()}${clearness.slice(1)} ${audited(error)}`;
    slider.setAttribute("aria-valuetext", `${typical(over)}: ${open.textContent}. ${audited(error)}`);
    open.disabled = !pairs.length || isPoor(error);
    if (open.disabled) expand(false);
    find("bulk-approve").textContent = `Approve ${pairs.length === 1 ? "this pair" : `these ${pairs.length} pairs`}`;
    if (!preview.hidden) put(find("bulk-thumbs"), [review.run, pairs.map((pair) => pair.id)], () => pairs.map(thumb));
    drawLast();
  }

  function offer(count) {
    if (!count) return "No such pair is left";
    const isAll = count === review.pairs.filter((pair) => !pair.said).length;
    if (count === 1) return isAll ? "Approve the one left" : "Approve the clearest";
    return isAll ? `Approve all ${count} left` : `Approve the ${count} clearest`;
  }

  /** Whether the judge is too often wrong about these; where none of them was audited, about all. */
  const isPoor = (error) => (error.n ? error : review.audit.error).value >= POOR;

  function audited(error) {
    const found = error.n
      ? `Of those audited ${error.n < FEW ? outOf(error) : interval(error)} were wrong.`
      : "None of them was audited.";
    return isPoor(error) ? `${found} Too often wrong to approve in one go.` : found;
  }

  function drawLast() {
    const last = review.bulk;
    find("bulk-last").hidden = !last;
    if (!last) return;
    const clear = last.threshold ? ` ${asClear(last.threshold, "one")}` : "";
    find("bulk-said").textContent = `Approved by ${last.by} in one go: ${plural(last.pairs, "pair")}${clear}, ${when(last.at)}.`;
  }

  function thumb(pair) {
    const image = (side) => h("img", { loading: "lazy", src: pair[side], alt: "", "data-wins": side === pair.judge.side });
    const own = h(
      "button",
      { type: "button", title: pair.prompt, "aria-label": `${pair.prompt}: decide it by itself` },
      image("left"),
      image("right"),
    );
    own.addEventListener("click", () => look(pair));
    return own;
  }

  function expand(yes) {
    preview.hidden = !yes;
    open.setAttribute("aria-expanded", String(yes));
  }

  slider.addEventListener("input", () => {
    keep(draft(), String(threshold().over));
    draw();
  });
  open.addEventListener("click", () => {
    expand(preview.hidden);
    draw();
  });
  /** Closes the preview; says whether it was open. */
  function fold() {
    if (preview.hidden) return false;
    const focused = preview.contains(document.activeElement);
    expand(false);
    if (focused) open.focus();
    return true;
  }

  /** An approval, for undo, which knows it before the app does and takes it back in its turn. */
  function action(uuid, pairs) {
    const back = () => {
      takeBack(uuid).then((done) => done || said.remember(action(uuid, pairs)));
      return pairs;
    };
    return { uuid, back };
  }

  /** The last approval, for undo on a later visit; none where it is somebody else's. */
  const own = ({ bulk: last, pairs }) =>
    last?.by === "you" ? [{ at: last.at, ...action(last.uuid, pairs.filter((pair) => pair.said?.in_bulk)) }] : [];

  /** True once it is. */
  const takeBack = (uuid) =>
    act(find("bulk-undo"), async () => {
      const body = { uuid: crypto.randomUUID(), bulk: uuid };
      await said.afterAll(() => lost.has(uuid) || ask(`${base}/reviews/bulk/undo`, body, { signal: patience() }));
      said.forget(uuid);
      await changed();
      return true;
    });

  find("bulk-cancel").addEventListener("click", fold);
  find("bulk-undo").addEventListener("click", () => takeBack(review.bulk.uuid));
  find("bulk-approve").addEventListener("click", ({ currentTarget: button }) => {
    const byKey = button.matches(":focus-visible");
    return act(button, async () => {
      const [uuid, pairs] = [crypto.randomUUID(), clear()];
      const body = { uuid, run: review.run, threshold: threshold().over, pairs: pairs.map((pair) => pair.id) };
      said.remember(action(uuid, pairs));
      try {
        await said.afterAll(() => ask(`${base}/reviews/bulk`, body, { signal: patience() }));
      } catch (error) {
        lost.add(uuid);
        said.forget(uuid);
        throw error;
      }
      fold();
      await changed();
      // What was above it is gone, and it would lie under the bar.
      find("bulk-last").scrollIntoView({ block: "nearest" });
      if (byKey) (open.disabled ? find("bulk-undo") : open).focus({ preventScroll: true });
    });
  });

  return { show, fold, own };
}
