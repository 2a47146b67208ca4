"""Parity with trl 1.16, an independent implementation: same tiny model, same batch, loss and gradients.

trl's own `compute_loss` and advantage code runs, unbound, on a stand-in for its trainer that holds
only the settings it reads: no `Trainer` is built, no dataset, no tokenizer. Its models are called
through the interface it expects (`model(input_ids=..., labels=...).log_probs`), backed by the same
tiny causal model whose hidden states go through our chunked head. float64 on both sides.

trl has no label smoothing for its `sigmoid` any more; its CPO trainer has, and is used for that.
The file is long because the stand-ins for trl's trainers and models are shared by all comparisons.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers_numeric import FLOAT32, assert_close, randn, right_padded
from torch import Tensor, nn

from modern_rlhf.advantages import group_advantages, leave_one_out, token_rewards
from modern_rlhf.losses.kto import kto_kl, kto_loss
from modern_rlhf.losses.policy import clipped_surrogate, kl_penalty
from modern_rlhf.losses.preference import preference_loss
from modern_rlhf.losses.reward import bradley_terry
from modern_rlhf.ops.log_probs import response_log_probs
from modern_rlhf.ops.masking import masked_sum

pytest.importorskip("trl", reason="trl is a development requirement (extra `bench`)")

VOCABULARY, WIDTH, PROMPT, RESPONSE = 13, 6, 3, 5
BETA = 0.2


def trl_class(module: str, name: str) -> Any:
    """A trainer class of trl, without importing its facade."""
    return getattr(importlib.import_module(f"trl.{module}"), name)


class TinyLM(nn.Module):
    """A causal model: tanh of the running mean of embeddings, and a head. Plays trl's models too."""

    is_gradient_checkpointing = False

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(randn(VOCABULARY, WIDTH, seed=seed))
        self.head = nn.Parameter(randn(VOCABULARY, WIDTH, seed=seed + 1))

    def hidden(self, ids: Tensor) -> Tensor:
        counts = torch.arange(1, ids.shape[1] + 1)[:, None]
        return torch.tanh(self.embedding[ids].cumsum(1) / counts)

    def forward(self, input_ids: Tensor, labels: Tensor, **_: Any) -> SimpleNamespace:
        """What trl reads from a model with a fused head: (B, L-1), 0 where a label is ignored."""
        log_p = (self.hidden(input_ids)[:, :-1] @ self.head.T).log_softmax(-1)
        targets = labels[:, 1:]
        taken = log_p.gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
        nothing = torch.zeros_like(taken)
        return SimpleNamespace(
            log_probs=torch.where(targets >= 0, taken, nothing),
            entropy=nothing,
            mean_logits=nothing,
            is_top1=nothing.bool(),
        )


def our_log_probs(model: TinyLM, ids: Tensor, mask: Tensor) -> Tensor:
    """(B, R) through the chunked head, on real response positions only."""
    states = model.hidden(ids)[:, PROMPT - 1 : -1][mask]
    flat, _ = response_log_probs(states, model.head, ids[:, PROMPT:][mask], chunk_size=4)
    return torch.zeros(mask.shape, dtype=flat.dtype).masked_scatter(mask, flat)


class Accelerator:
    """One process."""

    device = torch.device("cpu")
    process_index = 0
    num_processes = 1
    sync_gradients = True

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    gather_for_metrics = gather

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return tensor


