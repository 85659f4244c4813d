from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from webapp.job import Job, JobQueue, Progress, Stopped


def counting(done: list[int], steps: int = 100, seconds: float = 0.02):
    def work(on_progress):
        for number in range(steps):
            time.sleep(seconds)
            done.append(number)
            on_progress(Progress(number / steps, f"step {number}"))

    return work


def finished(job: Job) -> None:
    job.wait(5)
    assert job.finished


def start(work) -> Job:
    return Job(work, JobQueue()).start()


def test_the_last_progress_is_always_seen_and_the_job_ends_with_its_work():
    done: list[int] = []
    job = start(counting(done, 5))
    messages = [progress.message for progress in job.updates()]
    assert messages[-1] == "step 4"
    assert job.succeeded
    assert not job.active


def test_closing_the_updates_stops_the_work_at_its_next_step():
    done: list[int] = []
    job = start(counting(done))
    updates = job.updates()
    next(updates)
    updates.close()  # as garbage collection does
    assert not job.active
    finished(job)
    assert len(done) < 10
    assert not job.succeeded


def test_a_stop_ends_the_updates_before_the_current_step_ends():
    step = threading.Event()
    job = start(lambda on_progress: step.wait(10))
    threading.Timer(0.1, job.stop).start()
    with pytest.raises(Stopped):
        list(job.updates())
    assert not job.active
    assert not job.finished
    step.set()
    finished(job)


def test_failures_are_raised_by_the_updates():
    def work(on_progress):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(start(work).updates())


def test_one_job_runs_at_a_time_and_a_stopped_one_does_not_wait_for_its_turn():
    queue, done = JobQueue(), []
    first = Job(counting(done, 30), queue).start()
    while not done:
        time.sleep(0.01)
    never: list[int] = []
    second = Job(counting(never), queue).start()
    second.stop()
    finished(second)
    assert never == []
    assert not first.finished
    with pytest.raises(Stopped):
        list(second.updates())
    after: list[int] = []
    third = Job(counting(after, 1), queue).start()
    list(third.updates())
    assert first.finished
    assert len(done) == 30


def test_the_callback_of_stop_is_called_once_when_the_work_has_ended():
    done: list[int] = []
    calls: list[int] = []
    job = start(counting(done))
    job.stop(on_finished=lambda: calls.append(len(done)))
    finished(job)
    assert calls == [len(done)]
    job.stop(on_finished=lambda: calls.append(-1))  # already finished: called at once
    assert calls == [len(done), -1]


def test_progress_is_repeated_while_nothing_changes():
    job = start(lambda on_progress: time.sleep(1.5))
    assert len(list(job.updates())) >= 3


@pytest.mark.parametrize(
    ("seconds", "first"), [(0.1, "begun"), (1.0, "Waiting for the previous job")]
)
def test_a_job_shows_that_it_waits_only_if_it_does(seconds: float, first: str):
    """Otherwise the bar would jump back for a moment when the second of two jobs starts."""
    queue = JobQueue()
    Job(lambda on_progress: time.sleep(seconds), queue).start()
    job = Job(lambda on_progress: on_progress(Progress(0.5, "begun")), queue).start()
    messages = [progress.message for progress in job.updates()]
    assert messages[0] == first
    assert messages[-1] == "begun"


def test_views_stay_until_they_are_replaced():
    strip = np.zeros((2, 32, 3), dtype=np.uint8)

    def work(on_progress):
        on_progress(Progress(0.1, "a", strip, "views"))
        on_progress(Progress(0.2, "b"))

    last = list(start(work).updates())[-1]
    assert (last.message, last.title) == ("b", "views")
    assert last.strip is strip


def test_jobs_run_in_the_order_of_their_start():
    queue, order, gate = JobQueue(), [], threading.Event()
    jobs = [Job(lambda on_progress: gate.wait(5) and None, queue).start()]
    jobs += [Job(lambda on_progress, k=k: order.append(k), queue).start() for k in range(20)]
    assert queue.ahead(jobs[7]) == jobs[:7]
    while not jobs[0].running:
        time.sleep(0.01)
    assert not jobs[1].running
    jobs[5].stop()
    gate.set()
    finished(jobs[-1])
    assert order == [k for k in range(20) if k != 4]
    assert queue.ahead(None) == []


def test_the_time_left_follows_a_jobs_own_speed_once_it_has_one():
    def work(on_progress):
        for fraction in (0.01, 0.25):
            time.sleep(0.3)
            on_progress(Progress(fraction, ""))
        go.wait(5)

    queue, go = JobQueue(), threading.Event()
    job, waiting = (Job(work, queue).start() for _ in range(2))
    assert (waiting.seconds_left(None), waiting.seconds_left(90.0)) == (None, 90.0)
    assert job.seconds_left(None) is None
    assert 89 < job.seconds_left(90.0) <= 90
    while job.latest.fraction < 0.25:
        time.sleep(0.01)
    assert 1.8 <= job.seconds_left(90.0) < 2.6  # three times the 0.6 s
    waiting.stop()
    go.set()
    finished(job)
