"""Everything that bad input can break, found before a folder is touched; by runs and dry runs alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modern_rlhf.config.sections import ModernRLHFConfig
from modern_rlhf.data_loader.encoding import EncodedPrompts
from modern_rlhf.pipeline import checks
from modern_rlhf.pipeline.artifacts import Artifacts
from modern_rlhf.pipeline.data import RunData, load_run_data, resolved
from modern_rlhf.pipeline.settings import check_settings
from modern_rlhf.tracking import check_trackers


@dataclass(frozen=True)
class Checked:
    """What was loaded to be checked: the records, and the prompts as the policy will read them.

    `config` is the one that was given, with its data paths resolved.
    """

    config: ModernRLHFConfig
    data: RunData
    prompts: EncodedPrompts


def preflight(
    config: ModernRLHFConfig,
    artifacts: Artifacts,
    *,
    stage: str,
    runs: Sequence[str],
    algorithm: str,
    overwrite: bool,
) -> Checked:
    """Load and check; nothing is written.

    Args:
        config: as it was given: a folder's settings have its paths so, too.
        stage: the stage asked for, or `all`; decides what must agree with what lies in the folder.
        runs: the training stages that will be run unless they are finished, of `sft`, `reward`, `rlhf`.
        algorithm: the folder of the RLHF stage.
        overwrite: what lies in the folder will be removed.

    Raises:
        ModernRLHFError: whatever would stop the run, naming the field.
    """
    if not overwrite:
        check_settings(artifacts, config, algorithm=algorithm, stage=stage)
    check_trackers(config.trackers)
    config = resolved(config)
    data = load_run_data(config)
    finished = (artifacts.stage("reward_model") / "stage.json").is_file()
    reward = "reward" in runs and (overwrite or not finished)
    checks.check_models(config, reward=reward)
    checks.check_judgements(
        config, data, reward=reward, algorithm=algorithm if "rlhf" in runs else None
    )
    encoded = checks.check_lengths(config, data)
    data.lines.append(checks.prompt_line(encoded))
    return Checked(config, data, encoded)
