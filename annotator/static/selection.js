// Which cards of a grid are selected: one, or a range from it. Knows elements, not what they mean.

export function selection(grid) {
  let at = null;
  let anchor = null;

  const cards = () => [...grid.querySelectorAll("article")];

  function select(index, { extend = false, focus = true } = {}) {
    const all = cards();
    if (index < 0 || index >= all.length) return;
    at = index;
    if (!extend || anchor === null) anchor = index;
    const [first, last] = range();
    all.forEach((card, place) => {
      card.toggleAttribute("data-selected", place >= first && place <= last);
      if (place === at) card.setAttribute("aria-current", "true");
      else card.removeAttribute("aria-current");
    });
    if (!focus) return;
    all[at].focus({ preventScroll: true });
    all[at].scrollIntoView({ block: "nearest" });
  }

  const range = () => [Math.min(at, anchor), Math.max(at, anchor)];

  return {
    select,
    /** Index of the card that keys act on; null where none is. */
    at: () => at,
    /** Indices of all that are selected, in order. */
    indices() {
      if (at === null) return [];
      const [first, last] = range();
      return Array.from({ length: last - first + 1 }, (_, offset) => first + offset);
    },
    /** Index of the card from which a range goes, and of the one that it goes to. */
    ends: () => [anchor, at],
    clear() {
      at = anchor = null;
      for (const card of cards()) {
        card.removeAttribute("data-selected");
        card.removeAttribute("aria-current");
      }
    },
  };
}
