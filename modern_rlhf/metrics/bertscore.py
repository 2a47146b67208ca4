"""BERTScore F1 and mean-pooled similarity from the hidden states of any Hugging Face model.

Zhang et al., ICLR 2020: every token of one text is matched to its most similar token of the other by
cosine of hidden states; precision and recall are means over the tokens of prediction and reference,
F1 their harmonic mean. Start and end tokens take part as partners but carry no weight; no idf
weighting, no rescaling with a baseline: the definition of the package `bert-score` 0.3.13, whose
numbers this reproduces (tested on random BERT and RoBERTa encoders). The package itself is not used
because it crashes on empty texts under transformers 5, lets padding count as similarity 0 (a pair's
score can depend on its batch), and knows few decoders. Scores of different models or layers are not
comparable, so the result names both.

Texts are cut at the model's context length. Batches are made from sorted texts, so the order in
which pairs come changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from modern_rlhf.metrics.results import ItemScores

if TYPE_CHECKING:
    from torch import Tensor

    from modern_rlhf.models.loading import Backbone

PAIRS_AT_ONCE = 256
TOKENS_AT_ONCE = 4096


@lru_cache(maxsize=1)
def shared_backbone(name: str, device: str) -> Backbone:
    """The encoder `name`, kept so that a run which evaluates many times loads it once.

    Raises:
        ModelError: nothing loadable under this name.
    """
    from modern_rlhf.models.loading import load_backbone

    return load_backbone(name, device=device)


def customary_layer(name: str, total: int) -> int:
    """The layer `bert-score` uses for the model `name`, else three quarters up its `total` layers.

    The package's table was tuned on human judgements; in it, base models sit at about that height.
    """
    try:
        from bert_score.utils import model2layers
    except ImportError:
        model2layers = {}
    known = model2layers.get(name)
    return int(known) if known else max(1, round(0.75 * total))


def bertscore_scores(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    backbone: Backbone,
    layer: int | None = None,
) -> dict[str, ItemScores]:
    """`bertscore` (F1) and `embedding_similarity` of N items, the best reference of each.

    The latter is the cosine of the mean hidden states. An item without references is None, a blank
    prediction 0 without being encoded.

    Raises:
        MetricError: `layer` is not one of the model's.
    """
    from modern_rlhf.errors import MetricError

    total = int(backbone.model.config.num_hidden_layers)
    chosen = customary_layer(backbone.name, total) if layer is None else layer
    if not 1 <= chosen <= total:
        raise MetricError(f"layer {chosen} of {backbone.name!r} does not exist; it has 1..{total}")
    wanted = {
        (prediction, text)
        for prediction, texts in zip(predictions, references, strict=True)
        for text in texts
        if prediction.strip()
    }
    # References repeat (several systems, several samples): sorted by them, they are encoded once.
    ordered = sorted(wanted, key=lambda pair: (len(pair[1]), pair[1], len(pair[0]), pair[0]))
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for start in range(0, len(ordered), PAIRS_AT_ONCE):
        chunk = ordered[start : start + PAIRS_AT_ONCE]
        states = encode([text for pair in chunk for text in pair], backbone=backbone, layer=chosen)
        for prediction, text in chunk:
            found[prediction, text] = _compare(states[prediction], states[text])
    columns: tuple[list[float | None], list[float | None]] = ([], [])
    for prediction, texts in zip(predictions, references, strict=True):
        for which, column in enumerate(columns):
            scores = [found.get((prediction, text), (0.0, 0.0))[which] for text in texts]
            column.append(max(scores, default=None))
    details: dict[str, Any] = {
        "implementation": "own greedy matching, equal to bert-score 0.3.13 (no idf)",
        "model": backbone.name,
        "fingerprint": backbone.fingerprint,
        "kind": backbone.kind,
        "layer": chosen,
        "layers": total,
        "rescaled": False,
        "references": "maximum over references",
    }
    return {
        "bertscore": ItemScores(columns[0], details),
        "embedding_similarity": ItemScores(
            columns[1], {**details, "implementation": "cosine of mean hidden states"}
        ),
    }


def encode(
    texts: Sequence[str], *, backbone: Backbone, layer: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """By text: unit hidden states [tokens, H] at `layer`, and weights [tokens] (0 for specials)."""
    import torch

    from modern_rlhf.models.loading import context_length

    tokenizer, model = backbone.tokenizer, backbone.model
    limit = context_length(model, tokenizer)
    # Not `all_special_ids`: an unknown token stands for content and must carry weight.
    special = {
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    }
    rows = []
    for text in sorted(set(texts)):
        ids = tokenizer.encode(text, add_special_tokens=True, truncation=True, max_length=limit)
        rows.append((text, ids))
    rows.sort(key=lambda row: (len(row[1]), row[0]))
    states: dict[str, tuple[Tensor, Tensor]] = {}
    device = next(model.parameters()).device
    pad = tokenizer.pad_token_id
    for batch in _batches(rows):
        width = len(batch[-1][1])
        if width == 0:
            states.update((text, (torch.zeros(0, 1), torch.zeros(0))) for text, _ in batch)
            continue
        ids = torch.tensor([row + [pad] * (width - len(row)) for _, row in batch], device=device)
        mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for _, r in batch]).to(device)
        with torch.inference_mode():
            out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        hidden = torch.nn.functional.normalize(out.hidden_states[layer].float(), dim=-1).cpu()
        for (text, row), vectors in zip(batch, hidden, strict=True):
            weights = torch.tensor([float(one not in special) for one in row])
            # A copy, so that the rest of the padded batch can be freed.
            states[text] = (vectors[: len(row)].clone(), weights)
    return states


def _batches(rows: list[tuple[str, list[int]]]) -> list[list[tuple[str, list[int]]]]:
    """Rows sorted by length, cut so that a padded batch holds at most `TOKENS_AT_ONCE` tokens."""
    batches: list[list[tuple[str, list[int]]]] = []
    for row in rows:
        width = len(row[1])
        if batches and (len(batches[-1]) + 1) * width <= TOKENS_AT_ONCE:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _compare(
    prediction: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor]
) -> tuple[float, float]:
    """F1 of the greedy matching, and cosine of the weighted mean states, of two encoded texts."""
    (mine, my_weights), (theirs, their_weights) = prediction, reference
    if not my_weights.any() or not their_weights.any():
        return 0.0, 0.0
    similarity = mine @ theirs.T
    precision = float(similarity.max(dim=1).values @ my_weights / my_weights.sum())
    recall = float(similarity.max(dim=0).values @ their_weights / their_weights.sum())
    f1 = 2 * precision * recall / (precision + recall) if precision > 0 and recall > 0 else 0.0
    a, b = my_weights @ mine, their_weights @ theirs
    cosine = float(a @ b / (a.norm() * b.norm()))
    return min(1.0, f1), min(1.0, cosine)
