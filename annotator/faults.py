"""What is wrong with what a person gave, field by field and in words. Knows no form and no route."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypedDict

from pydantic import ValidationError


class Fault(TypedDict):
    """Of one field: either a whole sentence, or what comes after the field's own name in one."""

    field: str
    """Its path with dots, as in the settings; empty where no single field is to blame."""
    rule: str
    sentence: str


class FieldError(ValueError):
    """A mistake that one field is to blame for."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


@contextmanager
def about(field: str) -> Iterator[None]:
    """Blames `field` for every ValueError within that blames none itself."""
    try:
        yield
    except (FieldError, ValidationError):
        raise
    except ValueError as error:
        raise FieldError(field, str(error)) from error


class FieldErrors(ValueError):
    """Mistakes of several fields."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__(str(errors[0]))
        self.errors = errors


class Gathered:
    """Goes on after a field that is wrong, so that all that are wrong can be said at once."""

    def __init__(self) -> None:
        self._errors: list[FieldError] = []

    @contextmanager
    def about(self, field: str) -> Iterator[None]:
        try:
            with about(field):
                yield
        except FieldError as error:
            self._errors.append(error)

    def check(self) -> None:
        """FieldErrors where there is a mistake."""
        if self._errors:
            raise FieldErrors(self._errors)


def faults_of(errors: Iterable[Mapping[str, Any]]) -> list[Fault]:
    """pydantic's errors, in words for people."""
    return [_fault(error) for error in errors]


def _fault(error: Mapping[str, Any]) -> Fault:
    field = ".".join(str(part) for part in error["loc"] if part != "body")
    if error["type"] == "value_error":
        return Fault(field=field, rule="", sentence=str(error["msg"]).removeprefix("Value error, "))
    return Fault(field=field, rule=_rule(error), sentence="")


_RULES = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_long": "must have at most {max_length} characters",
    "extra_forbidden": "is not known here",
    "string_unicode": "has half of a character",
}


def _rule(error: Mapping[str, Any]) -> str:
    kind, limits = str(error["type"]), error.get("ctx", {})
    if kind in ("missing", "string_too_short") or error.get("input", "") is None:
        return "is missing"
    if kind in _RULES:
        return _RULES[kind].format(**{name: _number(limit) for name, limit in limits.items()})
    if kind.startswith("tuple_"):
        return "must be two numbers, such as 768 x 512"
    if kind.startswith("int_"):
        return "must be a whole number"
    if kind.startswith("float_") or kind == "finite_number":
        return "must be a number"
    return f"cannot be used: {error['msg']}"


def _number(limit: Any) -> str:
    return f"{limit:,g}" if isinstance(limit, int | float) else str(limit)


def sentence(fault: Fault) -> str:
    """One sentence that stands by itself."""
    return fault["sentence"] or f"{fault['field'] or 'This'} {fault['rule']}."
