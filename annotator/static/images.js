// Images, loaded and decoded before they are needed, so that putting one on the page costs nothing.

export class Images {
  #known = new Map();

  /** A promise of the decoded image. */
  decoded(url) {
    if (!this.#known.has(url)) {
      const image = new Image();
      image.alt = "";
      image.draggable = false;
      image.src = url;
      this.#known.set(
        url,
        image.decode().then(() => image),
      );
      this.#known.get(url).catch(() => this.#known.delete(url));
    }
    return this.#known.get(url);
  }

  /** Load what comes next; forget all but that and what may come again. */
  ahead(wanted, again = []) {
    const kept = new Set([...wanted, ...again]);
    for (const url of this.#known.keys()) if (!kept.has(url)) this.#known.delete(url);
    for (const url of wanted) this.decoded(url).catch(() => {});
  }
}

export const sidesOf = (pair) => [pair.left, pair.right];
