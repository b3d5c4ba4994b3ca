"""What all tests share."""

import pytest
import torch
from hypothesis import settings

from tests.matrices import REFERENCE

# The same examples on every machine and at any speed: a failure in CI is a failure here.
settings.register_profile("motet", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("motet")


@pytest.fixture
def conflicting_jacobian() -> torch.Tensor:
    """Two tasks that pull the first parameter apart: (2, 3), float64."""
    return torch.tensor(REFERENCE, dtype=torch.float64)
