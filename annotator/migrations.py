"""The schema of project.db, step by step. Knows tables; knows nothing of what is asked of them.

What people said (labels, reviews) and what was decided (events) is appended, never changed.
Triggers hold that, so that no later code can break it by mistake.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations
from sqlite_utils.db import Table

project = Migrations("annotator")


def is_foreign(db: Database) -> bool:
    """Whether there is something in it, and not of our making. Changes nothing."""
    return bool(db.table_names()) and not project.applied(db)


def is_newer(db: Database) -> bool:
    """Whether a newer version took steps that this one does not know. Changes nothing."""
    known = {step.name for step in project.pending(Database(memory=True))}
    return any(step.name not in known for step in project.applied(db))


def _table(db: Database, name: str) -> Table:
    return db.table(name, strict=True)


def _append_only(db: Database, table: str) -> None:
    for verb in ("update", "delete"):
        db.execute(
            f"create trigger {table}_no_{verb} before {verb} on {table} "
            f"begin select raise(abort, '{table} is append-only'); end"
        )


@project()
def m001_project(db: Database) -> None:
    """Settings, prompts, model and gate decisions, each as an event: the last of a kind holds."""
    _table(db, "events").create(
        {"seq": int, "at": float, "by": str, "kind": str, "payload": str},
        pk="seq",
        not_null={"at", "by", "kind", "payload"},
    ).create_index(["kind"])


@project()
def m002_runs(db: Database) -> None:
    _table(db, "runs").create(
        {"id": int, "job": str, "round": int, "folder": str, "at": float, "by": str},
        pk="id",
        not_null={"job", "round", "folder", "at", "by"},
    )
    _table(db, "run_events").create(
        {"seq": int, "run": int, "what": str, "at": float, "by": str, "payload": str},
        pk="seq",
        not_null={"run", "what", "at", "by", "payload"},
        foreign_keys=[("run", "runs", "id")],
    ).create_index(["run"])
    _table(db, "rounds").create(
        {"number": int, "run": int, "record": str, "at": float},
        pk="number",
        not_null={"run", "record", "at"},
        foreign_keys=[("run", "runs", "id")],
    ).create_index(["run"], unique=True)


@project()
def m003_pairs(db: Database) -> None:
    """Candidates have random ids: an address tells nothing of the model, the run or the round."""
    _table(db, "candidates").create(
        {
            "id": str, "run": int, "prompt_index": int, "prompt": str, "number": int,
            "image": str, "latents": str,
        },
        pk="id",
        not_null={"run", "prompt_index", "prompt", "number", "image", "latents"},
        foreign_keys=[("run", "runs", "id")],
    ).create_index(["run", "prompt_index", "number"], unique=True)  # fmt: skip
    _table(db, "pairs").create(
        {"ordinal": int, "id": str, "run": int, "one": str, "two": str},
        pk="ordinal",
        not_null={"id", "run", "one", "two"},
        foreign_keys=[("run", "runs", "id"), ("one", "candidates", "id"), ("two", "candidates", "id")],
    ).create_index(["id"], unique=True).create_index(["one"], unique=True)
    _table(db, "self_pairs").create(
        {
            "id": str, "run": int, "prompt_index": int, "winner": str, "loser": str,
            "winner_reward": float, "loser_reward": float, "margin": float, "margin_error": float,
            "rank": int,
        },
        pk="id",
        not_null={
            "run", "prompt_index", "winner", "loser",
            "winner_reward", "loser_reward", "margin", "margin_error", "rank",
        },
        foreign_keys=[
            ("run", "runs", "id"), ("winner", "candidates", "id"), ("loser", "candidates", "id"),
        ],
    ).create_index(["run", "prompt_index"], unique=True)  # fmt: skip


@project()
def m004_people(db: Database) -> None:
    """`left` of an assignment is the candidate that the server put there, for that person and pair."""
    _table(db, "assignments").create(
        {"pair": str, "person": str, "left": str, "at": float},
        pk=("pair", "person"),
        not_null={"left", "at"},
        foreign_keys=[("pair", "pairs", "id"), ("left", "candidates", "id")],
    )
    _table(db, "labels").create(
        {
            "seq": int, "uuid": str, "pair": str, "person": str, "value": str, "left": str,
            "elapsed_ms": int, "undoes": str, "at": float,
        },
        pk="seq",
        not_null={"uuid", "pair", "person", "value", "left", "elapsed_ms", "at"},
        foreign_keys=[("pair", "pairs", "id"), ("left", "candidates", "id")],
    ).create_index(["uuid"], unique=True).create_index(["pair"]).create_index(["person"])  # fmt: skip
    _table(db, "reviews").create(
        {"seq": int, "uuid": str, "self_pair": str, "person": str, "decision": str, "at": float},
        pk="seq",
        not_null={"uuid", "self_pair", "person", "decision", "at"},
        foreign_keys=[("self_pair", "self_pairs", "id")],
    ).create_index(["uuid"], unique=True).create_index(["self_pair"])


@project()
def m005_views(db: Database) -> None:
    """What holds now, derived from events."""
    db.create_view(
        "standing_labels",
        """
        select * from (
          select l.*, row_number() over (partition by pair, person order by seq desc) as newest
          from labels l
          where l.value != 'undo' and not exists (select 1 from labels u where u.undoes = l.uuid)
        ) where newest = 1
        """,
    )
    db.create_view(
        "standing_reviews",
        """
        select * from (
          select r.*, row_number() over (partition by self_pair order by seq desc) as newest from reviews r
        ) where newest = 1 and decision != 'clear'
        """,
    )
    db.create_view(
        "standing_runs",
        """
        select runs.*, e.what, e.at as since, e.payload, e.seq as event_seq
        from runs join run_events e on e.run = runs.id
        where e.seq = (select max(o.seq) from run_events o where o.run = runs.id)
        """,
    )
    db.table("labels").create_index(["undoes"])
    for table in ("events", "labels", "reviews", "run_events"):
        _append_only(db, table)


@project()
def m006_review_by_exception(db: Database) -> None:
    """A bulk approval is one event beside the reviews that name it; undone, those no longer stand."""
    _table(db, "bulk_reviews").create(
        {
            "seq": int, "uuid": str, "run": int, "person": str, "threshold": float, "undoes": str,
            "at": float,
        },
        pk="seq",
        not_null={"uuid", "run", "person", "at"},
        foreign_keys=[("run", "runs", "id")],
    ).create_index(["uuid"], unique=True).create_index(["undoes"])  # fmt: skip
    db.table("reviews").add_column("bulk", str).create_index(["bulk"])
    db.create_view(
        "standing_reviews",
        """
        select * from (
          select r.*, row_number() over (partition by self_pair order by seq desc) as newest from reviews r
          where not exists (select 1 from bulk_reviews u where u.undoes = r.bulk)
        ) where newest = 1 and decision != 'clear'
        """,
        replace=True,
    )
    _append_only(db, "bulk_reviews")


@project()
def m007_several_self_pairs_of_a_prompt(db: Database) -> None:
    """Not only best against worst: a pair is known by its winner."""
    table = db.table("self_pairs")
    db.execute("drop index idx_self_pairs_run_prompt_index")
    table.create_index(["run", "prompt_index", "winner"], unique=True)


@project()
def m008_comparisons(db: Database) -> None:
    """Two images of one prompt from the same noise, `one` by the newer round. People choose blindly, and
    nothing is learned from it. `two_round` is null where that is the base model."""
    _table(db, "comparisons").create(
        {
            "ordinal": int, "id": str, "run": int, "one_round": int, "two_round": int,
            "one": str, "two": str,
        },
        pk="ordinal",
        not_null={"id", "run", "one_round", "one", "two"},
        foreign_keys=[("run", "runs", "id"), ("one", "candidates", "id"), ("two", "candidates", "id")],
    ).create_index(["id"], unique=True).create_index(["one"], unique=True)  # fmt: skip
    _table(db, "comparison_sides").create(
        {"comparison": str, "person": str, "left": str, "at": float},
        pk=("comparison", "person"),
        not_null={"left", "at"},
        foreign_keys=[("comparison", "comparisons", "id"), ("left", "candidates", "id")],
    )
    _table(db, "comparison_answers").create(
        {
            "seq": int, "uuid": str, "comparison": str, "person": str, "value": str, "left": str,
            "elapsed_ms": int, "undoes": str, "at": float,
        },
        pk="seq",
        not_null={"uuid", "comparison", "person", "value", "left", "elapsed_ms", "at"},
        foreign_keys=[("comparison", "comparisons", "id"), ("left", "candidates", "id")],
    ).create_index(["uuid"], unique=True).create_index(["comparison"]).create_index(["undoes"])  # fmt: skip
    db.create_view(
        "standing_comparison_answers",
        """
        select * from (
          select a.*, row_number() over (partition by comparison, person order by seq desc) as newest
          from comparison_answers a
          where a.value != 'undo' and not exists (select 1 from comparison_answers u where u.undoes = a.uuid)
        ) where newest = 1
        """,
    )
    _append_only(db, "comparison_answers")


@project()
def m009_label_reasons(db: Database) -> None:
    """Why a label was given: the last event on a label holds. And how a pair came to be shown."""
    _table(db, "reasons").create(
        {"seq": int, "uuid": str, "label": str, "person": str, "reasons": str, "text": str, "at": float},
        pk="seq",
        not_null={"uuid", "label", "person", "reasons", "text", "at"},
        foreign_keys=[("label", "labels", "uuid")],
    ).create_index(["uuid"], unique=True).create_index(["label"])
    _append_only(db, "reasons")
    _table(db, "assignments").add_column("chosen", str)


@project()
def m010_reviews_are_taken_back(db: Database) -> None:
    """As a label is: what was decided before stands again, in the name of who decided it and in its bulk."""
    db.table("reviews").add_column("undoes", str).create_index(["undoes"])
    db.create_view(
        "standing_reviews",
        """
        select * from (
          select r.*, row_number() over (partition by self_pair order by seq desc) as newest from reviews r
          where r.decision != 'undo' and not exists (select 1 from reviews u where u.undoes = r.uuid)
          and not exists (select 1 from bulk_reviews u where u.undoes = r.bulk)
        ) where newest = 1 and decision != 'clear'
        """,
        replace=True,
    )
