"""Writing forms: whole or not at all, never over another, never outside the folder."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from modern_rlhf.errors import OutputError
from modern_rlhf.feedback.forms import parse_form
from modern_rlhf.feedback.store import load_forms
from modern_rlhf.feedback.writing import (
    remove_unfinished,
    rewrite_json,
    safe_name,
    withdraw,
    write_form,
)


@pytest.fixture
def parsed(form):
    return parse_form(form(), "form")


def test_the_name_is_the_time_and_the_rater(parsed, tmp_path):
    path = write_form(tmp_path / "new" / "folder", parsed)
    assert path.name == "2024-05-06-07-08-09-ann.json"
    assert load_forms(path) == [(path, parsed)]


def test_equal_names_never_overwrite(parsed, tmp_path):
    paths = [write_form(tmp_path, replace(parsed, slider=n)) for n in (-2, 0, 2)]
    assert [p.name.removeprefix("2024-05-06-07-08-09-") for p in paths] == [
        "ann.json",
        "ann-2.json",
        "ann-3.json",
    ]
    assert sorted(f.slider for _, f in load_forms(tmp_path)) == [-2, 0, 2]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Ann Lee", "Ann-Lee"),
        ("../../etc/passwd", "etc-passwd"),
        ("a/b\\c:d*e?f", "a-b-c-d-e-f"),
        ("<script>alert(1)</script>", "script-alert-1-script"),
        ("Jürgen Ørsted", "Jurgen-rsted"),
        ("\x00\n\r", "anonymous"),
        ("", "anonymous"),
        ("...", "anonymous"),
        ("李雷", "anonymous"),
        ("x" * 300, "x" * 40),
    ],
)
def test_rater_names_become_harmless(parsed, tmp_path, name, safe):
    assert safe_name(name) == safe
    path = write_form(tmp_path, replace(parsed, rater=name))
    assert path.parent == tmp_path
    assert re.fullmatch(r"2024-05-06-07-08-09-[\w-]+\.json", path.name)
    assert load_forms(path)[0][1].rater == name  # the name itself is kept as given


def test_many_writers_lose_nothing(parsed, tmp_path):
    with ThreadPoolExecutor(16) as pool:
        paths = list(
            pool.map(lambda n: write_form(tmp_path, replace(parsed, comment=str(n))), range(200))
        )
    assert len(set(paths)) == 200
    assert {f.comment for _, f in load_forms(tmp_path)} == {str(n) for n in range(200)}


def test_without_hard_links_nothing_is_overwritten_either(parsed, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for slider in (-1, 0, 1):
        write_form(tmp_path, replace(parsed, slider=slider))
    assert sorted(f.slider for _, f in load_forms(tmp_path)) == [-1, 0, 1]
    assert not list(tmp_path.glob("*.tmp"))


def contents(folder, pattern):
    return sorted(parse_form(json.loads(p.read_text()), "").slider for p in folder.glob(pattern))


def test_a_replaced_form_is_there_at_every_moment_and_kept(parsed, tmp_path, monkeypatch):
    path = write_form(tmp_path, replace(parsed, slider=-2))

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            rewrite_json(path, replace(parsed, slider=1).to_json())
    assert contents(tmp_path, "*.json") == [-2]
    for slider in (1, 2):
        rewrite_json(path, replace(parsed, slider=slider).to_json())
    assert contents(tmp_path, "*.json") == [2]
    assert contents(tmp_path, "*.withdrawn") == [-2, -2, 1]


@pytest.mark.parametrize("links", [True, False])
def test_what_is_withdrawn_is_never_deleted(parsed, tmp_path, monkeypatch, links):
    def refuse(*args, **kwargs):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    for slider in (-1, 0, 1):  # all within one second: with links all of one name
        withdraw(write_form(tmp_path, replace(parsed, slider=slider)))
    assert contents(tmp_path, "*.json") == []
    assert contents(tmp_path, "*.withdrawn") == [-1, 0, 1]
    withdraw(tmp_path / "moved-away-by-hand.json")
    withdraw(tmp_path / "folder" / "moved-away-by-hand.json")


def test_what_a_killed_writer_left_is_removed_when_it_is_old(tmp_path):
    old, young = tmp_path / ".a.tmp", tmp_path / ".b.tmp"
    for path in (old, young):
        path.write_text("{")
    os.utime(old, (0, 0))
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [young]


def test_a_full_disk_leaves_no_file_and_says_so(parsed, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_form(tmp_path, parsed)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_an_output_error(parsed, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be stored"):
        write_form(tmp_path / "file", parsed)


def test_a_killed_writer_leaves_only_whole_forms(parsed, tmp_path):
    code = (
        "import sys, json\n"
        "from dataclasses import replace\n"
        "from modern_rlhf.feedback.forms import parse_form\n"
        "from modern_rlhf.feedback.writing import write_form\n"
        "form = parse_form(json.load(sys.stdin), 'form')\n"
        "print('ready', flush=True)\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        f"    write_form({str(tmp_path)!r}, replace(form, comment='x' * 200_000 + str(n)))\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    writer.stdin.write(json.dumps(parsed.to_json()))
    writer.stdin.close()
    assert writer.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("[!.]*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    forms = load_forms(tmp_path)  # raises if any of them is half a file
    assert len(forms) >= 5
    assert all(f.comment.startswith("x" * 200_000) for _, f in forms)
