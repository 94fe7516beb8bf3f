"""The routes of one project and of all. Knows requests and answers; decides nothing itself."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from annotator.faults import Fault, FieldError, FieldErrors, faults_of, sentence
from annotator.routes import comparing, export, labelling, loop, review, setup, trying
from annotator.routes.common import all_projects
from annotator.store import DatabaseError, Displaced, Outside

api = APIRouter(prefix="/api")
for _part in (labelling, loop, review, setup, comparing, trying, export):
    api.include_router(_part.api)


def add_error_answers(app: FastAPI) -> None:
    """One sentence in `detail` for every mistake; nothing of our insides."""

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(ValidationError)
    def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError | ValidationError)
        return _refusal(faults_of(error.errors()))

    @app.exception_handler(FieldError)
    def misfilled(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, FieldError)
        return _refusal([Fault(field=error.field, rule="", sentence=str(error))])

    @app.exception_handler(FieldErrors)
    def several(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, FieldErrors)
        return _refusal([Fault(field=one.field, rule="", sentence=str(one)) for one in error.errors])

    @app.exception_handler(ValueError)
    def mistake(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(Outside)
    def outside(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 403)

    @app.exception_handler(KeyError)
    def missing(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error.args[0]) if error.args else "Not found."}, 404)

    @app.exception_handler(DatabaseError)
    def unwritten(_: Request, error: Exception) -> JSONResponse:
        why = f"The project could not be written: {error}. Is the disk full?"
        return JSONResponse({"detail": f"{why} Labels and decisions wait in your browser."}, 503)

    @app.exception_handler(Displaced)
    def displaced(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": f"{error} Labels and decisions wait in your browser."}, 503)

    @app.exception_handler(OSError)
    def no_file(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, OSError)
        file = file_of(error, root=all_projects(request).root)
        said = f"{file}: {error.strerror}" if file else str(error.strerror or error)
        why = f"A file could not be written or read: {said}. Nothing was started."
        return JSONResponse({"detail": f"{why} Check the disk's space and the project's folder."}, 503)


def file_of(error: OSError, *, root: Path) -> str:
    """The file that an error is about, as seen from the folder of all projects.

    Its name alone where it lies elsewhere: nobody is told how this machine is laid out. Empty where the
    error names none.
    """
    if not isinstance(error.filename, str | os.PathLike):
        return ""
    file = Path(error.filename)
    return str(file.relative_to(root)) if file.is_relative_to(root) else file.name


def _refusal(faults: list[Fault]) -> JSONResponse:
    """The first fault as a sentence, for who shows one; all of them with their fields, for a form."""
    return JSONResponse({"detail": sentence(faults[0]), "faults": faults}, 422)
