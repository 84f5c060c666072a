"""Stopping by signals and by the time limit."""
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from spanbert_jax.cluster import stopping
from spanbert_jax.cluster.stopping import SIGNALS, Stopped, StopRequest

NOTED = """
import signal
from spanbert_jax.cluster.stopping import StopRequest
with StopRequest() as stop, stop.deferred():
    print("ready", flush=True)
    while not stop:
        signal.pause()
    print("noted", stop.reason, flush=True)
    while True:
        signal.pause()
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_stopped_through_except_exception(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=signal.Signals(number).name), StopRequest():
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except Exception:
            pytest.fail("caught as an ordinary error")
    assert signal.getsignal(number) is before


def test_a_deferred_request_raises_nothing():
    with StopRequest() as stop, stop.deferred():
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop and stop.reason == "SIGTERM"


def test_the_time_limit_is_a_stop_request():
    with StopRequest(time_limit=0.05) as stop, stop.deferred():
        while not stop:
            signal.pause()
        assert stop.reason == "the time limit"
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(second):
    with subprocess.Popen([sys.executable, "-c", NOTED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "noted SIGTERM\n"
        process.send_signal(second)
        assert process.wait(timeout=10) == -second


def test_a_hangup_after_another_signal_is_ignored():
    with subprocess.Popen([sys.executable, "-c", NOTED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "noted SIGHUP\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == -signal.SIGINT


def test_a_hangup_that_is_ignored_from_the_start_stays_so():
    with subprocess.Popen(["nohup", sys.executable, "-c", NOTED], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "noted SIGTERM\n"
        process.kill()


def test_under_slurm_a_second_sigterm_is_ignored():
    with subprocess.Popen([sys.executable, "-c", NOTED], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "SLURM_STEP_ID": "0"}) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "noted SIGTERM\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == -signal.SIGINT


def test_an_interruptible_call_returns_its_result_or_raises_its_error():
    with StopRequest() as stop, stop.deferred():
        assert stop.interruptible(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            stop.interruptible(lambda: 1 / 0)


def test_an_interruptible_call_is_abandoned_on_a_request():
    begun, end = threading.Event(), threading.Event()

    def call():
        begun.set()
        end.wait()

    def send():
        begun.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    began = time.monotonic()
    with StopRequest() as stop, stop.deferred(), pytest.raises(Stopped):
        stop.interruptible(call)
    assert time.monotonic() - began < 5
    end.set()


def test_outside_the_main_thread_the_time_limit_is_checked():
    seen = []

    def use():
        with StopRequest(time_limit=3600) as stop:
            seen.append(bool(stop))
        with StopRequest(time_limit=0.001) as stop:
            while not stop:
                pass
            seen.append(stop.reason)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [False, "the time limit"]


def test_a_swallowed_request_is_taken_over_by_a_nested_one():
    with StopRequest() as outer:
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        with pytest.raises(Stopped, match="SIGTERM"), StopRequest():
            pytest.fail("entered although a stop was requested")
        assert outer


def test_a_swallowed_request_is_raised_again(monkeypatch):
    monkeypatch.setattr(stopping, "_REPEAT_SECONDS", 0.05)
    with StopRequest():
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        with pytest.raises(Stopped):
            signal.pause()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
