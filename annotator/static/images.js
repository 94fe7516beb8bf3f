// Images of pairs, decoded ahead, so that putting one on the page costs nothing. Knows addresses alone.

const decoded = new Map();

/** A promise of the image, decoded; it fails where the image cannot be had, and the next call tries again. */
export function image(url) {
  if (!decoded.has(url)) {
    const own = new Image();
    own.alt = "";
    own.draggable = false;
    own.src = url;
    decoded.set(
      url,
      own.decode().then(() => own),
    );
    decoded.get(url).catch(() => decoded.delete(url));
  }
  return decoded.get(url);
}

/** Both images of a pair. */
export const both = (pair) => Promise.all([image(pair.left), image(pair.right)]);

/** Decodes the images of `next`, keeps those of `last`, and forgets all others. */
export function preload(next, last) {
  const addresses = (pairs) => pairs.flatMap((pair) => [pair.left, pair.right]);
  const kept = new Set(addresses([...next, ...last]));
  for (const url of decoded.keys()) if (!kept.has(url)) decoded.delete(url);
  for (const url of addresses(next)) image(url).catch(() => {});
}
