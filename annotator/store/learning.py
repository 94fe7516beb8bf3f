"""What is learned from: judged pairs with their latents, self pairs with what was decided on them, and both
as a table. Knows labels and reviews as they stand, not how they came in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from annotator import models
from annotator.audit import winner_side
from annotator.rows import Counts, PairState, Preference, Reason, Run
from annotator.store.files import Outside
from annotator.store.reviews import NEWEST, Reviews
from annotator.store.standing import FactCounts, Standing
from sail import rounds
from sail.records import LatentsRef, Source, TrainingPair
from sail.settings import LoopSettings

Latents = dict[str, tuple[str, LatentsRef]]
"""Id of a candidate to its prompt and where its latents are."""
OF_A_RUN = re.compile(r"[0-9]{4,}-\w+/candidates/[0-9]+\.safetensors")
"""What runs call their files of latents, from `runs` on."""
FILES = """
    with files as (
        select c.id, c.prompt, c.number, runs.folder || '/' || c.latents as file
        from candidates c join runs on runs.id = c.run
    )
"""


class Learning(Reviews, Standing):
    """Part of Store."""

    def counts(self) -> Counts:
        """How far labelling is. Asked for at every poll, so it is counted only when something came in."""
        seen = self._newest_of_all()
        return self._kept("counts", tuple(seen.values()), lambda: self._count(seen))

    def _newest_of_all(self) -> dict[str, int]:
        """Numbers that tell whether anything came in that is counted, learned from or exported."""
        (seen,) = self._rows(
            """
            select (select coalesce(max(seq), 0) from labels) as labels,
                   (select coalesce(max(seq), 0) from reviews) as reviews,
                   (select coalesce(max(seq), 0) from bulk_reviews) as bulk_reviews,
                   (select coalesce(max(seq), 0) from events) as events,
                   (select coalesce(max(ordinal), -1) from pairs) as pairs,
                   (select coalesce(max(rowid), 0) from self_pairs) as self_pairs
            """
        )
        return seen

    def _count(self, seen: Mapping[str, int]) -> Counts:
        settings = self.project().settings
        tally = self._kept(
            "tally", settings.held_out_every, lambda: FactCounts(lambda pair: _facts(pair, settings))
        )
        # That an audit is over, and that a round is trained, are events.
        reviewed = seen["reviews"], seen["bulk_reviews"], seen["events"]
        flipped = self._kept("flips", reviewed, self._flips_told)
        sums = self.tallied(tally)
        return Counts(
            drawn=sums["drawn"],
            withdrawn=sums["withdrawn"],
            labelled=sums["labelled"],
            skipped=sums["skipped"],
            winners=sums["winners"] + flipped,
            trainable=sums["trainable"] + flipped,
            flipped=flipped,
            ties=sums["ties"],
        )

    # Pairs to learn from

    def human_pairs(self) -> list[TrainingPair]:
        """Pairs whose winner people chose: labelled seed pairs, then the self pairs that were flipped.

        Where people disagree the majority counts; a draw of votes is no pair. Latents are named by
        absolute path. Flipped pairs are never held out.
        """
        return [*self._seed_pairs(), *self._flipped_pairs()]

    def tie_pairs(self) -> list[TrainingPair]:
        """Pairs between which nobody who judged them saw a difference."""
        tied = [pair for pair in self.pair_states() if pair.tied]
        latents = self._latents_of(tied)
        return [_pair(latents, pair.id, pair.one, pair.two, source="tie") for pair in tied]

    def self_pairs(self, run: Run) -> list[TrainingPair]:
        """Self pairs of one propose run that are still the model's opinion: not flipped, not dropped."""
        rows = [row for row in self._reviewed(run) if row["decision"] not in ("flip", "drop")]
        latents = self._latents(row[side] for row in rows for side in ("winner", "loser"))
        return [_pair(latents, row["id"], row["winner"], row["loser"], source="self") for row in rows]

    def _flipped_pairs(self) -> list[TrainingPair]:
        flipped = self._flipped()
        latents = self._latents(row[side] for row in flipped for side in ("winner", "loser"))
        return [_pair(latents, row["pair"], row["loser"], row["winner"], source="human") for row in flipped]

    def _seed_pairs(self) -> list[TrainingPair]:
        settings = self.project().settings
        decided = [pair for pair in self.pair_states() if pair.has_winner]
        latents = self._latents_of(decided)
        return [
            _pair(
                latents,
                pair.id,
                *((pair.one, pair.two) if pair.for_one > pair.for_two else (pair.two, pair.one)),
                source="human",
                held_out=rounds.is_held_out(pair.ordinal, settings),
            )
            for pair in decided
        ]

    def unjudged_pairs(self, limit: int) -> list[TrainingPair]:
        """So many pairs that nobody has judged, by lot, for a judge to look at: never learned from."""
        # Ids are random.
        found = sorted(self.unjudged_states(), key=attrgetter("id"))[:limit]
        latents = self._latents_of(found)
        return [_pair(latents, pair.id, pair.one, pair.two, source="open") for pair in found]

    def _latents_of(self, pairs: Iterable[PairState]) -> Latents:
        return self._latents(one for pair in pairs for one in (pair.one, pair.two))

    def _latents(self, candidates: Iterable[str]) -> Latents:
        rows = self._rows(
            f"{FILES} select * from files where id in (select value from json_each(:candidates))",
            candidates=json.dumps(list(candidates)),
        )
        return {
            row["id"]: (row["prompt"], LatentsRef(file=self._file(row["file"]), row=row["number"]))
            for row in rows
        }

    def _file(self, name: str) -> str:
        """Where latents lie. Outside where they are not called as runs call them.

        A project may have been made by others, and what it names is linked into the inputs of runs.
        """
        if not OF_A_RUN.fullmatch(name):
            raise Outside(
                f"{name.rpartition('/')[2]} is no file of a run's candidates, so nothing is learned from it."
            )
        return f"{self.folder}/runs/{name}"

    def files_to_learn_from(self, run: Run | None) -> dict[Source, list[tuple[str, str]]]:
        """The files of latents, two a pair, of what the next round would learn from: `human_pairs` but those
        that are held out, and the `self_pairs` of `run`.

        Asked for after every decision in Review, so no pair is made of them.
        """
        seen = self._newest_of_all()
        version = run and run.id, *seen.values()
        return self._kept("learned from", version, lambda: self._read_files_to_learn_from(run, seen["pairs"]))

    def _read_files_to_learn_from(
        self, run: Run | None, newest_pair: int
    ) -> dict[Source, list[tuple[str, str]]]:
        settings = self.project().settings
        learned = {
            pair.id
            for pair in self.pair_states()
            if pair.has_winner and not rounds.is_held_out(pair.ordinal, settings)
        }
        drawn = self._kept("files of pairs", newest_pair, self._files_of_pairs)
        proposed = self._rows(
            f"{FILES} select s.rank, r.decision, a.file as one, b.file as two "
            "from self_pairs s join files a on a.id = s.winner join files b on b.id = s.loser "
            f"{NEWEST} where s.run = :run",
            run=run.id if run else None,
        )
        share = rounds.kept(len(proposed), settings)
        human = [row for row in drawn if row["id"] in learned]
        own = [row for row in proposed if row["rank"] < share and row["decision"] not in ("flip", "drop")]
        files = {
            name: self._file(name)
            for name in {row[side] for row in (*human, *own) for side in ("one", "two")}
        }
        flipped = self._flipped_pairs()
        return {
            "human": [
                *((files[row["one"]], files[row["two"]]) for row in human),
                *((pair.winner.file, pair.loser.file) for pair in flipped),
            ],
            "self": [(files[row["one"]], files[row["two"]]) for row in own],
        }

    def _files_of_pairs(self) -> list[dict[str, Any]]:
        return self._rows(
            f"{FILES} select p.id, a.file as one, b.file as two "
            "from pairs p join files a on a.id = p.one join files b on b.id = p.two"
        )

    def latent_channels(self) -> int | None:
        """Of the images drawn so far; None before there are any."""
        rows = self._rows(f"{FILES} select file from files limit 1")
        return models.channels_in(Path(self._file(rows[0]["file"]))) if rows else None

    # What leaves

    def preferences(self) -> list[Preference]:
        """Every judged pair: people's labels but skips, and self pairs with what was decided on them."""
        return [*self._human_preferences(), *self._self_preferences()]

    def preference_counts(self) -> tuple[int, int]:
        """How many of `preferences` are people's labels, and how many are self pairs."""
        return self._kept("preferences", tuple(self._newest_of_all().values()), self._count_preferences)

    def _count_preferences(self) -> tuple[int, int]:
        (labels,) = self._rows("select count(*) as found from standing_labels where value != 'skip'")
        return labels["found"], sum(row["decision"] != "drop" for row in self._reviewed(None))

    def _human_preferences(self) -> list[Preference]:
        rows = self._rows(
            """
            select s.*, iif(s.left = p.one, p.two, p.one) as right, c.prompt
            from standing_labels s join pairs p on p.id = s.pair join candidates c on c.id = p.one
            where s.value != 'skip' order by s.seq
            """
        )
        wins = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}
        why = self.reasons([row["uuid"] for row in rows])
        none: tuple[list[Reason], str] = ([], "")
        return [
            Preference(
                prompt=row["prompt"],
                left=row["left"],
                right=row["right"],
                left_wins=wins[row["value"]],
                both_bad=row["value"] == "both_bad",
                source="human",
                annotator=row["person"],
                at=row["at"],
                elapsed_ms=row["elapsed_ms"],
                round=0,
                reasons=tuple(why.get(row["uuid"], none)[0]),
                reason_text=why.get(row["uuid"], none)[1],
            )
            for row in rows
        ]

    def _self_preferences(self) -> list[Preference]:
        runs = {run.id: run for run in self.runs()}
        found = []
        for row in self._reviewed(None):
            if row["decision"] == "drop":
                continue
            flipped, on_the_left = row["decision"] == "flip", winner_side(row["id"]) == "left"
            found.append(
                Preference(
                    prompt=row["prompt"],
                    # As in Review: with its winner always on one side the table would teach the side.
                    left=row["winner" if on_the_left else "loser"],
                    right=row["loser" if on_the_left else "winner"],
                    left_wins=float(on_the_left != flipped),
                    both_bad=False,
                    source="human" if flipped else "self",
                    annotator=row["by"] if row["decision"] else "judge",
                    at=row["at"] if row["decision"] else runs[row["run"]].since,
                    elapsed_ms=None,
                    round=row["round"],
                )
            )
        return found


def _facts(pair: PairState, settings: LoopSettings) -> Iterator[str]:
    """In which of `Counts` a drawn pair is counted."""
    if pair.judged or not pair.withdrawn:
        yield "drawn"
    if pair.withdrawn:
        yield "withdrawn"
    if pair.judged:
        yield "labelled"
    elif pair.answered_by and not pair.withdrawn:
        yield "skipped"
    if pair.has_winner:
        yield "winners"
        if not rounds.is_held_out(pair.ordinal, settings):
            yield "trainable"
    if pair.tied:
        yield "ties"


def _pair(
    latents: Latents, pair: str, winner: str, loser: str, *, source: Source, held_out: bool = False
) -> TrainingPair:
    prompt, won = latents[winner]
    return TrainingPair(
        id=pair, prompt=prompt, winner=won, loser=latents[loser][1], source=source, held_out=held_out
    )
