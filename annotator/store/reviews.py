"""Self pairs and what people decided on them, one by one, in the audit and in bulk. Knows no latents.

What was decided is appended. A bulk approval is one event, with a review of its own for every pair.
"""

from __future__ import annotations

import json
import time
import uuid as uuids
from collections import Counter
from collections.abc import Sequence
from typing import Any

from annotator import audit
from annotator.audit import Audited
from annotator.rows import Audit, Bulk, Review, ReviewCounts, ReviewPair, Run
from annotator.store.runs import Runs
from sail import rounds
from sail.settings import LoopSettings

NEWEST = """
    left join reviews r on r.decision != 'clear' and r.seq = (
        select max(o.seq) from reviews o where o.self_pair = s.id and o.decision != 'undo'
        and not exists (select 1 from reviews u where u.undoes = o.uuid)
        and not exists (select 1 from bulk_reviews u where u.undoes = o.bulk)
    )
"""
"""What stands of each self pair `s`, by its index: the view `standing_reviews` goes through all reviews."""


class Reviews(Runs):
    """Part of Store."""

    # What is there to review

    def review_pairs(self, run: Run) -> list[ReviewPair]:
        """Self pairs of one propose run: the audit sample as it was drawn, then the least certain first."""
        ended = self._audit_ended(run.id)
        drawn = ended if ended is not None else self._audit_rows(run.id)
        place = {one["pair"]: number for number, one in enumerate(drawn)}
        clear = self._clarities(run.id)
        pairs = [
            _review_pair(row, clear[row["id"]], in_audit=row["id"] in place, audit_open=ended is None)
            for row in self._reviewed(run)
        ]
        return sorted(pairs, key=lambda pair: (place.get(pair.id, len(place)), pair.clarity, -pair.rank))

    def _clarities(self, run: int) -> dict[str, float]:
        """How clear each pair of a run is beside all others of it, reviewed or not."""
        rows = self._rows("select id, margin from self_pairs where run = :run", run=run)
        return audit.clarities({row["id"]: row["margin"] for row in rows})

    def _reviewed(self, run: Run | None) -> list[dict[str, Any]]:
        """Self pairs that stay under the share that goes to review, the clearest first."""
        # Not "where :run is null or ...": that goes through the pairs of all runs.
        which, parameters = ("where s.run = :run", {"run": run.id}) if run else ("", {})
        rows = self._rows(
            f"""
            select s.*, runs.round, c.prompt, r.decision, r.person as "by", r.at, r.uuid, r.bulk,
                   count(*) over (partition by s.run) as among
            from self_pairs s join runs on runs.id = s.run join candidates c on c.id = s.winner
            {NEWEST} {which} order by s.run, s.rank
            """,
            **parameters,
        )
        settings = self.project().settings
        return [row for row in rows if _goes_to_review(row, row["among"], settings)]

    def _flipped(self) -> list[dict[str, Any]]:
        """(run, pair, winner, loser), as the judge had them, of all self pairs that stand flipped."""
        return self._rows(
            f"""
            select s.run, s.id as pair, s.winner, s.loser from self_pairs s {NEWEST}
            where s.id in (select self_pair from reviews where decision = 'flip') and r.decision = 'flip'
            order by s.run, s.rank
            """
        )

    def _flips_told(self) -> int:
        """How many stand flipped, but those judged blind: each would say what the judge chose."""
        flipped = self._flipped()
        blind: set[str] = set()
        newest = max((round_.round for round_ in self.rounds()), default=-1)
        for run in {row["run"] for row in flipped}:
            # Of a round that was trained without it the audit never ends, and nobody judges blind any more.
            if self.run(run).round > newest and self._audit_ended(run) is None:
                blind.update(row["pair"] for row in self._audit_rows(run))
        return sum(row["pair"] not in blind for row in flipped)

    def flips_untold(self, run: Run) -> int:
        """How many of a run's pairs stand flipped by who judged them blind, while its audit goes on."""
        if self._audit_ended(run.id) is not None:
            return 0
        return sum(row["decision"] == "flip" for row in self._audit_rows(run.id))

    def _decisions(self, run: int) -> list[dict[str, Any]]:
        """(pair, rank, decision that stands) of a run's self pairs, the clearest first."""
        return self._rows(
            f"select s.id as pair, s.rank, r.decision from self_pairs s {NEWEST} "
            "where s.run = :run order by s.rank",
            run=run,
        )

    def review_counts(self, run: Run) -> ReviewCounts:
        """How far the review of a propose run that is done has come, and its audit.

        Asked for at every poll, so it is counted only when something came in.
        """
        (seen,) = self._rows(
            """
            select (select coalesce(max(seq), 0) from reviews) as reviews,
                   (select coalesce(max(seq), 0) from bulk_reviews) as bulk_reviews,
                   (select coalesce(max(seq), 0) from events) as events
            """
        )
        return self._kept("review counts", (run.id, *seen.values()), lambda: self._count_reviews(run))

    def _count_reviews(self, run: Run) -> ReviewCounts:
        rows, ended = self._decisions(run.id), self._audit_ended(run.id)
        settings = self.project().settings
        sample = self._sample(rows) if ended is None else ended
        # Of blind pairs only how many are decided: approved or flipped would say what the judge chose.
        blind = {one["pair"] for one in sample} if ended is None else set()
        within = [row for row in rows if _goes_to_review(row, len(rows), settings)]
        said = Counter(row["decision"] for row in within if row["pair"] not in blind)
        return ReviewCounts(
            pairs=len(within),
            approve=said["approve"],
            flip=said["flip"],
            drop=said["drop"],
            unreviewed=sum(row["decision"] is None for row in within),
            audit_pairs=len(sample),
            audit_decided=sum(one["decision"] is not None for one in sample),
            audit_done=ended is not None or not sample,
        )

    # Decisions

    def record_reviews(self, reviews: Sequence[Review], *, by: str) -> list[str | None]:
        """Keep decisions in their order, in one transaction; a repeat of the same uuid changes nothing.

        For each: None, or why it was refused. The last one that was not taken back holds, but not over one of
        somebody else that was not seen: a decision may have waited for days in a browser.
        """

        def change() -> list[str | None]:
            pairs = {one.self_pair: self._first("self_pairs", "id = ?", [one.self_pair]) for one in reviews}
            refusals = [
                self._record_review(review, by)
                if pairs[review.self_pair]
                else "There is no such pair to review. Reload the page."
                for review in reviews
            ]
            for run in {pair["run"] for pair in pairs.values() if pair is not None}:
                self._end_audit(run, by)
            return refusals

        return self._write(change)

    def _record_review(self, review: Review, person: str) -> str | None:
        known = self._first("reviews", "uuid = ?", [review.uuid])
        if known is not None:
            return None if known["person"] == person else "This decision's id was used by someone else."
        if review.decision == "undo":
            mine = "uuid = ? and self_pair = ? and person = ? and decision != 'undo'"
            if self._first("reviews", mine, [review.undoes, review.self_pair, person]) is None:
                return "There is no such decision of yours to undo."
        elif review.seen is not None:
            standing = self._rows(
                "select uuid, person from standing_reviews where self_pair = :pair", pair=review.self_pair
            )
            if any(one["person"] != person and one["uuid"] != review.seen for one in standing):
                return "Somebody else decided this pair meanwhile. Decide again where you differ."
        decision = review.decision
        if decision in ("left", "right"):
            decision = audit.decision_for(review.self_pair, decision)
        row = {"uuid": review.uuid, "self_pair": review.self_pair, "decision": decision or "clear"}
        undoes = review.undoes if decision == "undo" else None
        self._append("reviews", {**row, "person": person, "at": time.time(), "undoes": undoes})
        return None

    def review_history(self) -> list[dict[str, Any]]:
        return self._rows("select * from reviews order by seq")

    # The audit

    def audit(self, run: Run) -> Audit:
        """How far the sample of this propose run is; what was said of it once it is decided as a whole."""
        ended = self._audit_ended(run.id)
        if ended is not None:
            clear = self._clarities(run.id)
            audited = tuple(Audited(**one, clarity=clear[one["pair"]]) for one in ended)
            return Audit(pairs=len(ended), decided=len(ended), done=True, audited=audited)
        rows = self._audit_rows(run.id)
        decided = sum(row["decision"] is not None for row in rows)
        return Audit(pairs=len(rows), decided=decided, done=not rows, audited=())

    def _audit_ended(self, run: int) -> list[dict[str, Any]] | None:
        """(pair, decision) of its sample as they were when it was over; None before."""
        rows = self._rows(
            "select payload from events where kind = 'audit' and json_extract(payload, '$.run') = :run",
            run=run,
        )
        if not rows:
            return None
        audited = json.loads(rows[0]["payload"])["audited"]
        return [{"pair": one["pair"], "decision": one["decision"]} for one in audited]

    def end_audit(self, run: Run, *, by: str) -> None:
        """Keep what was said blind where the sample is decided as a whole; else nothing happens."""
        self._write(lambda: self._end_audit(run.id, by))

    def _end_audit(self, run: int, person: str) -> None:
        """With its last pair decided, what was said blind is kept for good."""
        if self._audit_ended(run) is not None:
            return
        rows = self._audit_rows(run)
        if rows and all(row["decision"] for row in rows):
            self._append_event("audit", {"run": run, "audited": rows}, person)

    def _audit_rows(self, run: int) -> list[dict[str, Any]]:
        """The sample in its order, with what stands."""
        return self._sample(self._decisions(run))

    def _sample(self, decisions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        settings = self.project().settings
        found = {row["pair"]: row["decision"] for row in decisions[: rounds.kept(len(decisions), settings)]}
        return [{"pair": pair, "decision": found[pair]} for pair in audit.sample(found)]

    # In bulk

    def approve_in_bulk(self, run: Run, pairs: Sequence[str], *, threshold: float, uuid: str, by: str) -> int:
        """Approve those of `pairs` that are undecided and at least so clear, as one action. Returns how many.

        ValueError before the audit is over: nobody knows yet how often the judge errs.
        """
        if not self.audit(run).done:
            raise ValueError("Decide the audit sample first: it says how often the model errs.")

        def change() -> int:
            if not self._is_known(uuid, run.id, by, undoes=None):
                clear = self._undecided(run, threshold) & set(pairs)
                if not clear:
                    raise ValueError("These pairs are decided already. Reload the page.")
                self._append_bulk(uuid, run.id, by, threshold=threshold)
                for pair in sorted(clear):
                    own = str(uuids.uuid5(uuids.UUID(uuid), pair))
                    row = {"uuid": own, "self_pair": pair, "decision": "approve", "bulk": uuid}
                    self._append("reviews", {**row, "person": by, "at": time.time()})
            return self._writing.table("reviews").count_where("bulk = ?", [uuid])

        return self._write(change)

    def _undecided(self, run: Run, threshold: float) -> set[str]:
        decided = {row["pair"] for row in self._decisions(run.id) if row["decision"] is not None}
        clear = self._clarities(run.id)
        return {pair for pair, clarity in clear.items() if clarity >= threshold and pair not in decided}

    def undo_bulk(self, bulk: str, *, uuid: str, by: str) -> None:
        """Take a bulk approval back as a whole. Pairs that were decided one by one since stay so."""

        def change() -> None:
            undone = self._first("bulk_reviews", "uuid = ? and undoes is null", [bulk])
            if undone is None:
                raise ValueError("There is no such approval to take back. Reload the page.")
            if self._is_known(uuid, undone["run"], by, undoes=bulk):
                return
            self._append_bulk(uuid, undone["run"], by, undoes=bulk)

        self._write(change)

    def _is_known(self, uuid: str, run: int, by: str, *, undoes: str | None) -> bool:
        """Whether this very action came in already. ValueError where another one has its id."""
        known = self._first("bulk_reviews", "uuid = ?", [uuid])
        if known is not None and (known["run"], known["person"], known["undoes"]) != (run, by, undoes):
            raise ValueError("This id was used for something else. Reload the page, and do it again.")
        return known is not None

    def _append_bulk(
        self, uuid: str, run: int, by: str, *, threshold: float | None = None, undoes: str | None = None
    ) -> None:
        row = {"uuid": uuid, "run": run, "person": by, "at": time.time()}
        self._append("bulk_reviews", {**row, "threshold": threshold, "undoes": undoes})

    def last_bulk(self, run: Run) -> Bulk | None:
        """The newest bulk approval that stands, with how many pairs still stand by it."""
        rows = self._rows(
            f"""
            select b.uuid, b.person as "by", b.at, b.threshold,
                   (select count(*) from self_pairs s {NEWEST} where r.bulk = b.uuid
                    and s.id in (select self_pair from reviews where bulk = b.uuid)) as pairs
            from bulk_reviews b
            where b.run = :run and b.undoes is null
            and not exists (select 1 from bulk_reviews u where u.undoes = b.uuid)
            order by b.seq desc limit 1
            """,
            run=run.id,
        )
        return Bulk(**rows[0]) if rows else None

    def bulk_history(self) -> list[dict[str, Any]]:
        """Every bulk approval and undo as it came in, oldest first."""
        return self._rows("select * from bulk_reviews order by seq")


def _goes_to_review(row: dict[str, Any], among: int, settings: LoopSettings) -> bool:
    """Among so many self pairs of a run. What somebody turned round stays, whatever share is kept now."""
    return bool(row["rank"] < rounds.kept(among, settings) or row["decision"] == "flip")


def _review_pair(row: dict[str, Any], clarity: float, *, in_audit: bool, audit_open: bool) -> ReviewPair:
    known = {field: row[field] for field in ReviewPair.__dataclass_fields__ if field in row}
    return ReviewPair(**known, clarity=clarity, in_audit=in_audit, blind=in_audit and audit_open)
