"""t = J d without a backward pass: a closure's losses, evaluated once with tangents or twice at shifted parameters.

A probe must leave no trace in training. Parameters, module buffers (running statistics, power iterations) and random
generators are as they were when it returns.
"""

import functools
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

Losses = Callable[[], list[Tensor | None]]
"""The probe's losses in the tasks' order, None for a task that is absent from it."""

_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def forward_product(closure: Losses, parameters: Sequence[Tensor], direction: Sequence[Tensor | None]) -> Tensor:
    """t = J d by one evaluation of the losses with dual numbers: (K,), NaN for absent tasks.

    The parameters themselves carry the tangents while the closure runs, so it does not matter how the model gets hold
    of them: tied, in lists, handed to a custom function. Their values do not change.

    Raises:
        NotImplementedError, RuntimeError: if something in the model has no forward-mode derivative.
    """
    _load_forward_mode()
    moved = [(p, part) for p, part in zip(parameters, direction, strict=True) if part is not None]
    with untouched(parameters), ExitStack() as stack:
        for parameter, _ in moved:
            stack.enter_context(_unsafe_preserve_version_counter(parameter))
            # Else a graph for a backward pass would be built that nobody runs.
            stack.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
        stack.enter_context(forward_ad.dual_level())
        for parameter, part in moved:
            tangent = part.detach().to(parameter).view(parameter.shape)
            parameter.copy_(forward_ad.make_dual(parameter.detach(), tangent))
        stack.enter_context(no_fused_kernels())
        stack.enter_context(_Tangents())
        losses = closure()
        tangents = [None if loss is None else forward_ad.unpack_dual(loss).tangent for loss in losses]
        like = next(loss for loss in losses if loss is not None)
        zero, absent = like.new_zeros(()), like.new_full((), torch.nan)
        found = [
            absent if loss is None else zero if tangent is None else tangent.detach().reshape(()).to(zero)
            for loss, tangent in zip(losses, tangents, strict=True)
        ]
        return torch.stack(found)


def difference_product(closure: Losses, parameters: Sequence[Tensor], direction: Sequence[Tensor | None]) -> Tensor:
    """t = (L(θ + hd) - L(θ - hd)) / 2h with the same random draws on both sides: (K,), NaN for absent tasks.

    The step h moves the parameters by ε^(1/3)/10 of their length, ε the precision's unit roundoff: rounding of the
    losses then costs about as much as their third derivative. That is a relative error of 1e-3 to 1e-2 in float32.
    What the model computes under ``no_grad`` changes with the parameters here, though no gradient passes it.

    Raises:
        TypeError: in half precision, where rounding would be as large as the difference itself.
    """
    moved = [(p, part.detach()) for p, part in zip(parameters, direction, strict=True) if part is not None]
    narrow = {p.dtype for p, _ in moved} - {torch.float32, torch.float64}
    if narrow or any(torch.is_autocast_enabled(p.device.type) for p, _ in moved):
        what = ", ".join(str(dtype).removeprefix("torch.") for dtype in narrow) or "autocast"
        raise TypeError(f"finite differences need float32 or float64 throughout, and this is {what}")
    held, parts = [p for p, _ in moved], [part for _, part in moved]
    length, size = _norm(parts), _norm(held)
    if not length > 0:
        return torch.stack([torch.tensor(torch.nan if loss is None else 0.0) for loss in _evaluate(closure, held)])
    epsilon = max(torch.finfo(p.dtype).eps for p in held)
    step = 0.1 * epsilon ** (1 / 3) * max(size, 1.0) / length
    before = [p.detach().clone() for p in held]
    with ExitStack() as stack:
        for parameter in held:
            stack.enter_context(_unsafe_preserve_version_counter(parameter))
        try:
            sides = []
            for sign in (1.0, -1.0):
                with torch.no_grad():
                    for parameter, start, part in zip(held, before, parts, strict=True):
                        torch.add(start, part.to(start), alpha=sign * step, out=parameter.detach())
                sides.append(_evaluate(closure, held))
        finally:
            with torch.no_grad():
                torch._foreach_copy_([p.detach() for p in held], before)
    absent = torch.tensor(torch.nan, device=held[0].device)
    pairs = zip(*sides, strict=True)
    return torch.stack([absent.double() if a is None or b is None else (a - b) / (2 * step) for a, b in pairs])


def _evaluate(closure: Losses, parameters: Sequence[Tensor]) -> list[Tensor | None]:
    with untouched(parameters), torch.no_grad():
        return [None if loss is None else loss.detach().double().reshape(()) for loss in closure()]


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(
        torch.stack([norm.double().cpu() for norm in torch._foreach_norm([t.detach() for t in tensors])]).norm()
    )


@contextmanager
def untouched(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Within it, forward passes may change buffers and draw random numbers; afterwards, none of that has happened.

    Buffers of every module that is called are kept, and the generators of torch on the CPU and on the parameters'
    devices, of numpy and of Python.
    """
    saved: dict[int, tuple[nn.Module, dict[str, tuple[Tensor, Tensor]]]] = {}

    def keep(module: nn.Module, _: Any) -> None:
        if module._buffers and id(module) not in saved:
            held = {name: (b, b.detach().clone()) for name, b in module._buffers.items() if b is not None}
            saved[id(module)] = (module, held)

    devices = {p.device for p in parameters if p.device.type not in ("cpu", "mps", "meta")}
    kind = next((device.type for device in devices), "cuda")
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is the global one that models use
    hook = register_module_forward_pre_hook(keep)
    try:
        with torch.random.fork_rng([device.index for device in devices], device_type=kind):
            yield
    finally:
        hook.remove()
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for module, held in saved.values():
            for name, (buffer, value) in held.items():
                with torch.no_grad(), _unsafe_preserve_version_counter(buffer):
                    buffer.copy_(value)
                module._buffers[name] = buffer


@functools.cache
def _load_forward_mode() -> None:
    """torch compiles some derivatives with its own deprecated script compiler when it makes the first dual number."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


@contextmanager
def no_fused_kernels() -> Iterator[None]:
    """Attention by kernels that have derivatives in forward mode, and of their derivatives."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Tangents(TorchFunctionMode):
    """Tangents stop where gradients do, under ``no_grad``; recurrent layers take kernels that know tangents."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch._C._set_grad_enabled:
            torch._C._set_fwd_grad_enabled(args[0])
        elif func is nn.functional.linear:
            return _linear(*args, **(kwargs or {}))
        elif getattr(func, "__name__", "") in _RECURRENT:
            return _plain_kernels(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002 - torch's own name
    """A head's bias has no tangent; with one of zeros the layer takes a tenth of the time, since torch adds a tensor
    and the absence of one in Python."""
    if bias is not None and forward_ad.unpack_dual(bias).tangent is None:
        bias = forward_ad.make_dual(bias, torch.zeros_like(bias))
    return nn.functional.linear(input, weight, bias)


def _plain_kernels(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    mkldnn = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        with torch.backends.cudnn.flags(enabled=False):
            return func(*args, **kwargs)
    finally:
        torch._C._set_mkldnn_enabled(mkldnn)
