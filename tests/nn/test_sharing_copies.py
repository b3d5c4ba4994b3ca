"""Experts and stages: fresh copies of any module, and the widths that gates need."""

import pytest
import torch
from torch import nn

from motet.nn.sharing import MTAN, PLE, CrossStitch, HardSharing, MMoE


class Scaled(nn.Module):
    """A parameter of its own, and nothing that initialises it."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.randn(3, 3))

    def forward(self, x):
        return self.inner(x) @ self.scale


class Forgetful(Scaled):
    def reset_parameters(self):
        self.inner.reset_parameters()


class Diligent(Scaled):
    def reset_parameters(self):
        nn.init.normal_(self.scale)


class Zero(Scaled):
    """As adapters begin."""

    def __init__(self):
        super().__init__()
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.zeros_(self.scale)


def weights(sharing):
    return [expert.weight for expert in sharing.experts]


def test_a_module_is_copied_and_every_copy_begins_anew():
    source = nn.Linear(3, 4)
    before = source.weight.clone()
    found = weights(MMoE(source, ["a"], 3))
    assert torch.equal(source.weight, before)
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in [source.weight, *found[:i]])


def test_a_factory_is_called_once_an_expert():
    made = []

    def expert():
        made.append(nn.Linear(3, 4))
        return made[-1]

    assert list(MMoE(expert, ["a"], 3).experts) == made


def test_a_factory_may_load_the_same_values_for_all():
    trained = nn.Linear(3, 4).state_dict()

    def expert():
        module = nn.Linear(3, 4)
        module.load_state_dict(trained)
        return module

    assert all(torch.equal(weight, trained["weight"]) for weight in weights(MMoE(expert, ["a"], 3)))


@pytest.mark.parametrize(
    "source",
    [
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        nn.MultiheadAttention(4, 2),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Sequential(nn.GroupNorm(1, 3), nn.ReLU())),
        nn.Sequential(nn.Embedding(5, 4), nn.LSTM(4, 4)),
        Diligent(),
        Zero(),
    ],
    ids=lambda source: type(source).__name__,
)
def test_modules_of_torch_and_with_a_reset_can_be_copied(source):
    column = CrossStitch([source], ["a", "b"]).columns[1][0]
    matrices = [(old, new) for old, new in zip(source.parameters(), column.parameters(), strict=True) if old.ndim > 1]
    assert all(not torch.equal(old, new) or not old.any() for old, new in matrices)


def test_a_copy_has_fresh_running_statistics():
    source = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    source(torch.randn(8, 3) + 5)
    assert not MMoE(source, ["a"], 1).experts[0][1].running_mean.any()


def test_a_module_without_a_reset_asks_for_a_factory():
    with pytest.raises(ValueError, match=r"expert: 1 \(Scaled\) has parameters and no reset_parameters.*lambda"):
        MMoE(nn.Sequential(nn.Linear(3, 3), Scaled()), ["a"], 2)


def test_a_reset_that_leaves_a_weight_out_is_noticed():
    with pytest.raises(ValueError, match=r"stages\[1\]: scale has the same values.*lambda"):
        CrossStitch([nn.Linear(3, 3), Forgetful()], ["a"])


def test_a_parametrised_weight_is_noticed():
    source = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="has the same values"):
        MMoE(source, ["a"], 2)


def test_a_factory_that_repeats_itself_is_refused():
    same = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"expert\(\) returned the same module"):
        MMoE(lambda: same, ["a"], 2)
    with pytest.raises(ValueError, match=r"levels\[0\]\(\) returned the same module or parameters"):
        PLE([lambda: nn.Sequential(same)], ["a"])


@pytest.mark.parametrize(
    ("source", "match"), [(nn.Linear, "class Linear"), (3, "a int"), (lambda: 3, "returned a int")]
)
def test_what_is_no_module_and_no_factory_is_refused(source, match):
    with pytest.raises(TypeError, match=match):
        MMoE(source, ["a"], 2)


@pytest.mark.parametrize(
    ("stages", "error", "match"), [([], ValueError, "empty"), (nn.Linear(2, 2), TypeError, "Sequential or a list")]
)
def test_stages_are_a_list(stages, error, match):
    with pytest.raises(error, match=match):
        CrossStitch(stages, ["a"])


def test_gates_see_the_mean_of_an_image_and_of_a_sequence():
    image, sequence = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 3)
    assert torch.allclose(MMoE(nn.Conv2d(3, 4, 3), ["a"]).context(image), image.mean((2, 3)))
    assert torch.allclose(MMoE(nn.Linear(3, 4), ["a"]).context(sequence), sequence.mean(1))


def test_gates_are_as_small_for_large_images():
    assert MMoE(nn.Conv2d(3, 4, 3), ["a"], 5).gates[0].weight.shape == (5, 3)


def test_gates_may_look_through_a_module_of_the_users():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.EmbeddingBag(10, 4)

        def forward(self, tokens):
            return self.table(tokens)

    sharing = MMoE(lambda: nn.Embedding(10, 6), ["a", "b"], 3, gate=Tokens())
    tokens = torch.randint(10, (2, 5))
    features, info = sharing(tokens)
    assert features["a"].shape == (2, 5, 6)
    assert len(info["features"]) == 2, "what the gates share lies below the features too"
    assert any(parameter is sharing.context.gate.table.weight for parameter in sharing.shared_parameters())


def test_what_lies_below_is_a_feature_for_the_gates():
    below = torch.randn(4, 3, requires_grad=True)
    _, info = MMoE(nn.Linear(3, 4), ["a", "b"])(below)
    assert any(tap is below for tap in info["features"])


def test_tokens_need_a_gate():
    with pytest.raises(ValueError, match="give gate="):
        MMoE(nn.Embedding(10, 6), ["a"])
    with pytest.raises(ValueError, match="can't average torch.int64"):
        MMoE(nn.Linear(3, 3), ["a"])(torch.ones(2, 3, dtype=torch.int64))


def test_an_expert_that_flattens_needs_a_gate():
    expert = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    with pytest.raises(ValueError, match=r"take \(B, 12\).*give gate="):
        MMoE(expert, ["a"])(torch.randn(2, 3, 2, 2))
    flat = nn.Flatten()
    flat.out_features = 12
    assert MMoE(expert, ["a"], gate=flat)(torch.randn(2, 3, 2, 2))[0]["a"].shape == (2, 4)


def test_a_gate_says_how_wide_it_is():
    with pytest.raises(ValueError, match=r"set gate\.out_features"):
        MMoE(nn.Linear(3, 4), ["a"], gate=nn.Flatten())
    gate = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten())
    with pytest.raises(ValueError, match=r"take \(B, 2\).*\(5, 8\).*set gate\.out_features"):
        MMoE(nn.Conv2d(3, 4, 1), ["a"], gate=gate)(torch.randn(5, 3, 2, 2))


def test_experts_must_agree_on_the_shape():
    widths = iter([4, 5])
    with pytest.raises(ValueError, match="one shape"):
        MMoE(lambda: nn.Linear(3, next(widths)), ["a"], 2)(torch.randn(2, 3))


def test_the_width_is_unknown_where_no_layer_tells():
    assert HardSharing(nn.Tanh(), ["a"]).out_features is None
    with pytest.raises(ValueError, match=r"stages\[1\] does not tell its channels"):
        MTAN([nn.Conv2d(3, 4, 3), nn.ReLU()], ["a"])