def stand_in(model: TinyLM, **settings: Any) -> SimpleNamespace:
    """What trl's methods read from `self`."""
    defaults = {
        "model": model,
        "accelerator": Accelerator(),
        "args": SimpleNamespace(gradient_checkpointing_kwargs=None),
        "aux_loss_enabled": False,
        "beta": BETA,
        "label_smoothing": 0.0,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    return SimpleNamespace(**{**defaults, **settings})


def batch(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """ids (rows, PROMPT + RESPONSE) and the response mask (rows, RESPONSE) of ragged lengths."""
    ids = torch.randint(
        0, VOCABULARY, (rows, PROMPT + RESPONSE), generator=torch.Generator().manual_seed(seed)
    )
    return ids, right_padded([(3 * i) % RESPONSE + 1 for i in range(rows)], RESPONSE)


def whole_mask(mask: Tensor) -> Tensor:
    """The response mask with the prompt's columns of zeros in front, as trl keeps it."""
    return torch.cat([torch.zeros(len(mask), PROMPT, dtype=torch.long), mask.long()], dim=1)


def assert_same(model: TinyLM, ours: Tensor, theirs: Tensor) -> None:
    """Equal losses, and equal gradients of every parameter."""
    assert_close(ours, theirs, tolerance=FLOAT32, what="loss")
    parameters = list(model.parameters())
    expected = torch.autograd.grad(theirs, parameters)
    assert all(float(g.abs().max()) > 1e-6 for g in expected), "a gradient worth comparing"
    for a, e in zip(torch.autograd.grad(ours, parameters), expected, strict=True):
        assert_close(a, e, tolerance=FLOAT32, what="gradient")


# Offline -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "theirs", "smoothing"),
    [
        ("sigmoid", "sigmoid", 0.0),
        ("ipo", "ipo", 0.0),
        ("hinge", "hinge", 0.0),
        ("robust", "robust", 0.15),
        ("nca", "nca_pair", 0.0),
        ("apo_zero", "apo_zero", 0.0),
    ],
)
def test_dpo_family(kind: str, theirs: str, smoothing: float) -> None:
    trainer = trl_class("trainer.dpo_trainer", "DPOTrainer")
    model, reference = TinyLM(seed=0), TinyLM(seed=10)
    ids, mask = batch(6, seed=1)  # three chosen, then three rejected
    with torch.no_grad():
        reference_sums = masked_sum(our_log_probs(reference, ids, mask), mask, dim=-1)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "completion_mask": whole_mask(mask),
        "ref_chosen_logps": reference_sums[:3],
        "ref_rejected_logps": reference_sums[3:],
    }
    fake = stand_in(
        model,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[theirs],
        loss_weights=[1.0],
        label_smoothing=smoothing,
        use_weighting=False,
    )
    expected = trainer._compute_loss(fake, model, inputs, False)
    sums = masked_sum(our_log_probs(model, ids, mask), mask, dim=-1)
    lengths = mask.sum(-1)
    loss, metrics = preference_loss(
        kind=kind,
        policy_chosen=sums[:3],
        policy_rejected=sums[3:],
        reference_chosen=reference_sums[:3],
        reference_rejected=reference_sums[3:],
        chosen_lengths=lengths[:3],
        rejected_lengths=lengths[3:],
        beta=BETA,
        label_smoothing=smoothing,
    )
    assert_same(model, loss, expected)
    logged = fake._metrics["train"]
    assert_close(metrics["log_probs_chosen"], logged["logps/chosen"][0], tolerance=FLOAT32)
    if kind != "ipo":  # ours is per token there, as the loss is
        for name, key in {
            "rewards_chosen": "rewards/chosen",
            "rewards_rejected": "rewards/rejected",
            "rewards_margin": "rewards/margins",
            "rewards_accuracy": "rewards/accuracies",
        }.items():
            assert_close(metrics[name], logged[key][0], tolerance=FLOAT32, what=name)


@pytest.mark.parametrize("kind", ["simpo", "smoothed", "orpo"])
def test_reference_free_losses_and_label_smoothing(kind: str) -> None:
    model = TinyLM(seed=2)
    ids, mask = batch(6, seed=3)
    sums, lengths = masked_sum(our_log_probs(model, ids, mask), mask, dim=-1), mask.sum(-1)
    means = sums / lengths
    fake = stand_in(model, alpha=0.0, simpo_gamma=0.3)
    common = {
        "policy_chosen": sums[:3],
        "policy_rejected": sums[3:],
        "chosen_lengths": lengths[:3],
        "rejected_lengths": lengths[3:],
        "beta": BETA,
    }
    if kind == "orpo":
        trainer = trl_class("experimental.orpo.orpo_trainer", "ORPOTrainer")
        expected = -trainer.odds_ratio_loss(fake, means[:3].double(), means[3:].double())[0].mean()
        loss, _ = preference_loss(kind="orpo", **common)
    else:
        trainer = trl_class("experimental.cpo.cpo_trainer", "CPOTrainer")
        if kind == "simpo":
            fake.loss_type = "simpo"
            expected = trainer.cpo_loss(fake, means[:3], means[3:])[0].mean()
            loss, _ = preference_loss(kind="simpo", simpo_gamma=0.3, **common)
        else:
            fake.loss_type, fake.label_smoothing = "sigmoid", 0.2
            expected = trainer.cpo_loss(fake, sums[:3], sums[3:])[0].mean()
            nothing = torch.zeros(3, dtype=sums.dtype)
            loss, _ = preference_loss(
                kind="sigmoid",
                label_smoothing=0.2,
                reference_chosen=nothing,
                reference_rejected=nothing,
                **common,
            )
    parameters = list(model.parameters())
    assert_close(loss, expected, tolerance=FLOAT32, what="loss")
    theirs = torch.autograd.grad(expected, parameters, retain_graph=True)
    for a, e in zip(torch.autograd.grad(loss, parameters), theirs, strict=True):
        assert_close(a, e, tolerance=FLOAT32, what="gradient")


