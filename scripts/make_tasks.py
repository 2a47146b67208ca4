"""Write the embedded task set: training tasks, evaluation tasks, demonstrations, CoNaLa-format sample.

    python scripts/make_tasks.py --out-dir . [--seed 0] [--train N] [--eval-seen N] [--eval-unseen N]

Every task is generated from a family (`task_families/`), its reference is executed against its tests
and a stub that returns None must fail. The same arguments give the same bytes on Python 3.10 to 3.13.
`eval_seen` has known families with parameters and phrasings that training never uses; `eval_unseen`
has families that training never sees. Tasks come in rounds over the families, so that every prefix of
a file is balanced. Standard library only; knows nothing of the package.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from task_families import FAMILIES  # noqa: E402
from task_families.conala_sample import MINED, TEST, TRAIN  # noqa: E402
from task_families.core import (  # noqa: E402
    Built,
    Family,
    build,
    canonical_code,
    draw_values,
    is_held_out,
    normalise,
)

TRAIN_TASKS = 3200
EVAL_SEEN_TASKS = 480
EVAL_UNSEEN_TASKS = 220
DEMONSTRATIONS = 1200
TIMESTAMP = "2024-01-01 00:00:00"
DRAWS_WITHOUT_NEWS = 400

Row = dict[str, object]


def _family_tasks(
    family: Family,
    split: str,
    seed: int,
    taken_cases: set[str],
    taken_canonical: set[str],
    taken_texts: set[str],
) -> Iterator[Built]:
    """Tasks of one family for one split, each with new parameters; ends when draws bring no news."""
    rng = random.Random(f"{seed}/{split}/{family.name}")
    mine: set[str] = set()
    misses = 0
    while misses < DRAWS_WITHOUT_NEWS:
        misses += 1
        values = draw_values(family, rng)
        canonical = canonical_code(family, values)
        wrong_side = split != "eval_unseen" and is_held_out(canonical) != (split == "eval_seen")
        if wrong_side or canonical in mine or canonical in taken_canonical:
            continue
        built = build(
            family,
            values,
            rng,
            unseen_phrasing=split == "eval_seen",
            any_phrasing=split == "eval_unseen",
            taken=taken_cases,
        )
        if built is None or normalise(built.text) in taken_texts:
            continue
        mine.add(canonical)
        misses = 0
        yield built


def _rounds(streams: Sequence[Iterator[Built]], count: int) -> list[Built]:
    """One task of every stream in turn until `count` are there; exhausted streams drop out."""
    out: list[Built] = []
    live = list(streams)
    while live and len(out) < count:
        still = []
        for stream in live:
            built = next(stream, None)
            if built is not None and len(out) < count:
                out.append(built)
                still.append(stream)
        live = still
    if len(out) < count:
        raise SystemExit(f"only {len(out)} of {count} tasks could be made: ask for fewer")
    return out


def generate(seed: int, train: int, eval_seen: int, eval_unseen: int) -> dict[str, list[Built]]:
    """The tasks of the three splits. The evaluation never reuses a training call with its result,
    a training program (names aside) or a training prompt."""
    cases: set[str] = set()
    canonical: set[str] = set()
    texts: set[str] = set()
    out: dict[str, list[Built]] = {}
    for split, count in (("train", train), ("eval_seen", eval_seen), ("eval_unseen", eval_unseen)):
        families = [f for _, f in sorted(FAMILIES.items()) if f.unseen == (split == "eval_unseen")]
        streams = [_family_tasks(f, split, seed, cases, canonical, texts) for f in families]
        out[split] = _rounds(streams, count)
        if split == "train":
            cases = {case for task in out[split] for case in task.cases}
            canonical = {task.canonical for task in out[split]}
            texts = {normalise(task.text) for task in out[split]}
    return out


def verify(tasks: Iterable[Built]) -> None:
    """Execute every reference against its tests, and a stub, which must fail."""
    for task in tasks:
        tests = compile("\n".join(task.test_list), "<tests>", "exec")
        namespace: dict[str, object] = {}
        exec(task.code, namespace)  # noqa: S102 - our own program
        exec(tests, namespace)  # noqa: S102
        stub: dict[str, object] = {}
        exec(f"def {task.entry_point}(*a, **k): return None", stub)  # noqa: S102
        try:
            exec(tests, stub)  # noqa: S102
        except AssertionError:
            continue
        raise SystemExit(f"a stub passes the tests of {task.family}: {task.text}")


def task_rows(tasks: Sequence[Built], split: str) -> list[Row]:
    return [
        {
            "task_id": f"{split}-{number:05d}",
            "text": task.text,
            "code": task.code,
            "test_list": list(task.test_list),
            "test_setup_code": "",
            "entry_point": task.entry_point,
            "family": task.family,
            "split": split,
        }
        for number, task in enumerate(tasks)
    ]


def pick_demonstrations(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """`count` training rows, as many of each family as the rounds allow, in the order of the file."""
    by_family: dict[str, list[Row]] = {}
    for row in rows:
        by_family.setdefault(str(row["family"]), []).append(row)
    for name, members in by_family.items():
        random.Random(f"{seed}/demonstrations/{name}").shuffle(members)
    picked: list[Row] = []
    depth = 0
    while len(picked) < min(count, len(rows)):
        picked += [m[depth] for _, m in sorted(by_family.items()) if depth < len(m)]
        depth += 1
    return sorted(picked[:count], key=lambda row: str(row["task_id"]))


def _jsonl(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)


def _demonstrations_csv(rows: Iterable[Row]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["question", "best_answer", "model_tag", "source_json", "datetime"])
    for row in rows:
        writer.writerow([row["text"], row["code"], "reference", row["task_id"], TIMESTAMP])
    return buffer.getvalue()


def _json_array(rows: Sequence[Row]) -> str:
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows) + "\n]\n"


def make_files(
    *, seed: int, train: int, eval_seen: int, eval_unseen: int, demonstrations: int
) -> tuple[dict[str, str], dict[str, list[Built]]]:
    """All files by their path below the output folder, and the tasks they hold."""
    tasks = generate(seed, train, eval_seen, eval_unseen)
    verify(task for split in tasks.values() for task in split)
    train_rows = task_rows(tasks["train"], "train")
    eval_rows = task_rows(tasks["eval_seen"], "eval_seen")
    eval_rows += task_rows(tasks["eval_unseen"], "eval_unseen")
    files = {
        "datasets_for_training/tasks.jsonl": _jsonl(train_rows),
        "datasets_for_training/sft_dataset.csv": _demonstrations_csv(
            pick_demonstrations(train_rows, demonstrations, seed)
        ),
        "datasets_for_eval/tasks.jsonl": _jsonl(eval_rows),
        "conala-corpus/conala-train.json": _json_array(TRAIN),
        "conala-corpus/conala-test.json": _json_array(TEST),
        "conala-corpus/conala-mined.jsonl": _jsonl(MINED),
    }
    return files, tasks


def summary(tasks: dict[str, list[Built]], say: Callable[[str], None] = print) -> None:
    counts = {split: Counter(task.family for task in made) for split, made in tasks.items()}
    say(f"{'family':24} {'topic':14} {'level':7} {'train':>6} {'seen':>6} {'unseen':>6}")
    for name, family in sorted(FAMILIES.items(), key=lambda item: (item[1].topic, item[0])):
        numbers = [counts[split][name] for split in ("train", "eval_seen", "eval_unseen")]
        columns = " ".join(f"{number:6d}" for number in numbers)
        say(f"{name:24} {family.topic:14} {family.level:7} {columns}")
    for split, made in tasks.items():
        prompts = [len(task.text) for task in made]
        codes = [len(task.code) for task in made]
        say(
            f"{split}: {len(made)} tasks, {len(counts[split])} families, prompt characters mean "
            f"{sum(prompts) / len(made):.1f} max {max(prompts)}, solution characters mean "
            f"{sum(codes) / len(codes):.1f} max {max(codes)}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out-dir", type=Path, required=True, help="the repository root")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=TRAIN_TASKS)
    parser.add_argument("--eval-seen", type=int, default=EVAL_SEEN_TASKS)
    parser.add_argument("--eval-unseen", type=int, default=EVAL_UNSEEN_TASKS)
    parser.add_argument("--demonstrations", type=int, default=DEMONSTRATIONS)
    args = parser.parse_args(argv)
    for name in ("train", "eval_seen", "eval_unseen", "demonstrations"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)}: expected at least 1")
    if args.demonstrations > args.train:
        parser.error(
            f"--demonstrations {args.demonstrations}: there are --train {args.train} tasks"
        )
    if args.out_dir.exists() and not args.out_dir.is_dir():
        parser.error(f"--out-dir {args.out_dir} is a file; give a folder")
    files, tasks = make_files(
        seed=args.seed,
        train=args.train,
        eval_seen=args.eval_seen,
        eval_unseen=args.eval_unseen,
        demonstrations=args.demonstrations,
    )
    for name, content in files.items():
        path = args.out_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    summary(tasks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
