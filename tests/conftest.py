"""What all tests share."""

import pytest
import torch
from hypothesis import settings

from tests.matrices import REFERENCE

# Threads that wait for each other take longer than the small matrices of the tests.
torch.set_num_threads(1)

# The same examples on every machine and at any speed: a failure in CI is a failure here.
settings.register_profile("motet", deadline=None, derandomize=True, max_examples=20)
settings.load_profile("motet")


@pytest.fixture
def conflicting_jacobian() -> torch.Tensor:
    """Two tasks that pull the first parameter apart: (2, 3), float64."""
    return torch.tensor(REFERENCE, dtype=torch.float64)