def test_kto_with_its_kl_from_mismatched_pairs() -> None:
    trainer = trl_class("trainer.kto_trainer", "KTOTrainer")
    model, reference = TinyLM(seed=4), TinyLM(seed=14)
    ids, mask = batch(5, seed=5)
    labels = torch.tensor([True, False, True, True, False])
    # answer i + 1 under prompt i
    crossed = torch.cat([ids[:, :PROMPT], ids.roll(-1, 0)[:, PROMPT:]], dim=1)
    crossed_mask = mask.roll(-1, 0)

    def sums(lm: TinyLM, tokens: Tensor, where: Tensor) -> Tensor:
        return masked_sum(our_log_probs(lm, tokens, where), where, dim=-1)

    with torch.no_grad():
        crossed_policy = sums(model, crossed, crossed_mask)
        crossed_reference = sums(reference, crossed, crossed_mask)
        reference_sums = sums(reference, ids, mask)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "completion_mask": whole_mask(mask),
        "KL_input_ids": crossed,
        "KL_attention_mask": torch.ones_like(crossed),
        "KL_completion_mask": whole_mask(crossed_mask),
        "label": labels,
        "ref_logps": reference_sums,
        "ref_KL_logps": crossed_reference,
    }
    seen_kl = []
    for swap in (False, True):  # one of the two signs of the KL is cut at 0
        if swap:
            inputs["ref_KL_logps"] = 2 * crossed_policy - crossed_reference
        fake = stand_in(
            model,
            calculate_KL=True,
            precompute_ref_logps=True,
            loss_type="kto",
            desirable_weight=1.0,
            undesirable_weight=1.33,
        )
        fake._compute_kl_logps = lambda m, b, f=fake: trainer._compute_kl_logps(f, m, b)
        expected = trainer._compute_loss(fake, model, inputs, False)
        kl = kto_kl(policy_mismatched=crossed_policy, reference_mismatched=inputs["ref_KL_logps"])
        loss, metrics = kto_loss(
            policy=sums(model, ids, mask),
            reference=reference_sums,
            labels=labels,
            kl=kl,
            beta=BETA,
            desirable_weight=1.0,
            undesirable_weight=1.33,
        )
        assert_same(model, loss, expected)
        logged = fake._metrics["train"]
        assert_close(metrics["kl"], logged["kl"][0], tolerance=FLOAT32)
        mean = metrics["rewards_desirable"] / metrics["desirable_fraction"]
        assert_close(mean, logged["rewards/chosen"][0], tolerance=FLOAT32)
        seen_kl.append(float(kl))
    assert min(seen_kl) == 0.0 < max(seen_kl)


@pytest.mark.parametrize("center", [None, 0.05])
@pytest.mark.parametrize("with_margin", [False, True])
def test_bradley_terry(center: float | None, with_margin: bool) -> None:
    trainer = trl_class("trainer.reward_trainer", "RewardTrainer")
    model = TinyLM(seed=6)
    ids, _ = batch(8, seed=7)
    margin = randn(4, seed=8).abs()

    def scores() -> Tensor:
        return model.hidden(ids)[:, -1] @ model.head[0] + model.head[1:].sum()

    fake = stand_in(model, args=SimpleNamespace(center_rewards_coefficient=center))
    inputs: dict[str, Any] = {"attention_mask": torch.ones_like(ids)}
    if with_margin:
        inputs["margin"] = margin
    expected = trainer.compute_loss(
        fake, lambda **_: SimpleNamespace(logits=scores()[:, None]), inputs
    )
    ours = scores()
    loss, metrics = bradley_terry(
        chosen=ours[:4],
        rejected=ours[4:],
        margin=margin if with_margin else None,
        center_coefficient=center or 0.0,
    )
    assert_same(model, loss, expected)
    assert_close(metrics["accuracy"], fake._metrics["train"]["accuracy"][0], tolerance=FLOAT32)
    assert_close(metrics["score_margin"], fake._metrics["train"]["margin"][0], tolerance=FLOAT32)


