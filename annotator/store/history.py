"""Everything that was said and decided, in order. Knows the tables; knows no names of people."""

from __future__ import annotations

from typing import Any

from annotator.store.base import Base

SAID = """
    select l.at, l.person as "by", 'label' as what, l.value as said, null as payload,
           l.pair as pair, null as run, runs.round, c.prompt
    from labels l join pairs p on p.id = l.pair join candidates c on c.id = p.one join runs on runs.id = p.run
    union all
    select a.at, a.person, 'comparison', a.value, null, a.comparison, null, null, d.prompt
    from comparison_answers a join comparisons o on o.id = a.comparison join candidates d on d.id = o.one
    union all
    select r.at, r.person, 'review', r.decision, null, r.self_pair, s.run, u.round, w.prompt
    from reviews r join self_pairs s on s.id = r.self_pair join candidates w on w.id = s.winner
    join runs u on u.id = s.run
    where r.bulk is null
    union all
    select b.at, b.person, 'review in bulk', case when b.undoes is null then 'approve' else 'undo' end,
           json_object('clarity', b.threshold,
                       'pairs', (select count(*) from reviews n where n.bulk = coalesce(b.undoes, b.uuid))),
           null, b.run, v.round, null
    from bulk_reviews b join runs v on v.id = b.run
    union all
    select e.at, e."by", 'run', t.job || ' ' || e.what, e.payload, null, e.run, t.round, null
    from run_events e join runs t on t.id = e.run
    union all
    select at, "by", kind, null, payload, null, null, null, null from events
    order by 1
"""


class History(Base):
    """Part of Store."""

    def history(self) -> list[dict[str, Any]]:
        """Labels, reviews, comparisons, runs and settings as they came in, oldest first.

        Each has `at`, `by`, `what` and, where it is about one, `said`, `payload` (JSON), `pair`, `run`,
        `round` and `prompt`.
        """
        return self._rows(SAID)
