"""The engine: one thread decodes the rows of many callers, a pass for all of them at a time.

Every job is an ordinary call of `generate` or of a pipeline, in a greenlet of its own that stops
wherever it asks a network. When all jobs have asked, their questions are joined, and each goes on
with its own part of the answer. So a job joins with the next pass and leaves when it is done; what
it asks of its sampler is nobody else's concern; and its text is that of the same call made alone.

It stops before a step of the sampler too: jobs of equal options make it together, in one more
greenlet, which has them ask their networks (`steps`). Where one of them fails, or leaves, in the
midst of it, the others go on alone.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from queue import SimpleQueue
from typing import Any

import torch
from greenlet import GreenletExit, getcurrent, greenlet

from ..core.decoding_state import DecodingState
from ..core.packed_weights import PackedWeights
from .errors import QueueFull, TimeIsUp, Unavailable
from .grid import Grid
from .passes import Question, ask_together, grouped
from .shared_model import SharedModel
from .steps import Found, JoinedStep, Step, Wanted

logger = logging.getLogger(__name__)
_PAUSE, _WAITS = object(), object()
# Steps that ask nothing, such as those in which a row reveals nothing, before a pass of the others:
# they cost little, and behind them the row shares the pass.
_MOST_EMPTY = 8


@dataclass(eq=False)
class Job:
    """A piece of work of the engine's.

    Attributes:
        work: what is done; its passes are asked of `Engine.model`.
        rows: how many rows it decodes side by side.
        on_end: told what the work returned, or the error that ended it; in the engine's thread.
        seconds: after which it is ended, waiting or not; None for never.
    """

    work: Callable[[], Any]
    rows: int
    on_end: Callable[[Any, BaseException | None], None]
    seconds: float | None = None
    _deadline: float = math.inf  # on the clock of `time.monotonic`
    _thread: Any = None
    _asked: Any = None  # what it waits for: _PAUSE, or _WAITS for the others of its step
    _passed: bool = False


@dataclass(eq=False)
class _Together:
    """Jobs in one step of the sampler.

    Attributes:
        jobs: which.
        thread: makes the step.
        asked: numbers of those that it waits for.
    """

    jobs: list[Job]
    thread: Any
    asked: list[int] = field(default_factory=list)


@dataclass
class Counts:
    """What the engine has done, for whoever measures.

    Attributes:
        passes: calls of a network.
        rows: rows of these passes.
        steps: steps of the sampler that several jobs made together.
        step_rows: rows of these steps.
        decoding: rows of the jobs in work.
        waiting: rows of the jobs that wait.
        watch: called with the rows of every pass.
    """

    passes: int = 0
    rows: int = 0
    steps: int = 0
    step_rows: int = 0
    decoding: int = 0
    waiting: int = 0
    watch: Callable[[int], None] = field(default=lambda rows: None)


class Engine:
    """Decodes the rows of many callers side by side.

    Args:
        model: a generator in eval mode, asked from the engine's thread alone.
        max_rows: decoded side by side; a job beyond them waits, and one of more rows than these
            goes by itself.
        max_queue: rows that may wait.
        max_places: rows times length of one pass.
        max_positions: longest text in tokens, besides the model's own limit; None sets none.
    """

    def __init__(
        self,
        model: Any,
        max_rows: int = 64,
        max_queue: int = 256,
        max_places: int = 16_384,
        max_positions: int | None = None,
    ) -> None:
        self._packs = PackedWeights()  # all passes have the same weights
        self._grid = Grid.of(model)
        own = self._ask, self._share, self._pause, self._packs, max_positions
        self.model = SharedModel(model, *own)
        self.counts = Counts()
        self._model, self._max_rows, self._max_queue = model, max_rows, max_queue
        self._max_places = max_places
        self._inbox: SimpleQueue[tuple[str, Job | None]] = SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._jobs: list[Job] = []
        self._together: list[_Together] = []
        self._lock, self._closed = threading.Lock(), False
        self._worker = threading.Thread(target=self._run, name="hf_maskgit engine", daemon=True)
        self._worker.start()

    def submit(self, *jobs: Job) -> None:
        """Take up the jobs of one request, all of them or none.

        Raises:
            QueueFull: when too many rows wait already.
            Unavailable: when the engine was closed.
        """
        rows = sum(job.rows for job in jobs)
        with self._lock:
            if self._closed:
                raise Unavailable("The server is shutting down and takes no more requests.")
            waiting = self.counts.waiting
            # Rows that will start with the next pass do not wait.
            free = max(self._max_rows - self.counts.decoding, 0)
            if waiting + rows > self._max_queue + free:
                raise QueueFull(
                    f"{waiting} rows wait already and this request has {rows}; {self._max_queue} "
                    "may wait. Try again later."
                )
            self.counts.waiting += rows
            now = time.monotonic()
            for job in jobs:
                job._deadline = math.inf if job.seconds is None else now + job.seconds
                self._inbox.put(("start", job))

    def cancel(self, *jobs: Job) -> None:
        """End jobs before their next pass; what is done already is left alone."""
        for job in jobs:
            self._inbox.put(("cancel", job))

    def close(self) -> None:
        """End all jobs and the thread."""
        with self._lock:
            self._closed = True
        self._inbox.put(("close", None))
        self._worker.join()

    # What follows is done in the engine's thread.

    def _run(self) -> None:
        self._hub = getcurrent()
        try:
            # For all jobs together: each would put back what it found, in the midst of others.
            with torch.no_grad():
                while self._read_inbox():
                    self._end_late()
                    self._admit()
                    self._step()
        except BaseException:  # a fault of the engine's own: nobody may wait for it for ever
            logger.exception("The engine has stopped.")
            raise
        finally:
            with self._lock:
                self._closed = True
            self._end_all()

    @property
    def is_alive(self) -> bool:
        """Whether the engine takes up jobs."""
        return not self._closed

    def _end_all(self) -> None:
        while not self._inbox.empty():
            word, job = self._inbox.get()
            if word == "start" and job is not None:
                self._waiting.append(job)
        for job in [*self._waiting, *self._jobs]:
            self._end(job, Unavailable("The server was shut down."))
        self._go_on_with_steps()  # which were made for them, and end too

    def _read_inbox(self) -> bool:
        idle = not self._jobs and not self._waiting
        while idle or not self._inbox.empty():
            idle = False
            word, job = self._inbox.get()
            if job is None:
                return False
            if word == "start":
                self._waiting.append(job)
            elif job in self._jobs or job in self._waiting:
                self._end(job, GreenletExit())
        return True

    def _end_late(self) -> None:
        now = time.monotonic()
        for job in [*self._waiting, *self._jobs]:
            if now > job._deadline:
                self._end(job, TimeIsUp(job.seconds))

    def _admit(self) -> None:
        while self._waiting:
            job = self._waiting[0]
            if self._jobs and self.counts.decoding + job.rows > self._max_rows:
                return
            self._waiting.popleft()
            self._count(waiting=-job.rows, decoding=job.rows)
            self._jobs.append(job)
            job._thread = greenlet(job.work)
            self._resume(job, job._thread.switch)

    def _step(self) -> None:
        """Answer what all jobs have asked, and let each go on to its next question."""
        for _ in range(_MOST_EMPTY):
            self._begin_steps()
            paused = [job for job in self._jobs if job._asked is _PAUSE]
            if not paused:
                break
            for job in paused:
                self._resume(job, job._thread.switch)
        self._ask_networks()
        self._go_on_with_steps()

    def _ask_networks(self) -> None:
        """Answer all questions, joined."""
        asked = [job for job in self._jobs if isinstance(job._asked, Question)]
        questions = [job._asked for job in asked]
        answers: list[tuple[Job, Any, BaseException | None]] = []
        any_length = (lambda one: one.fits_grid) if self._grid is not None else (lambda one: False)
        for numbers in grouped(questions, self._max_places, any_length):
            found = self._answers([questions[i] for i in numbers])
            answers += [(asked[i], *one) for i, one in zip(numbers, found, strict=True)]
        for job, answer, error in answers:
            job._passed = True
            if error is None:
                self._resume(job, job._thread.switch, answer)
            else:
                self._resume(job, job._thread.throw, error)

    def _begin_steps(self) -> None:
        """Let jobs that are before steps of one kind make one step together."""
        before = [job for job in self._jobs if isinstance(job._asked, Step)]
        for numbers in grouped([job._asked for job in before], self._max_places):
            jobs = [before[i] for i in numbers]
            if len(jobs) == 1:
                self._resume(jobs[0], jobs[0]._thread.switch, None)
                continue
            step = JoinedStep([job._asked for job in jobs], self._padding, self._switch)
            self.counts.steps += 1
            self.counts.step_rows += sum(job.rows for job in jobs)
            together = _Together(jobs, greenlet(step))
            self._together.append(together)
            for job in jobs:
                job._asked = _WAITS
            self._go_on(together)

    def _go_on_with_steps(self) -> None:
        """Go on with each common step whose questions are answered; or let all go on alone."""
        for together in list(self._together):
            if any(job not in self._jobs for job in together.jobs):
                self._go_on_alone(together)
                continue
            told = {i: together.jobs[i]._asked for i in together.asked}
            if all(isinstance(found, Found) for found in told.values()):
                for i in told:
                    together.jobs[i]._asked = _WAITS
                self._go_on(together, told)
        joined = [job for together in self._together for job in together.jobs]
        for job in list(self._jobs):
            if isinstance(job._asked, Found) and job not in joined:
                self._resume(job, job._thread.switch, None)

    def _go_on(self, together: _Together, *told: Any) -> None:
        """Go on with a common step, until it asks networks or ends."""
        try:
            found = together.thread.switch(*told)
        except Exception:  # whose fault it is shows when each goes on alone
            self._go_on_alone(together)
            return
        if together.thread.dead:
            self._together.remove(together)
            for job, state in zip(together.jobs, found, strict=True):
                self._resume(job, job._thread.switch, state)
            return
        together.asked = list(found)
        for i, wanted in found.items():
            self._resume(together.jobs[i], together.jobs[i]._thread.switch, wanted)

    def _go_on_alone(self, together: _Together) -> None:
        self._together.remove(together)
        if not together.thread.dead:
            together.thread.throw(GreenletExit)
        for job in together.jobs:
            # One that has asked a network is told when it has its answer.
            if job in self._jobs and not isinstance(job._asked, Question):
                self._resume(job, job._thread.switch, None)

    def _answers(self, questions: list[Question]) -> list[tuple[Any, BaseException | None]]:
        rows = sum(question.shape[0] for question in questions)
        self.counts.passes, self.counts.rows = self.counts.passes + 1, self.counts.rows + rows
        self.counts.watch(rows)
        try:
            answers = ask_together(self._model, questions, self._padding, self._packs, self._grid)
        except Exception as error:
            if len(questions) == 1:
                return [(None, error)]
            # Whose fault it is shows when each is asked alone; the others go on.
            return [one for question in questions for one in self._answers([question])]
        return [(answer, None) for answer in answers]

    @cached_property  # a look-up in a configuration takes as long as some layers of a pass
    def _padding(self) -> int:
        padding = self._model.config.get_text_config().pad_token_id
        return 0 if padding is None else int(padding)

    def _resume(self, job: Job, go: Callable[..., Any], *given: Any) -> None:
        """Let a job go on until it asks again or ends."""
        job._asked = None
        try:
            found = go(*given)
        except Exception as error:
            self._leave(job)
            job.on_end(None, error)
            return
        if not job._thread.dead:
            job._asked = found
            return
        self._leave(job)
        job.on_end(found, None)

    def _end(self, job: Job, error: BaseException) -> None:
        """End a job that is not done."""
        if job in self._waiting:
            self._waiting.remove(job)
            self._count(waiting=-job.rows)
        else:
            try:
                job._thread.throw(GreenletExit)
            except Exception:
                logger.exception("A job did not end when it was told to.")
            self._leave(job)
        job.on_end(None, error)

    def _leave(self, job: Job) -> None:
        self._jobs.remove(job)
        self._count(decoding=-job.rows)

    def _count(self, waiting: int = 0, decoding: int = 0) -> None:
        with self._lock:
            self.counts.waiting += waiting
            self.counts.decoding += decoding

    # What follows is done in a job.

    def _ask(self, question: Question) -> Any:
        if getcurrent().parent is None:  # outside of any job: nobody to wait for
            return question.ask(self._model, self._packs)
        return self._switch(question)

    def _share(self, step: Step | Found) -> Wanted | DecodingState | None:
        if getcurrent().parent is None:
            return None
        told: Wanted | DecodingState | None = self._switch(step)
        return told

    def _switch(self, asked: Any) -> Any:
        return self._hub.switch(asked)

    def _pause(self) -> None:
        job = next((one for one in self._jobs if one._thread is getcurrent()), None)
        if job is None:
            return
        if not job._passed:  # a pass that was not asked of us, such as one with a cache
            self._hub.switch(_PAUSE)
        job._passed = False
