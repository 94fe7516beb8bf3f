// Looking closer: both images zoomed at the same point, and the two flipped in place. Knows two frames, no pair.

const MOST = 8;
const STILL_PX = 6;

export class Look {
  flipped = false;
  scale = 1;
  #x = 0; // of the image's corner, in frames
  #y = 0;
  #place;
  #frames;
  #changed;
  #pointers = new Map();
  #moved = 0;

  /** `place` holds the two frames. `changed` is called when zoom or flip changes, `refused` when a click did not count. */
  constructor(place, { changed, refused }) {
    this.#place = place;
    this.#frames = [...place.querySelectorAll(".sail-image")];
    this.#changed = changed;
    for (const frame of this.#frames) this.#listen(frame);
    // While zoomed in a click is part of looking: it drags, or it is the first half of a double click.
    place.addEventListener(
      "click",
      (event) => {
        if (!event.detail || this.scale === 1) return;
        event.stopPropagation();
        if (this.#moved < STILL_PX) refused();
      },
      true,
    );
    place.addEventListener("dblclick", () => this.whole());
  }

  // Flip: each frame shows the other's image, so that a difference jumps in one place.

  flip(yes) {
    const images = this.#frames.map((frame) => frame.querySelector("img"));
    if (yes === this.flipped || !images.every(Boolean)) return;
    this.flipped = yes;
    this.#frames.forEach((frame, index) => frame.replaceChildren(images[1 - index]));
    this.#place.classList.toggle("sail-flipped", yes);
    this.#changed();
  }

  /** A new pair begins unflipped and whole. Its images are put after this. */
  fresh() {
    this.flipped = false;
    this.#place.classList.remove("sail-flipped");
    this.whole();
  }

  // Zoom

  whole() {
    this.#set(1, 0, 0);
  }

  closer(factor) {
    this.#zoom(0.5, 0.5, factor);
  }

  #zoom(x, y, factor) {
    const scale = Math.min(MOST, Math.max(1, this.scale * factor));
    const by = scale / this.scale;
    this.#set(scale, x - (x - this.#x) * by, y - (y - this.#y) * by);
  }

  #set(scale, x, y) {
    const inside = (corner) => Math.min(0, Math.max(1 - scale, corner));
    [this.scale, this.#x, this.#y] = [scale, inside(x), inside(y)];
    this.#place.style.setProperty("--zoom", scale);
    this.#place.style.setProperty("--x", `${100 * this.#x}%`);
    this.#place.style.setProperty("--y", `${100 * this.#y}%`);
    this.#place.classList.toggle("sail-zoomed", scale > 1);
    this.#changed();
  }

  #listen(frame) {
    const at = ({ clientX, clientY }) => {
      const box = frame.getBoundingClientRect();
      return { x: (clientX - box.left) / box.width, y: (clientY - box.top) / box.height, width: box.width };
    };
    frame.addEventListener(
      "wheel",
      (event) => {
        // What cannot zoom out further scrolls the page.
        if (event.deltaY > 0 && this.scale === 1) return;
        event.preventDefault();
        const { x, y } = at(event);
        this.#zoom(x, y, Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)));
      },
      { passive: false },
    );
    frame.addEventListener("pointerdown", (event) => {
      if (!this.#pointers.size) this.#moved = 0;
      this.#pointers.set(event.pointerId, at(event));
    });
    frame.addEventListener("pointermove", (event) => {
      const before = this.#pointers.get(event.pointerId);
      if (!before) return;
      const now = at(event);
      this.#moved += Math.hypot(now.x - before.x, now.y - before.y) * now.width;
      const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
      this.#pointers.set(event.pointerId, now);
      if (other) this.#pinch(before, now, other);
      else if (this.scale > 1) {
        frame.setPointerCapture(event.pointerId);
        this.#set(this.scale, this.#x + now.x - before.x, this.#y + now.y - before.y);
      }
    });
    for (const end of ["pointerup", "pointercancel", "pointerleave"])
      frame.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
  }

  #pinch(before, now, other) {
    const apart = (one) => Math.max(0.01, Math.hypot(one.x - other.x, one.y - other.y));
    this.#zoom((now.x + other.x) / 2, (now.y + other.y) / 2, apart(now) / apart(before));
    this.#set(this.scale, this.#x + (now.x - before.x) / 2, this.#y + (now.y - before.y) / 2);
  }
}
