"""Several passes over one batch that see the same random masks and leave one trace in the running statistics."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

Statistics = Literal["once", "frozen", "group"]


class Replay:
    """What the second and later passes over a batch must share with the first.

    Without it a difference of two losses measures their dropout masks, and BatchNorm's momentum of 0.1 becomes one of
    0.27 with three passes.

    Args:
        statistics: Of modules that change their buffers in a forward pass, such as BatchNorm: "once" lets the first
            pass over a batch change them, "frozen" none, "group" all.
        masks: Whether random numbers of torch are the same in every pass.
        model: Whose buffers. None looks which modules are called in the first pass of all, and sees no others.
        parameters: Their devices are those whose random numbers count.
    """

    def __init__(
        self, statistics: Statistics, masks: bool, model: nn.Module | None, parameters: Iterable[Tensor]
    ) -> None:
        self.statistics = statistics
        self.masks = masks
        devices = {p.device for p in parameters if p.device.type not in ("cpu", "meta")}
        self._devices = sorted(devices, key=str)
        self._modules: list[weakref.ref[nn.Module]] | None = None if model is None else _with_buffers([model])
        self._changing: list[nn.Module] = []
        self._random: list[Tensor] = []

    def begin(self) -> None:
        """A new batch."""
        self._random = []

    @contextmanager
    def passing(self) -> Iterator[None]:
        """One forward pass over the batch; the first since `begin` is the one that later ones repeat."""
        first = not self._random
        if first:
            self._random = self._generators()
        elif self.masks:
            self._set_generators(self._random)
        if self.statistics == "group":
            yield
        elif self._modules is None:
            with self._discovering():
                yield
        elif first and self.statistics == "once":
            with self._watching():
                yield
        else:
            with self._shielded():
                yield

    def _generators(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(_module(d).get_rng_state(d) for d in self._devices)]

    def _set_generators(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for device, state in zip(self._devices, states[1:], strict=True):
            _module(device).set_rng_state(state, device)

    @contextmanager
    def _discovering(self) -> Iterator[None]:
        """The first pass of all: which modules there are, and which of them change."""
        called: dict[int, nn.Module] = {}
        before: dict[int, list[tuple[str, Tensor, int, Tensor]]] = {}

        def note(module: nn.Module, _: Any) -> None:
            # The whole tree at once, so that what is called within a compiled module is seen too.
            for part in module.modules():
                if part._buffers and id(part) not in called:
                    called[id(part)] = part
                    before[id(part)] = [(n, b, b._version, b.detach().clone()) for n, b in _buffers(part)]

        hook = register_module_forward_pre_hook(note)
        try:
            yield
        finally:
            hook.remove()
        self._modules = [weakref.ref(module) for module in called.values()]
        self._changing = [m for key, m in called.items() if any(b._version != v for _, b, v, _ in before[key])]
        if self.statistics == "frozen":
            for module in self._changing:
                for name, _, _, value in before[id(module)]:
                    module._buffers[name] = value

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Which modules change their buffers: a version moves in each that does, though not that of every buffer."""
        modules = [module for ref in self._modules or () if (module := ref()) is not None]
        before = [[b._version for _, b in _buffers(module)] for module in modules]
        yield
        now = [[b._version for _, b in _buffers(module)] for module in modules]
        self._changing = [module for module, old, new in zip(modules, before, now, strict=True) if old != new]

    @contextmanager
    def _shielded(self) -> Iterator[None]:
        """Changing modules work on copies. The graph may hold these, so they are left to it and not copied back."""
        if self.statistics == "frozen":
            self._changing = [module for ref in self._modules or () if (module := ref()) is not None]
        held = [(module, dict(_buffers(module))) for module in self._changing]
        for module, buffers in held:
            module._buffers.update({name: buffer.clone() for name, buffer in buffers.items()})
        try:
            yield
        finally:
            for module, buffers in held:
                module._buffers.update(buffers)


def _with_buffers(roots: Iterable[nn.Module]) -> list["weakref.ref[nn.Module]"]:
    return [weakref.ref(module) for root in roots for module in root.modules() if module._buffers]


def _buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, buffer) for name, buffer in module._buffers.items() if buffer is not None]


def _module(device: torch.device) -> Any:
    return getattr(torch, device.type)
