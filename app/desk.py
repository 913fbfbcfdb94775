"""Answers that need torch or the trainer, from one process beside the server, which itself stays small.

A question is the name of a function in ``trainer.answers``. The process starts with the first question and lives on; if
it dies it is started again.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from app.places import Places
from trainer.presets import ROOT

ANSWERS = "trainer.answers"
TIMEOUT = 120.0


class Refused(Exception):  # noqa: N818
    """The answer is no: a message for the user, with what to do."""


class Desk:
    """Asks the process beside this one. Safe for several threads; questions are answered one after the other.

    ``places`` are what a question may lead to, ``process`` one that ``start`` gave.
    """

    def __init__(self, places: Places | None = None, process: ProcessPoolExecutor | None = None) -> None:
        self._places = places or Places()
        self._lock = threading.Lock()
        self._pool = process

    def ask(self, question: str, *given: Any, timeout: float = TIMEOUT) -> Any:
        """What ``trainer.answers.QUESTION(*given)`` returns.

        Raises:
            Refused: it raised an error that is meant for the user, took too long, its process died twice, or it leads to a
                file that a page may not read.
        """
        closed = self._places.closed(given)
        if closed:
            raise Refused(closed)
        try:
            refused, answer = self._answer(question, given, timeout)
        except BrokenProcessPool:
            self.close()
            try:
                refused, answer = self._answer(question, given, timeout)
            except BrokenProcessPool as error:
                self.close()
                raise Refused("the process that answers ended twice; there may be too little memory") from error
        if refused:
            raise Refused(answer)
        return answer

    def begin(self, question: str) -> None:
        """Have a question of nothing answered by the time that somebody asks; waits for nothing."""
        self._start().submit(answered, question, ())

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _answer(self, question: str, given: tuple[Any, ...], timeout: float) -> tuple[bool, Any]:
        try:
            return self._start().submit(answered, question, given).result(timeout)
        except TimeoutError as error:
            self.close()
            raise Refused(f"no answer within {timeout:.0f} seconds") from error

    def _start(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = start()
            return self._pool


def start(*questions: str) -> ProcessPoolExecutor:
    """A process that answers, already at work on these."""
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=prepare)
    for question in questions:
        pool.submit(answered, question, ())
    return pool


def prepare() -> None:
    """Runs in the process, first: relative paths start where a run's do, not in the server's empty folder."""
    os.chdir(ROOT)
    end_with_server()


def end_with_server() -> None:
    """Runs in the process: it ends when the server does, also where that is killed and can tell nobody."""
    server = multiprocessing.parent_process()

    def watch() -> None:
        if server is not None:
            server.join()
            os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def answered(question: str, given: tuple[Any, ...]) -> tuple[bool, Any]:
    """Runs in the process: whether it was refused, and the answer or the reason."""
    return importlib.import_module(ANSWERS).answer(question, given)
