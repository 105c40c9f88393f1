"""For every test with a real engine: a model server, and a look whether anything is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import real
from support.models import Models


@pytest.fixture
def models() -> Iterator[Models]:
    with Models() as served:
        yield served


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No process of a firing outlives its test."""
    yield
    assert real.left() == []
