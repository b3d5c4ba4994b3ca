"""Several passes over one batch that see the same random numbers and leave one trace in the running statistics."""

import random
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

Statistics = Literal["once", "frozen", "group"]
_Trace = list[tuple[str, int, int]]


class Replay:
    """What the second and later passes over a batch must share with the first.

    Without it a difference of two losses measures their dropout masks, and BatchNorm's momentum of 0.1 becomes one of
    0.27 with three passes.

    Args:
        statistics: Of modules that change their buffers in a pass, such as BatchNorm: "once" lets the first pass over a
            batch change them, "frozen" none, "group" all.
        masks: Whether torch's global random numbers are the same in every pass, and those of numpy and Python if the
            very first pass draws any: to look at these each time takes longer than all else here.
        model: Whose buffers. None looks which modules are called in the first pass over each batch; what is called
            within a compiled function can't be seen.
        parameters: Their devices are those whose random numbers count.
    """

    def __init__(
        self, statistics: Statistics, masks: bool, model: nn.Module | None, parameters: Iterable[Tensor]
    ) -> None:
        self.statistics = statistics
        self.masks = masks
        self.looks = model is None and statistics != "group"
        devices = {p.device for p in parameters if p.device.type not in ("cpu", "meta")}
        self._devices = sorted(devices, key=str)
        self._modules: dict[int, nn.Module] = {}
        self._changing: dict[int, nn.Module] = {}
        self._random: dict[int, list[Any]] = {}
        self._others: bool | None = None if masks else False  # Whether numpy's and Python's are drawn from.
        if model is not None:
            self._take(model)

    def begin(self) -> None:
        """A new batch."""
        self._random = {}
        self._changing = {}

    @contextmanager
    def passing(self, part: int = 0) -> Iterator[None]:
        """One pass, forward and backward, over a micro-batch; the first since `begin` is what later ones repeat."""
        first = part not in self._random
        very_first = first and self._others is None
        if first:
            self._random[part] = self._generators()
        elif self.masks:
            self._set_generators(self._random[part])
        with nullcontext() if self.statistics == "group" else self._guarded(first):
            yield
        if very_first:
            before, after = self._random[part][-2:], _others()
            self._others = before[0] != after[0] or any(
                not np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True)
            )
            if not self._others:
                del self._random[part][-2:]

    def _guarded(self, first: bool) -> AbstractContextManager[None]:
        return self._first() if first else _Shield(self._changing.values())

    @contextmanager
    def _first(self) -> Iterator[None]:
        """Note which modules change: a version or a tensor of theirs is another afterwards, if not every one's."""
        shield = _Shield(self._modules.values() if self.statistics == "frozen" else ())
        before = {key: _trace(module) for key, module in self._modules.items()}

        def note(module: nn.Module, _: Any) -> None:
            if torch.compiler.is_compiling():
                return
            if id(module) not in self._modules:
                for part in self._take(module):
                    before[id(part)] = _trace(part)
                    if self.statistics == "frozen":
                        shield.add(part)

        hook = register_module_forward_pre_hook(note) if self.looks else None
        try:
            with shield:
                yield
        finally:
            if hook is not None:
                hook.remove()
        for key, trace in before.items():
            if self.statistics == "frozen" or _trace(self._modules[key]) != trace:
                self._changing[key] = self._modules[key]

    def _take(self, root: nn.Module) -> list[nn.Module]:
        """Modules with buffers that are new: the whole tree, so that what is called within a compiled one is seen."""
        parts = [part for part in root.modules() if not isinstance(part, torch.jit.ScriptModule)]
        new = [part for part in parts if part._buffers and id(part) not in self._modules]
        self._modules |= {id(part): part for part in new}
        return new

    def _generators(self) -> list[Any]:
        found: list[Any] = [torch.get_rng_state(), *(_module(d).get_rng_state(d) for d in self._devices)]
        return found if self._others is False else found + _others()

    def _set_generators(self, states: list[Any]) -> None:
        torch.set_rng_state(states[0])
        for device, state in zip(self._devices, states[1:], strict=False):
            _module(device).set_rng_state(state, device)
        if self._others:
            random.setstate(states[-2])
            np.random.set_state(states[-1])  # noqa: NPY002


class _Shield:
    """Modules work on copies of their buffers within it. A graph may hold the copies, so they are left to it."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = list(modules)
        self._held: list[tuple[nn.Module, dict[str, Tensor]]] = []

    def add(self, module: nn.Module) -> None:
        """One more, from now on."""
        buffers = {name: buffer for name, buffer in module._buffers.items() if buffer is not None}
        self._held.append((module, buffers))
        module._buffers.update({name: buffer.clone() for name, buffer in buffers.items()})

    def __enter__(self) -> None:
        for module in self._modules:
            self.add(module)

    def __exit__(self, *_: object) -> None:
        for module, buffers in self._held:
            module._buffers.update(buffers)


def _others() -> list[Any]:
    return [random.getstate(), np.random.get_state()]  # noqa: NPY002 - it is the global one that closures use


def _trace(module: nn.Module) -> _Trace:
    return [(name, id(buffer), buffer._version) for name, buffer in module._buffers.items() if buffer is not None]


def _module(device: torch.device) -> Any:
    return getattr(torch, device.type)
