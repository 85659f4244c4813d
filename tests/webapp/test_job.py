from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from webapp.job import Job, Stopped, Update


def counting(done: list[int], steps: int = 100, seconds: float = 0.02):
    def work(tell):
        for number in range(steps):
            time.sleep(seconds)
            done.append(number)
            tell(Update(number / steps, f"step {number}"))

    return work


def ended(job: Job, seconds: float = 5) -> None:
    job.wait(seconds)
    assert job.ended


def test_the_last_update_is_always_seen_and_the_end_is_the_end_of_the_work():
    done: list[int] = []
    job = Job(counting(done, 5), threading.Lock()).start()
    words = [update.words for update in job.updates()]
    assert words[-1] == "step 4"
    assert job.succeeded
    assert not job.alive


def test_whoever_leaves_stops_the_work_at_its_next_step():
    done: list[int] = []
    job = Job(counting(done), threading.Lock()).start()
    watching = job.updates()
    next(watching)
    watching.close()  # as when it is thrown away
    assert not job.alive
    ended(job)
    assert len(done) < 10
    assert not job.succeeded


def test_failures_reach_the_watcher():
    def work(tell):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(Job(work, threading.Lock()).start().updates())


def test_one_job_computes_at_a_time_and_a_stopped_one_does_not_wait_for_its_turn():
    turn, done = threading.Lock(), []
    first = Job(counting(done, 30), turn).start()
    while not done:
        time.sleep(0.01)
    never: list[int] = []
    second = Job(counting(never), turn).start()
    second.stop()
    ended(second)
    assert never == []
    assert not first.ended
    with pytest.raises(Stopped):
        list(second.updates())
    after: list[int] = []
    third = Job(counting(after, 1), turn).start()
    list(third.updates())
    assert first.ended
    assert len(done) == 30


def test_what_is_to_happen_afterwards_happens_once_when_nothing_is_written_any_more():
    done: list[int] = []
    calls: list[int] = []
    job = Job(counting(done), threading.Lock()).start()
    job.stop(then=lambda: calls.append(len(done)))
    ended(job)
    assert calls == [len(done)]
    job.stop(then=lambda: calls.append(-1))  # it has ended: at once
    assert calls == [len(done), -1]


def test_a_watcher_hears_again_while_nothing_happens():
    job = Job(lambda tell: time.sleep(1.5), threading.Lock()).start()
    assert len(list(job.updates())) >= 3


@pytest.mark.parametrize(("others", "first"), [(0.1, "begun"), (1.0, "Waiting for the one before")])
def test_a_job_is_said_to_wait_only_where_it_does(others: float, first: str):
    """Else the bar of a second job, which goes on from the first one's, jumps back for a moment."""
    turn = threading.Lock()
    turn.acquire()
    threading.Timer(others, turn.release).start()
    job = Job(lambda tell: tell(Update(0.5, "begun")), turn).start()
    words = [update.words for update in job.updates()]
    assert words[0] == first
    assert words[-1] == "begun"


def test_views_stay_until_there_are_others():
    strip = np.zeros((2, 32, 3), dtype=np.uint8)

    def work(tell):
        tell(Update(0.1, "a", strip, "views"))
        tell(Update(0.2, "b"))

    last = list(Job(work, threading.Lock()).start().updates())[-1]
    assert (last.words, last.title) == ("b", "views")
    assert last.strip is strip
