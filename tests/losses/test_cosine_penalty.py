"""The penalty on the angles between gradients: its value, its derivative, and what has none."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from motet.losses import gradient_cosine_penalty


class Net(torch.nn.Module):
    """A smooth trunk with three heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh()).double()
        self.heads = torch.nn.Linear(4, 3).double()

    def losses(self) -> list[Tensor]:
        x = torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3)
        out = self.heads(self.trunk(x))
        return [out[:, 0].square().mean(), out[:, 1].exp().mean(), (out[:, 2] - 1).square().mean()]


def rows_of(losses: list[Tensor], parameters: list[Tensor]) -> Tensor:
    gradients = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([part.flatten() for part in parts]) for parts in gradients])


def value_of(net: Net) -> float:
    return float(gradient_cosine_penalty(net.losses(), net.trunk).detach())


def test_it_is_the_sum_of_squared_cosines_over_pairs():
    net = Net()
    rows = rows_of(net.losses(), list(net.trunk.parameters()))
    expected = sum(torch.cosine_similarity(rows[i], rows[j], dim=0) ** 2 for i, j in ((0, 1), (0, 2), (1, 2)))
    assert_close(gradient_cosine_penalty(net.losses(), net.trunk.parameters()), expected)
    named = dict(zip("abc", net.losses(), strict=True))
    assert_close(gradient_cosine_penalty(named, net.trunk), expected)


def test_its_gradient_is_that_of_finite_differences():
    net = Net()
    gradient_cosine_penalty(net.losses(), net.trunk).backward()
    for parameter in net.parameters():  # the heads', too
        flat = parameter.data.view(-1)
        for index in range(len(flat)):
            values = []
            for step in (1e-5, -2e-5):
                flat[index] += step
                values.append(value_of(net))
            flat[index] += 1e-5
            slope = (values[0] - values[1]) / 2e-5
            assert parameter.grad is not None
            assert_close(float(parameter.grad.view(-1)[index]), slope, rtol=1e-5, atol=1e-7)


def test_a_gradient_of_zero_adds_nothing_and_breaks_nothing():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    losses = [w[0] ** 2, w.sum() ** 2, (w - w.detach()).square().sum()]
    penalty = gradient_cosine_penalty(losses, [w])
    assert_close(penalty, gradient_cosine_penalty(losses[:2], [w]))
    penalty.backward()
    assert w.grad is not None
    assert w.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_scale_of_the_losses_does_not_matter(scale):
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    losses = [w[0] ** 2 * scale, w.sum() ** 2]
    assert_close(gradient_cosine_penalty(losses, [w]), torch.tensor(0.5))


def test_absent_tasks_are_left_out_and_one_alone_has_no_angle():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    losses = {"a": w[0] ** 2, "b": None, "c": w.sum() ** 2}
    assert_close(gradient_cosine_penalty(losses, [w]), torch.tensor(0.5))
    assert gradient_cosine_penalty({"a": w[0] ** 2, "b": None}, [w]) == 0


def test_half_precision_losses_have_a_penalty_of_their_dtype():
    w = torch.tensor([1.0, 2.0], dtype=torch.bfloat16, requires_grad=True)
    penalty = gradient_cosine_penalty([w[0] ** 2, w.sum() ** 2], [w])
    assert penalty.dtype == torch.bfloat16
    assert_close(penalty.float(), torch.tensor(0.5), rtol=0.02, atol=0)


def test_it_trains_gradients_to_be_orthogonal():
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    start = value_of(net)
    for _ in range(60):
        optimizer.zero_grad()
        penalty = gradient_cosine_penalty(net.losses(), net.trunk)
        penalty.backward()
        optimizer.step()
    assert value_of(net) < 0.1 * start


def test_a_loss_that_does_not_use_the_trunk_is_named():
    w, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="loss 1 uses none"):
        gradient_cosine_penalty([w.sum() ** 2, other.sum() ** 2], [w])
    with pytest.raises(ValueError, match="requires a gradient"):
        gradient_cosine_penalty([w.sum() ** 2], [w.detach()])
