"""The thread that logs, and the time that a call takes."""

import threading

from benchmark.tracking.background import Background
from benchmark.tracking.client import Calls


def test_jobs_are_done_in_order_and_waited_for():
    background, done = Background(), []
    for number in range(20):
        assert background.put(lambda number=number: done.append(number))
    assert background.finish(stuck=lambda: False) and done == list(range(20))


def test_a_job_that_hangs_holds_nobody_up_and_the_queue_is_bounded():
    background, let_go = Background(longest=2), threading.Event()
    begun = threading.Event()
    assert background.put(lambda: (begun.set(), let_go.wait()))
    assert begun.wait(60)
    assert [background.put(lambda: None) for _ in range(3)] == [True, True, False]
    assert not background.finish(stuck=lambda: True) and not let_go.is_set()
    let_go.set()


def test_the_end_of_a_wait_is_decided_while_a_job_runs():
    background, let_go, asked = Background(), threading.Event(), []
    background.put(let_go.wait)

    def stuck():
        asked.append(True)
        return len(asked) > 3

    assert not background.finish(stuck) and len(asked) == 4
    let_go.set()


def test_nothing_to_do_starts_no_thread():
    before = threading.active_count()
    assert Background().finish(stuck=lambda: True) and threading.active_count() == before


class Client:
    def __init__(self):
        self.asked = lambda: None

    def search(self, what, limit=0):
        self.asked()
        return what * limit


def test_a_call_has_an_age_only_while_it_lasts():
    client = Client()
    calls, ages = Calls(client), []
    client.asked = lambda: ages.append(calls.age)
    assert calls.age < 0 and calls.search("a", limit=3) == "aaa"
    assert ages[0] >= 0 and calls.age < 0
    client.asked = lambda: 1 / 0
    try:
        calls.search("a")
    except ZeroDivisionError:
        assert calls.age < 0