# Online ------------------------------------------------------------------------------------------

GROUP = 4


class Rollout:
    """Two prompts, four samples each, scored; what a trl online trainer would have sampled."""

    def __init__(self, seed: int, dead: tuple[int, ...] = ()) -> None:
        ids, self.mask = batch(2 * GROUP, seed=seed)
        ids[:, :PROMPT] = ids[::GROUP, :PROMPT].repeat_interleave(GROUP, 0)
        ids[:, PROMPT:].masked_fill_(~self.mask, 0)  # trl pads with token 0
        self.ids = ids
        self.scores = randn(2 * GROUP, seed=seed + 1)
        self.scores[list(dead)] = float("nan")
        self.valid = ~self.scores.isnan()

    def generate(self, *_: Any) -> tuple[list, list, list]:
        lengths = self.mask.sum(-1).tolist()
        rows = zip(self.ids.tolist(), lengths, strict=True)
        completions = [row[PROMPT : PROMPT + n] for row, n in rows]
        return self.ids[:, :PROMPT].tolist(), completions, ["text"] * len(lengths)

    def inputs(self) -> list[dict[str, str]]:
        return [{"prompt": "text"} for _ in self.scores]


def online_stand_in(
    model: TinyLM, reference: TinyLM, rollout: Rollout, **settings: Any
) -> SimpleNamespace:
    """What both online trainers of trl read from `self`."""

    def log_probs(
        lm: TinyLM, ids: Tensor, _: Tensor, keep: int, *args: Any, **kwargs: Any
    ) -> tuple:
        log_p = (lm.hidden(ids)[:, -keep - 1 : -1] @ lm.head.T).log_softmax(-1)
        taken = log_p.gather(-1, ids[:, -keep:, None]).squeeze(-1)
        return taken, torch.zeros_like(taken), None

    args = SimpleNamespace(
        gradient_checkpointing_kwargs=None,
        per_device_train_batch_size=2 * GROUP,
        use_bias_correction_kl=False,
        delta=None,
        steps_per_generation=1,
        gradient_accumulation_steps=1,
    )
    defaults = {
        "args": args,
        "_tokenizer": SimpleNamespace(pad_token_id=0),
        "pad_to_multiple_of": None,
        "mask_truncated_completions": False,
        "ref_model": reference,
        "_get_per_token_logps_and_entropies": log_probs,
        "_calculate_rewards": lambda *_: rollout.scores[:, None].clone(),
        "reward_weights": torch.ones(1, dtype=torch.float64),
        "reward_func_names": ["score"],
        "num_generations": GROUP,
        "_logs": defaultdict(list, rewards=defaultdict(list), extra=defaultdict(list)),
        "_pending_extra_logs": {},
        "_pending_metrics": {},
        "epsilon_low": 0.2,
        "epsilon_high": 0.28,
        "reward_clip_range": None,
        "normalize_advantages": False,
        "chat_template_kwargs": {},
    }
    return stand_in(model, **{**defaults, **settings})


