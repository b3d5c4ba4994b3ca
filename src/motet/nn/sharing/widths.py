"""How many numbers or channels a module takes and gives, and in which dimension they lie."""

from collections.abc import Iterable

from torch import nn

_TAKES = ("in_features", "in_channels", "num_features", "num_channels", "embed_dim", "input_size")
_GIVES = ("out_features", "out_channels", "num_features", "num_channels", "embed_dim", "embedding_dim", "hidden_size")
_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)


def takes(module: nn.Module) -> tuple[int, int] | None:
    """(Width, dimension) of a module's input by its first layer that says so; None if it takes tokens or says nothing.

    The dimension is 1 for convolutions and the norms that go with them, else the last, -1.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
            return None
        if (width := _width(layer, _TAKES)) is not None:
            return width, 1 if isinstance(layer, _CHANNELS_FIRST) else -1
    return None


def gives(module: nn.Module) -> int | None:
    """Width of a module's output: its own ``out_features`` or ``out_channels``, else its last layer's that says so."""
    own = _width(module, ("out_features", "out_channels"))
    if own is not None:
        return own
    widths = (_width(layer, _GIVES) for layer in reversed(list(module.modules())))
    return next((width for width in widths if width is not None), None)


def _width(layer: nn.Module, names: Iterable[str]) -> int | None:
    shape = getattr(layer, "normalized_shape", None)
    found = [getattr(layer, name, None) for name in names] + [shape[-1] if isinstance(shape, tuple) else None]
    return next((width for width in found if isinstance(width, int) and width > 0), None)
