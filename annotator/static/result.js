// What a comparison of two rounds came to, and where one goes from there. Asks the app for nothing.

import { openTab } from "/ui/core.js";
import { actionButton as button, h } from "/ui/page.js";
import { percent, roundName, roundTitle } from "/ui/words.js";

/** In words first, then as counts; each person's own share where there are several. */
export const result = (match, { verdict, figures, people }) =>
  [
    h("h2", { class: "sail-verdict", "data-testid": "result" }, verdict),
    share(match, people.at(-1)),
    h("p", { class: "sail-dim", "data-testid": "result-figures" }, figures),
    people.length > 2 && table(match, people),
  ].filter(Boolean);

/** Wins, ties and losses side by side, as wide as they are many. */
function share({ one, two }, { wins, ties, losses }) {
  const parts = [
    [wins, roundName(one)],
    [ties, ties === 1 ? "tie" : "ties"],
    [losses, roundName(two)],
  ];
  if (!wins && !ties && !losses) return null;
  return h(
    "div",
    { class: "sail-share", "data-testid": "result-share" },
    parts.map(([count, name]) =>
      h("div", { style: `flex: ${count} 0 auto`, "data-empty": count ? null : "" }, h("span", {}, `${count} ${name}`)),
    ),
  );
}

function table({ one, two }, people) {
  const heads = ["Who", roundTitle(one), roundTitle(two), "Ties", "Share, 95 % interval"];
  const head = heads.map((words) => h("th", { scope: "col" }, words));
  const rows = people.map((own) => {
    const { value, low, high } = own.rate;
    const name = own.you ? "You" : own.person === "everyone" ? "Everyone" : own.person;
    const interval = `${percent(value)} (${Math.round(100 * low)} to ${Math.round(100 * high)})`;
    const cells = [own.wins, own.losses, own.ties, interval].map((cell) => h("td", {}, String(cell)));
    return h("tr", {}, h("th", { scope: "row" }, name), cells);
  });
  const own = h(
    "table",
    { class: "sail-table", "data-testid": "result-people" },
    h("thead", {}, h("tr", {}, head)),
    h("tbody", {}, rows),
  );
  return h("div", { class: "sail-scroll" }, own);
}

/** On in the loop; where one of the two is better, to its files or to where it is made `current`. */
export function whereNext({ one, two }, { more, people }, current) {
  const goOn = (primary) => button("Go on in Rounds", "compare-go-on", () => openTab("rounds"), primary);
  if (more !== 0) return [goOn(!more)];
  const { wins, losses } = people.at(-1);
  const better = wins >= losses ? one : two;
  if (better !== current)
    return [button(`Make ${roundName(better)} current in Rounds`, "compare-current", () => openTab("rounds"), true)];
  const toFiles = better !== null && button(`Export ${roundName(better)}`, "compare-export", () => openTab("export"));
  return [goOn(true), toFiles];
}