@pytest.mark.parametrize("dead", [(), (2,), (1, 4, 5, 6)])
def test_rloo_advantages_and_loss(dead: tuple[int, ...]) -> None:
    trainer = trl_class("trainer.rloo_trainer", "RLOOTrainer")
    model, sampler, reference = TinyLM(seed=20), TinyLM(seed=20), TinyLM(seed=30)
    with torch.no_grad():
        model.head.add_(0.3 * randn(VOCABULARY, WIDTH, seed=21))  # moved since sampling
    rollout = Rollout(seed=22, dead=dead)
    fake = online_stand_in(sampler, reference, rollout, _generate=rollout.generate)
    output = trainer._generate_and_score_completions(fake, rollout.inputs())

    mask = rollout.mask
    with torch.no_grad():
        old = our_log_probs(sampler, rollout.ids, mask)
        rewards = token_rewards(
            scores=rollout.scores,
            log_probs=old,
            ref_log_probs=our_log_probs(reference, rollout.ids, mask),
            mask=mask,
            kl_coefficient=BETA,
            valid=rollout.valid,
        ).sum(1)
        advantages = leave_one_out(rewards.view(2, GROUP), rollout.valid.view(2, GROUP)).flatten()
    assert_close(advantages, output["advantages"], tolerance=FLOAT32, what="advantages")

    expected = trainer._compute_loss(fake, model, output)
    sums = masked_sum(our_log_probs(model, rollout.ids, mask), mask, dim=-1)
    loss, metrics = clipped_surrogate(  # trl's ratio is the whole completion's
        log_probs=sums[:, None],
        old_log_probs=old.sum(1, keepdim=True),
        advantages=advantages,
        mask=torch.ones(2 * GROUP, 1),
        clip_low=0.2,
        clip_high=0.28,
        how="token_mean",
    )
    assert_same(model, loss, expected)
    logged = fake._metrics["train"]
    for name, key in {
        "clip_fraction": "clip_ratio/region_mean",
        "clip_fraction_low": "clip_ratio/low_mean",
        "clip_fraction_high": "clip_ratio/high_mean",
    }.items():
        assert_close(metrics[name], logged[key][0], tolerance=FLOAT32, what=name)


@pytest.mark.parametrize("dead", [(), (2, 5)])
@pytest.mark.parametrize("ratio_on_kl", [False, True])
@pytest.mark.parametrize(
    ("loss_type", "scale", "kind", "how", "constant_length"),
    [
        ("grpo", "group", "grpo", "sequence_mean", None),
        ("dr_grpo", "none", "dr_grpo", "constant_length", 7),
        ("dapo", "group", "dapo", "token_mean", None),
    ],
)
def test_grpo_advantages_and_loss(
    loss_type: str,
    scale: str,
    kind: str,
    how: str,
    constant_length: int | None,
    ratio_on_kl: bool,
    dead: tuple[int, ...],
) -> None:
    trainer = trl_class("trainer.grpo_trainer", "GRPOTrainer")
    model, sampler, reference = TinyLM(seed=40), TinyLM(seed=40), TinyLM(seed=50)
    with torch.no_grad():
        model.head.add_(0.3 * randn(VOCABULARY, WIDTH, seed=41))
    rollout = Rollout(seed=42, dead=dead)
    prompts, completions, texts = rollout.generate()
    fake = online_stand_in(
        sampler,
        reference,
        rollout,
        _generate=lambda *_: (prompts, completions, None, texts, None, {}, None, None),
        environment_factories=None,
        environments=None,
        tools=None,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        num_iterations=2,  # so that the sampler's log-probabilities are kept
        multi_objective_aggregation="sum_then_normalize",
        scale_rewards=scale,
        loss_type=loss_type,
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        max_completion_length=7,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
    )
    fake.args.use_bias_correction_kl = ratio_on_kl
    output = trainer._generate_and_score_completions(fake, rollout.inputs())

    mask = rollout.mask
    advantages = group_advantages(
        rollout.scores.view(2, GROUP), kind=kind, valid=rollout.valid.view(2, GROUP)
    ).flatten()
    assert_close(advantages, output["advantages"], tolerance=FLOAT32, what="advantages")

    expected = trainer._compute_loss(fake, model, output)
    with torch.no_grad():
        old, ref = (our_log_probs(m, rollout.ids, mask) for m in (sampler, reference))
    log_probs = our_log_probs(model, rollout.ids, mask)
    aggregation = {"how": how, "constant_length": constant_length}
    loss, metrics = clipped_surrogate(
        log_probs=log_probs,
        old_log_probs=old,
        advantages=advantages,
        mask=mask,
        clip_low=0.2,
        clip_high=0.28,
        **aggregation,
    )
    kl, kl_metrics = kl_penalty(
        log_probs=log_probs,
        ref_log_probs=ref,
        old_log_probs=old if ratio_on_kl else None,
        mask=mask,
        kind="k3",
        **aggregation,
    )
    assert_same(model, loss + BETA * kl, expected)
    if how == "token_mean":  # trl logs token means whatever the loss
        logged = fake._metrics["train"]
        region = logged["clip_ratio/region_mean"][0]
        assert_close(metrics["clip_fraction"], region, tolerance=FLOAT32)
        if not ratio_on_kl:  # trl logs the term with the ratio in front
            assert_close(kl_metrics["kl"], logged["kl"][0], tolerance=FLOAT32)
