// Images of pairs, fetched and decoded ahead, so that putting one on the page costs nothing, and an outage of the
// server is not seen until they are used up. Knows addresses alone.

import { markIfSmall } from "/ui/page.js";

export class Images {
  #held = new Map(); // address -> the element, and the promise of it decoded once that was asked for

  #fetched(url) {
    if (!this.#held.has(url)) {
      const own = new Image();
      const entry = { own, decoded: null };
      own.alt = "";
      own.draggable = false;
      // What could not be had is asked for anew.
      own.onerror = () => this.#held.get(url) === entry && this.#held.delete(url);
      own.onload = () => markIfSmall(own);
      own.src = url;
      this.#held.set(url, entry);
    }
    return this.#held.get(url);
  }

  /** A promise of the image, decoded; it fails where the image cannot be had, and the next call tries again. */
  image(url) {
    const entry = this.#fetched(url);
    entry.decoded ??= entry.own.decode().then(
      () => entry.own,
      (error) => {
        this.#held.delete(url);
        throw error;
      },
    );
    return entry.decoded;
  }

  /** Both images of a pair. */
  both = (pair) => Promise.all([this.image(pair.left), this.image(pair.right)]);

  /** Decodes the images of the first `ahead` of `next`, fetches the others, keeps those of `last`, forgets the rest. */
  preload(next, ahead, last) {
    const addresses = (pairs) => pairs.flatMap((pair) => [pair.left, pair.right]);
    const kept = new Set(addresses([...next, ...last]));
    for (const url of this.#held.keys()) if (!kept.has(url)) this.#held.delete(url);
    for (const url of addresses(next.slice(0, ahead))) this.image(url).catch(() => {});
    for (const url of addresses(next.slice(ahead))) this.#fetched(url);
  }
}
