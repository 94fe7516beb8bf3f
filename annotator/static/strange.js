// Words of a prompt that its model does not know, in words. Knows no form.

const WORDS = /[\p{L}\p{M}\p{N}]+|\p{Extended_Pictographic}/gu;
const FEW = 8; // that are told one by one

/** Those of `text` that are not among `known`, as the end of a sentence; "" where there is none or nobody can say. */
export function strange(text, known) {
  const found = new Set(known && text.toLowerCase().match(WORDS));
  for (const word of known ?? []) found.delete(word);
  if (!found.size) return "";
  const more = found.size > FEW ? ` and ${found.size - FEW} more` : "";
  return `${[...found].slice(0, FEW).join(", ")}${more}.`;
}
