"""LiveBytes: counts the bytes of tensor storages that are alive, op by op, where no allocator keeps count.

On a CPU torch has no `max_memory_allocated`; this mode sees each storage once when an operation first
returns it and again when it is freed. It costs about 10 µs an operation, so it is put around chosen steps.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Live and peak bytes of `resident` tensors and of all storages made while the mode is on.

    `base` bytes are added as they are; `counted_elsewhere` are the tensors they stand for. A storage
    counts once, at its full size, however many tensors view it; what is made on the meta device takes none.
    """

    def __init__(
        self,
        resident: Iterable[torch.Tensor],
        counted_elsewhere: Iterable[torch.Tensor] = (),
        base: int = 0,
    ) -> None:
        super().__init__()
        self.live = self.peak = base
        self._sizes: dict[int, int] = {}
        for tensor in counted_elsewhere:
            self._track(tensor, size=0)
        for tensor in resident:
            self._track(tensor)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in tree_iter(result):
            if isinstance(item, torch.Tensor) and item.device.type != "meta":
                self._track(item)
        return result

    def _track(self, tensor: torch.Tensor, size: int | None = None) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        size = storage.nbytes() if size is None else size
        self._sizes[key] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key).atexit = False

    def _free(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)
