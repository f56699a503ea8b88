"""A thread for work that nobody waits for."""

import queue
import threading
from collections.abc import Callable

Job = Callable[[], None]
LONGEST = 256
"""Jobs that may wait."""
_LOOK_S = 0.02


class Background:
    """Does jobs one after the other on a thread of its own.

    `put` returns at once, whatever the jobs do. `finish` waits for those that were put, as long as they get
    on. The thread never keeps the program alive. A job must not raise.
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self._jobs: queue.Queue[Job] = queue.Queue(longest)
        self._thread: threading.Thread | None = None

    def put(self, job: Job) -> bool:
        """Have `job` done after those before it. False: too many are waiting, and it will not be done."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
            self._thread.start()
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            return False
        return True

    def finish(self, stuck: Callable[[], bool]) -> bool:
        """Wait until all jobs are done; whether they are. `stuck` is asked often, and ends the wait."""
        done = threading.Event()
        if self._thread is None:
            return True
        if not self.put(done.set):
            return False
        while not done.wait(_LOOK_S):
            if stuck():
                return False
        return True

    def _work(self) -> None:
        while True:
            self._jobs.get()()
