"""What is learned from: judged pairs with their latents, self pairs with what was decided on them, and both
as a table. Knows labels and reviews as they stand, not how they came in.
"""

from __future__ import annotations

from pathlib import Path

from annotator import models
from annotator.rows import Counts, Preference, Run
from annotator.store.reviews import Reviews
from annotator.store.standing import Standing
from sail import rounds as loop
from sail.records import LatentsRef, Source, TrainingPair

Latents = dict[str, tuple[str, LatentsRef]]
"""Id of a candidate to its prompt and where its latents are."""


class Learning(Reviews, Standing):
    """Part of Store."""

    _counted: tuple[tuple[int, ...], Counts] | None = None

    def counts(self) -> Counts:
        """How far labelling is. Asked for at every poll, so it is counted only when something came in."""
        (seen,) = self._rows(
            """
            select (select coalesce(max(seq), 0) from labels) as labels,
                   (select coalesce(max(seq), 0) from reviews) as reviews,
                   (select coalesce(max(seq), 0) from events) as events,
                   (select coalesce(max(ordinal), -1) from pairs) as pairs
            """
        )
        key = tuple(seen.values())
        if self._counted is None or self._counted[0] != key:
            self._counted = (key, self._count())
        return self._counted[1]

    def _count(self) -> Counts:
        pairs, settings = self.pair_states(), self.project().settings
        flips = "select count(*) as flipped from standing_reviews where decision = 'flip'"
        flipped = int(self._rows(flips)[0]["flipped"])
        answered = [pair for pair in pairs if pair.answered_by]
        labelled = sum(pair.judged for pair in answered)
        decided = [pair.ordinal for pair in answered if pair.has_winner]
        learned = sum(not loop.is_held_out(ordinal, settings) for ordinal in decided)
        return Counts(
            drawn=sum(pair.judged or not pair.withdrawn for pair in pairs),
            withdrawn=sum(pair.withdrawn for pair in pairs),
            labelled=labelled,
            skipped=sum(not pair.judged and not pair.withdrawn for pair in answered),
            winners=len(decided) + flipped,
            trainable=learned + flipped,
            flipped=flipped,
            ties=sum(pair.tied for pair in pairs),
        )

    # Pairs to learn from

    def human_pairs(self) -> list[TrainingPair]:
        """Pairs whose winner people chose: labelled seed pairs, then the self pairs that were flipped.

        Where people disagree the majority counts; a draw of votes is no pair. Latents are named by
        absolute path. Flipped pairs are never held out.
        """
        return [*self._seed_pairs(), *self._review_pairs_to_train("flip")]

    def tie_pairs(self) -> list[TrainingPair]:
        """Pairs between which nobody who judged them saw a difference."""
        latents = self._latents()
        return [_pair(latents, *pair, source="tie") for pair in self._tied_pairs()]

    def self_pairs(self, run: Run) -> list[TrainingPair]:
        """Self pairs of one propose run that are still the model's opinion: not flipped, not dropped."""
        return self._review_pairs_to_train("keep", run)

    def _seed_pairs(self) -> list[TrainingPair]:
        settings, latents = self.project().settings, self._latents()
        return [
            _pair(latents, pair, winner, loser, source="human", held_out=loop.is_held_out(ordinal, settings))
            for pair, ordinal, winner, loser in self._decided_pairs()
        ]

    def _decided_pairs(self) -> list[tuple[str, int, str, str]]:
        """(pair, ordinal, winner, loser) of labelled pairs on which more people chose one side."""
        rows = self._rows(
            """
            select p.id, p.ordinal, p.one, p.two,
                   sum(iif((s.value = 'left') = (s.left = p.one), 1, -1)) as for_one
            from standing_labels s join pairs p on p.id = s.pair
            where s.value in ('left', 'right') group by p.ordinal order by p.ordinal
            """
        )
        return [
            (
                row["id"],
                row["ordinal"],
                *((row["one"], row["two"]) if row["for_one"] > 0 else (row["two"], row["one"])),
            )
            for row in rows
            if row["for_one"] != 0
        ]

    def _tied_pairs(self) -> list[tuple[str, str, str]]:
        """(pair, one image, the other) of labelled pairs with no answer but "tie"."""
        rows = self._rows(
            """
            select p.id, p.one, p.two from standing_labels s join pairs p on p.id = s.pair
            where s.value != 'skip' group by p.ordinal having min(s.value = 'tie') order by p.ordinal
            """
        )
        return [(row["id"], row["one"], row["two"]) for row in rows]

    def unjudged_pairs(self, limit: int) -> list[TrainingPair]:
        """So many pairs that nobody has judged, by lot, for a judge to look at: never learned from."""
        latents = self._latents()
        rows = self._rows(
            """
            select id, one, two from pairs
            where id not in (select pair from standing_labels where value != 'skip')
              and id not in (select json_extract(payload, '$.pair') from events where kind = 'pair_withdrawn')
            order by id limit :limit
            """,
            limit=limit,
        )
        return [_pair(latents, row["id"], row["one"], row["two"], source="open") for row in rows]

    def _review_pairs_to_train(self, which: str, run: Run | None = None) -> list[TrainingPair]:
        latents = self._latents()
        pairs = []
        for row in self._reviewed(run):
            flipped = row["decision"] == "flip"
            if row["decision"] == "drop" or flipped != (which == "flip"):
                continue
            winner, loser = (row["loser"], row["winner"]) if flipped else (row["winner"], row["loser"])
            source: Source = "human" if flipped else "self"
            pairs.append(_pair(latents, row["id"], winner, loser, source=source))
        return pairs

    def _latents(self) -> Latents:
        rows = self._rows(
            "select c.id, c.prompt, c.number, c.latents, runs.folder "
            "from candidates c join runs on runs.id = c.run"
        )
        runs = self.folder / "runs"
        return {
            row["id"]: (
                row["prompt"],
                LatentsRef(file=str(runs / row["folder"] / row["latents"]), row=row["number"]),
            )
            for row in rows
        }

    def latent_channels(self) -> int | None:
        """Of the images drawn so far; None before there are any."""
        first = next(iter(self._latents().values()), None)
        return models.channels_in(Path(first[1].file)) if first else None

    # What leaves

    def preferences(self) -> list[Preference]:
        """Every judged pair: people's labels but skips, and self pairs with what was decided on them."""
        return [*self._human_preferences(), *self._self_preferences()]

    def _human_preferences(self) -> list[Preference]:
        rows = self._rows(
            """
            select s.*, iif(s.left = p.one, p.two, p.one) as right, c.prompt
            from standing_labels s join pairs p on p.id = s.pair join candidates c on c.id = p.one
            where s.value != 'skip' order by s.seq
            """
        )
        wins = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}
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
            )
            for row in rows
        ]

    def _self_preferences(self) -> list[Preference]:
        reviews = {row["self_pair"]: row for row in self._rows("select * from standing_reviews")}
        runs = {run.id: run for run in self.runs()}
        found = []
        for row in self._reviewed(None):
            if row["decision"] == "drop":
                continue
            review = reviews.get(row["id"])
            flipped = row["decision"] == "flip"
            found.append(
                Preference(
                    prompt=row["prompt"],
                    left=row["winner"],
                    right=row["loser"],
                    left_wins=0.0 if flipped else 1.0,
                    both_bad=False,
                    source="human" if flipped else "self",
                    annotator=review["person"] if review else "judge",
                    at=review["at"] if review else runs[row["run"]].since,
                    elapsed_ms=None,
                    round=row["round"],
                )
            )
        return found


def _pair(
    latents: Latents, pair: str, winner: str, loser: str, *, source: Source, held_out: bool = False
) -> TrainingPair:
    prompt, won = latents[winner]
    return TrainingPair(
        id=pair, prompt=prompt, winner=won, loser=latents[loser][1], source=source, held_out=held_out
    )
