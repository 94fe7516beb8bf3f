// Approving the clear pairs in one go: over which margin, which pairs, how often the judge errs there; and
// taking it back. Knows pairs; decides none by itself.

import { act, ask, base, patience } from "/ui/core.js";
import { h, put } from "/ui/page.js";
import { typical, when } from "/ui/selfpair.js";
import { percent, plural } from "/ui/words.js";

const FIRST_OVER = 1;

/** `afterAll` sends after what was decided, `changed` loads what holds then, `look` shows one pair. */
export function bulk(root, { afterAll, changed, look }) {
  const find = (id) => root.querySelector(`[data-testid="${id}"]`);
  const [slider, open, preview] = [find("bulk-threshold"), find("bulk-open"), find("bulk-preview")];
  let review = null;

  const threshold = () => review.audit.by_threshold[Number(slider.value)];
  const clear = () =>
    review.pairs.filter((pair) => pair.judge && !pair.said && pair.judge.clarity >= threshold().over);

  /** Brings the card up to these pairs. */
  function show(now) {
    const first = review?.run !== now.run;
    review = now;
    if (first) {
      const thresholds = review.audit.by_threshold;
      slider.max = thresholds.length - 1;
      slider.value = thresholds.findIndex(({ over }) => over === FIRST_OVER);
      expand(false);
    }
    find("bulk").hidden = !review.audit.done || !review.pairs.length;
    draw();
  }

  function draw() {
    const pairs = clear();
    const { over, error } = threshold();
    find("bulk-value").textContent = typical(over);
    open.textContent = `Approve all with margin over ${typical(over)} (${plural(pairs.length, "pair")}; ${audited(error)})`;
    open.disabled = !pairs.length;
    if (!pairs.length) expand(false);
    find("bulk-approve").textContent = `Approve ${pairs.length === 1 ? "this pair" : `these ${pairs.length} pairs`}`;
    if (!preview.hidden) put(find("bulk-thumbs"), [review.run, pairs.map((pair) => pair.id)], () => pairs.map(thumb));
    drawLast();
  }

  function audited({ value, low, high }) {
    if (value == null) return "none audited";
    return `audited error ${percent(value)} (${Math.round(100 * low)} to ${Math.round(100 * high)})`;
  }

  function drawLast() {
    const last = review.bulk;
    find("bulk-last").hidden = !last;
    if (!last) return;
    const what = `${plural(last.pairs, "pair")} with margin over ${typical(last.threshold)}`;
    find("bulk-said").textContent = `Approved by ${last.by} in one go: ${what}, ${when(last.at)}.`;
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

  slider.addEventListener("input", draw);
  open.addEventListener("click", () => {
    expand(preview.hidden);
    draw();
  });
  find("bulk-cancel").addEventListener("click", () => expand(false));

  find("bulk-approve").addEventListener("click", (event) =>
    act(event.currentTarget, async () => {
      const body = {
        uuid: crypto.randomUUID(),
        run: review.run,
        threshold: threshold().over,
        pairs: clear().map((pair) => pair.id),
      };
      await afterAll(() => ask(`${base}/reviews/bulk`, body, { signal: patience() }));
      expand(false);
      await changed();
    }),
  );

  find("bulk-undo").addEventListener("click", (event) =>
    act(event.currentTarget, async () => {
      const body = { uuid: crypto.randomUUID(), bulk: review.bulk.uuid };
      await afterAll(() => ask(`${base}/reviews/bulk/undo`, body, { signal: patience() }));
      await changed();
    }),
  );

  return { show, draw };
}
