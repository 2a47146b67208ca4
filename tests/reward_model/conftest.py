"""The tiny backbones of `reward_model_backbones` as fixtures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from reward_model_backbones import tiny_backbone

from modern_rlhf.models.loading import Backbone


@pytest.fixture
def make_backbone() -> Callable[..., Backbone]:
    return tiny_backbone


@pytest.fixture(params=["decoder", "encoder"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return tiny_backbone(request.param)


@pytest.fixture
def decoder() -> Backbone:
    return tiny_backbone("decoder")


@pytest.fixture
def encoder() -> Backbone:
    return tiny_backbone("encoder")
