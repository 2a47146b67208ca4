"""Self-imitation: what is kept, what is dropped, and that it speeds up learning from rare successes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.records import Demonstration, Message
from modern_rlhf.trainer.imitation import BestAnswers
from modern_rlhf.trainer.loop import MetricSums
from modern_rlhf.trainer.ppo import PPOTrainer
from modern_rlhf.trainer.sft import SFTTrainer


def test_the_best_answer_is_kept_while_it_is_ahead() -> None:
    memory = BestAnswers()
    memory.add(7, [([1], 0.0), ([2, 9], 1.0), ([3, 9], 1.0), ([4], 0.0)])
    ((_, answer),) = memory.draw(5, seed=0, step=0)
    assert answer.response_ids == [2, 9] and answer.score == 1.0 and answer.surplus == 0.5
    # The policy got worse: the old answer stays, further ahead than before.
    memory.add(7, [([1], 0.0), ([5], 0.2)])
    ((_, answer),) = memory.draw(5, seed=0, step=0)
    assert answer.response_ids == [2, 9] and abs(answer.surplus - 0.9) < 1e-12
    # Nothing could be scored: nothing changes.
    memory.add(7, [])
    assert len(memory) == 1
    # The policy always succeeds now: nothing to imitate.
    memory.add(7, [([2, 9], 1.0), ([3, 9], 1.0)])
    assert len(memory) == 0


def test_equal_samples_teach_nothing() -> None:
    memory = BestAnswers()
    memory.add(0, [([1], 0.3), ([2], 0.3)])
    assert len(memory) == 0


def test_draws_repeat_and_differ_by_step() -> None:
    memory = BestAnswers()
    for prompt in range(50):
        memory.add(prompt, [([prompt], 1.0), ([0], 0.0)])
    first = [prompt for prompt, _ in memory.draw(8, seed=1, step=3)]
    assert first == [prompt for prompt, _ in memory.draw(8, seed=1, step=3)]
    assert len(set(first)) == 8
    assert first != [prompt for prompt, _ in memory.draw(8, seed=1, step=4)]
    copy = BestAnswers()
    copy.load_state_dict(memory.state_dict())
    assert copy.draw(8, seed=1, step=3) == memory.draw(8, seed=1, step=3)


def test_the_mixed_in_sft_loss_is_that_of_sft(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    # A user's second turn is not learnt, and a prompt that SFT skips is skipped here too.
    turns = [("user", "a"), ("assistant", "b"), ("user", "cdefgh"), ("assistant", "i")]
    rows = [
        Demonstration("cdefgh", "i", messages=tuple(Message(*turn) for turn in turns)),  # type: ignore[arg-type]
        Demonstration("x" * 70, "y"),
    ]
    config = TrainingConfig(
        ppo_sft_coef=1.0, rollout_batch_size=8, max_prompt_tokens=60, max_response_tokens=40
    )
    plain = ModelConfig(prompt_style="plain")
    sft = SFTTrainer(
        tiny_llama(), byte_tokenizer, train_data=rows, config=config, model_config=plain
    )
    online = PPOTrainer(
        tiny_llama(),
        byte_tokenizer,
        prompts=["a"],
        reward=lambda prompts, responses: [0.0] * len(prompts),
        config=config,
        model_config=plain,
        sft_data=rows,
    )
    assert len(online.parts.sft_rows) == len(sft.encoded.examples) == 1
    sums = MetricSums()
    online.loop.updater._accumulate_sft(1, sums)
    assert abs(sums.own()["sft_loss"] - sft.accumulate(sft.encoded.examples)["loss"]) < 1e-5
    wanted = dict(sft.lm.named_parameters())
    for name, parameter in online.policy.named_parameters():
        assert torch.allclose(parameter.grad, wanted[name].grad, atol=1e-6), name


def test_no_imitation_while_only_the_value_trains(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    lm = tiny_llama()
    before = {name: value.clone() for name, value in lm.state_dict().items()}
    PPOTrainer(
        lm,
        byte_tokenizer,
        prompts=list("abcd"),
        reward=lambda prompts, responses, **_: [float(len(set(text))) for text in responses],
        config=TrainingConfig(
            learning_rate=1e-2,
            rollout_batch_size=16,
            samples_per_prompt=4,
            rlhf_epochs=1,
            ppo_value_warmup_rollouts=9,
            max_response_tokens=4,
            self_imitation_steps=2,
        ),
        model_config=ModelConfig(prompt_style="plain"),
    ).train()
    assert all(torch.equal(value, before[name]) for name, value in lm.state_dict().items())


def test_rare_successes_are_learnt_faster(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    """One token in 32 earns the reward: the same rollouts, with and without imitation."""

    def share(prompts: list[str], responses: list[str], **_: Any) -> list[float]:
        return [float(bool(text) and ord(text[0]) < 8) for text in responses]

    def reached(steps: int) -> float:
        torch.manual_seed(0)
        trainer = PPOTrainer(
            tiny_llama(),
            byte_tokenizer,
            prompts=[chr(97 + i) for i in range(8)],
            reward=share,
            config=TrainingConfig(
                learning_rate=2e-3,
                batch_size=8,
                rollout_batch_size=64,
                samples_per_prompt=8,
                rlhf_epochs=24,
                ppo_epochs=1,
                ppo_value_model="shared",
                ppo_group_baseline=True,
                ppo_entropy_coef=0.0,
                max_response_tokens=1,
                self_imitation_steps=steps,
                save_steps=0,
                eval_steps=0,
            ),
            model_config=ModelConfig(prompt_style="plain"),
        )
        return trainer.train().metrics["reward"]

    without, imitating = reached(0), reached(4)
    assert imitating > without + 0.2, (without, imitating)
