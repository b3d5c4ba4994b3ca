"""A finished run as plain text and bytes, without pickle: what workers hand over and what machines share."""

import json
from dataclasses import asdict, dataclass

from safetensors.torch import load, save

from motet.study.files import FORMAT, DamagedError, StoreError, plain, restore
from motet.study.fit import Trained
from motet.study.results import Run
from motet.study.typed import build


@dataclass(frozen=True)
class Payload:
    """A run as JSON, and parameters and predictions as safetensors."""

    run: str
    parameters: bytes
    predictions: bytes


def pack(trained: Trained) -> Payload:
    """What `unpack` reads; every number comes back as it was."""
    text = json.dumps(plain({"format": FORMAT, **asdict(trained.run)}), ensure_ascii=False, allow_nan=False)
    tensors = ({k: v.contiguous() for k, v in each.items()} for each in (trained.parameters, trained.predictions))
    return Payload(text, *map(save, tensors))


def unpack(payload: Payload) -> Trained:
    """The run.

    Raises:
        DamagedError: if it is not what `pack` made.
        StoreError: if another version of motet made it.
    """
    try:
        data = json.loads(payload.run)
        version = data.pop("format", None)
    except (json.JSONDecodeError, AttributeError) as error:
        raise DamagedError(f"a run is damaged ({error})") from None
    if version != FORMAT:
        raise StoreError(f"a run is of format {version}, this motet shares format {FORMAT}: use one version of motet")
    try:
        return Trained(build(Run, restore(data)), load(payload.parameters), load(payload.predictions))
    except Exception as error:  # safetensors has its own, which derives from Exception alone
        raise DamagedError(f"a run is damaged ({error})") from None
