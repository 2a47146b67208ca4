"""`generate` and `rate --model` for real, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

from modern_rlhf.main import main


def test_generate_writes_what_rate_reads(tiny_model_folder: Path, tmp_path: Path, capsys) -> None:
    from modern_rlhf.feedback.answers import read_answers

    path = tmp_path / "answers.jsonl"
    assert (
        main(
            [
                "generate", "one", "two", "--model", str(tiny_model_folder), "--samples", "2",
                "--temperature", "1", "--max-new-tokens", "4", "--output", str(path),
                "--device", "cpu",
            ]
        )
        == 0
    )  # fmt: skip
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == ["one", "one", "two", "two"]
    assert read_answers(path)


def test_rate_lets_the_models_answer_first(
    tiny_model_folder: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    """Two models, two prompts: the page gets a pair for each question, made once and kept."""
    import modern_rlhf.feedback.server as server
    from modern_rlhf.feedback.answers import pair_items, read_answers

    prompts, folder = tmp_path / "prompts.jsonl", tmp_path / "ratings"
    rows = [{"prompt": "one", "question_id": 7}, {"prompt": "two", "question_id": 8}]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    served: list[str] = []
    monkeypatch.setattr(server, "serve", lambda path, *_, **__: served.append(path))
    command = [
        "rate", "--model", str(tiny_model_folder), "--model", str(tiny_model_folder),
        "--prompts", str(prompts), "--folder", str(folder), "--temperature", "1",
        "--max-new-tokens", "6", "--device", "cpu",
    ]  # fmt: skip
    assert main(command) == 0
    sides = read_answers(served[0])
    assert [side.question_id for side in sides] == ["7", "8", "7", "8"]
    assert {side.model_tag for side in sides} == {str(tiny_model_folder)}
    assert [item.sides[0].question for item in pair_items(sides)] == ["one", "two"]
    assert "4 answers in" in capsys.readouterr().out
    before = Path(served[0]).stat().st_mtime_ns
    assert main(command) == 0  # started again: the answers are read, not made again
    assert served[0] == served[1] and Path(served[1]).stat().st_mtime_ns == before
    assert main([*command, "--seed", "1"]) == 0  # another seed, other answers, another file
    assert served[2] != served[0]
    assert not list(folder.glob("*.json*"))  # no rating yet, and nothing that looks like one
