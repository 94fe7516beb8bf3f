// Images of pairs, fetched and decoded ahead, so that putting one on the page costs nothing, and an outage of the
// server is not seen until they are used up. Knows addresses alone.

const held = new Map(); // address -> the element, and the promise of it decoded once that was asked for

function fetched(url) {
  if (!held.has(url)) {
    const own = new Image();
    const entry = { own, decoded: null };
    own.alt = "";
    own.draggable = false;
    // What could not be had is asked for anew.
    own.onerror = () => held.get(url) === entry && held.delete(url);
    own.src = url;
    held.set(url, entry);
  }
  return held.get(url);
}

/** A promise of the image, decoded; it fails where the image cannot be had, and the next call tries again. */
export function image(url) {
  const entry = fetched(url);
  entry.decoded ??= entry.own.decode().then(
    () => entry.own,
    (error) => {
      held.delete(url);
      throw error;
    },
  );
  return entry.decoded;
}

/** Both images of a pair. */
export const both = (pair) => Promise.all([image(pair.left), image(pair.right)]);

/** Decodes the images of the first `ahead` of `next`, fetches the others, keeps those of `last`, forgets the rest. */
export function preload(next, ahead, last) {
  const addresses = (pairs) => pairs.flatMap((pair) => [pair.left, pair.right]);
  const kept = new Set(addresses([...next, ...last]));
  for (const url of held.keys()) if (!kept.has(url)) held.delete(url);
  for (const url of addresses(next.slice(0, ahead))) image(url).catch(() => {});
  for (const url of addresses(next.slice(ahead))) fetched(url);
}
