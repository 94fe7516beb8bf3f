"""Who decided what, when, and from what to what, as a table for people. Knows the store's records."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotator.store import Store
from annotator.store.people import called

COLUMNS = ("when", "who", "what", "said", "pair", "round", "run", "prompt")
THE_APP = "the app"
NOBODY = ("", "app", "gate", None)
"""By whom what the app does by itself is written down."""
NOT_YET = "told once the sample is decided"
"""In place of a decision while its audit is blind: it would say what the judge chose."""
WORDS = {
    "review": "decision in Review",
    "review in bulk": "approval of the clear ones",
    "comparison": "answer in Compare",
    "gate": "gate",
    "current_round": "current round",
    "pair_withdrawn": "pair taken out",
    "person_name": "name",
    "comparison_result_asked": "look at a comparison before its end",
}
"""What a line is called where its own word says too little."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is a formula to a spreadsheet, whoever typed it."""


def write_csv(store: Store, file: Path) -> None:
    """Write a line for every label, decision, answer, run and change of settings, undone ones too."""
    with file.open("w", encoding="utf-8-sig", newline="") as out:
        table = csv.writer(out)
        table.writerow(COLUMNS)
        table.writerows([harmless(cell) for cell in line] for line in lines(store))


def lines(store: Store) -> Iterator[tuple[str, ...]]:
    """The cells under COLUMNS, oldest first."""
    names = store.names()
    blind = {run.id for run in store.runs() if run.job == "propose" and not store.audit(run).done}
    before: dict[str, Any] = {}
    for row in store.history():
        payload = json.loads(row["payload"]) if row["payload"] else None
        what = row["what"]
        if what == "review" and row["run"] in blind and row["said"] != "undo":
            said = NOT_YET
        else:
            said = _said(what, row["said"], payload, before.get(what))
        before[what] = payload
        who = THE_APP if row["by"] in NOBODY else called(row["by"], names)
        when = datetime.fromtimestamp(row["at"], UTC).isoformat(timespec="seconds")
        cells = (when, who, WORDS.get(what, what), said, row["pair"], row["round"], row["run"], row["prompt"])
        yield tuple("" if cell is None else str(cell) for cell in cells)


def harmless(cell: str) -> str:
    """The cell as text to a spreadsheet as well."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def _said(what: str, said: str | None, payload: Any, before: Any) -> str:
    try:
        if what in TOLD:
            return TOLD[what](payload, before)
        return f"{said or ''} {_details(what, payload)}".strip()
    except (LookupError, TypeError, AttributeError):
        # Another version, or somebody else, wrote it.
        return json.dumps(payload, ensure_ascii=False)


def _details(what: str, payload: Any) -> str:
    if what == "review in bulk":
        return f"{payload['pairs']} pairs"
    if what == "run" and isinstance(payload, dict):
        return str(payload.get("message") or "")
    return ""


def _changes(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """From what to what, setting by setting; the first time it is what there was to begin with."""
    if before is None:
        return "as the project began"
    old, new = _flat(before), _flat(now)
    changed = [name for name in new if old.get(name) != new[name]]
    return "; ".join(f"{name}: {_short(old.get(name))} -> {_short(new[name])}" for name in changed)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _short(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def _prompts(now: list[str], before: list[str] | None) -> str:
    if before is None:
        return f"{len(now)} prompts"
    return f"{len(set(now) - set(before))} added, {len(set(before) - set(now))} taken out, {len(now)} now"


def _gate(now: Mapping[str, Any], _: Any) -> str:
    verdict = "accepted" if now["accepted"] else "refused"
    return " ".join([f"round {now['round']} {verdict}.", *now["reasons"]])


def _current(now: Mapping[str, Any], _: Any) -> str:
    return f"{'base' if now['round'] is None else 'round ' + str(now['round'])}, {now['why']}"


def _look(now: Mapping[str, Any], _: Any) -> str:
    return f"after {now['answered']} answers"


TOLD: dict[str, Callable[[Any, Any], str]] = {
    "settings": _changes,
    "launcher": lambda now, before: _changes(_unsealed(now), _unsealed(before or {})),
    "model": lambda now, _: _short(now["model"]["source"]),
    "prompts": _prompts,
    "gate": _gate,
    "current_round": _current,
    "audit": lambda now, _: f"all {len(now['audited'])} pairs of the sample decided",
    "pair_withdrawn": lambda now, _: f"{now['pair']}: {now['why']}",
    "person_name": lambda now, _: now["name"],
    "order": lambda now, _: now["order"],
    "comparison_result_asked": _look,
}
"""What a line of that kind says: of what was written down, and of what was before it."""


def _unsealed(launcher: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in launcher.items() if name != "seal"}
