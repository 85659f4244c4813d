from __future__ import annotations

import os
import signal

import pytest

from common.signals import stop_on_signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="os.kill ends a process on Windows")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_sets_the_flag(number: signal.Signals):
    handler = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), number)
        assert stop.signal == number
    assert signal.getsignal(number) == handler


def test_the_second_interrupt_stops_at_once():
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGTERM
