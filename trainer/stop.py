"""Requests to stop: Ctrl-C, SIGTERM and the run's ``stop`` file. The step is finished and everything saved first."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from trainer.errors import ExitCode
from trainer.run import RunDir


class StopRequests:
    """While entered, the first signal only sets a flag; a second one of the same kind acts as usual."""

    SIGNALS = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.code: ExitCode | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequests:
        for number in self.SIGNALS:
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # only the main thread can listen to signals; the stop file still works elsewhere
                break
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.code = self.SIGNALS[signal.Signals(number)]
        signal.signal(number, self._before[number])  # type: ignore[arg-type]

    def requested(self) -> bool:
        """Whether to stop after the present step."""
        if self.code is None and self.run.stop_requested():
            self.code = ExitCode.INTERRUPTED
        return self.code is not None
