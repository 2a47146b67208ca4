"""The polite stop: a first signal sets the flag, a second Ctrl-C interrupts, handlers come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from modern_rlhf.utils.stop import StopFlag


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_flag_and_says_so(number: signal.Signals, capfd) -> None:
    with StopFlag() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert stop.reason == number.name
    assert f"{number.name}: stopping after this step" in capfd.readouterr().err


def test_a_second_ctrl_c_interrupts() -> None:
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested


def test_further_sigterms_are_patient() -> None:
    """Schedulers repeat SIGTERM; only a person's Ctrl-C is impatience."""
    with StopFlag() as stop:
        try:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:  # unhandled, it would end the whole suite
            pytest.fail("a repeated SIGTERM interrupted the run")
        assert stop.requested


def test_the_previous_handlers_come_back() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError), StopFlag():
        raise ValueError
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """`nohup` and background jobs of a shell start with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopFlag() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.requested
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_installs_nothing() -> None:
    seen: list[bool] = []

    def enter() -> None:
        with StopFlag() as stop:
            stop.request("a button")
            seen.extend([stop.installed, stop.requested, stop.reason == "a button"])

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [False, True, True]


def test_a_process_stops_between_steps() -> None:
    """A whole process: the loop ends by itself, with its own exit code."""
    code = (
        "import sys, time\n"
        "from modern_rlhf.utils.stop import StopFlag\n"
        "with StopFlag() as stop:\n"
        "    print('ready', flush=True)\n"
        "    while not stop.requested: time.sleep(0.01)\n"
        "    print('saved', flush=True)\n"
        "sys.exit(130)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == "saved\n"
    assert process.returncode == 130
