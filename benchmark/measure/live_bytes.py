"""LiveBytes: counts the bytes of live tensor storages after each operation.

It replaces `torch.cuda.max_memory_allocated`, which has no counterpart on a CPU. A storage is added when an
operation first returns it, and subtracted when it is freed. Each operation takes about 10 µs longer, so only
selected steps are counted.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from benchmark.engine.host import is_host_memory
from benchmark.engine.sharded import is_sharded, local


class LiveBytes(TorchDispatchMode):
    """Context manager; `live` and `peak` are bytes of `resident` and of storages created while it is active.

    `base` is a number of bytes added to both, for the tensors in `counted_elsewhere`, which then count
    nothing themselves. A storage counts once and at its full size, however many tensors view it. Tensors on
    the meta device count nothing. What stands for host memory (`engine.host`) is counted apart: `host` is the
    bytes of its live storages that were created while this is active.

    Of a tensor that is sharded the part in this process counts. Its whole weights, which FSDP gathers, are in
    storages that are resized: they count at the size that they have.
    """

    def __init__(
        self,
        resident: Iterable[torch.Tensor],
        counted_elsewhere: Iterable[torch.Tensor] = (),
        base: int = 0,
    ) -> None:
        super().__init__()
        self.live = self.peak = base
        self.host = 0
        self._sizes: dict[int, int] = {}
        self._host_sizes: dict[int, int] = {}
        for tensor in counted_elsewhere:
            self._track(tensor, size=0)
        for tensor in resident:
            self._track(tensor)

    def __enter__(self) -> "LiveBytes":
        super().__enter__()
        self._resize = torch.UntypedStorage.resize_  # no operation of torch, so no mode sees it

        def resize(storage: torch.UntypedStorage, size: int) -> Any:
            result = self._resize(storage, size)
            self._resized(storage)
            return result

        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign,assignment]
        return self

    def __exit__(self, *error: Any) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*error)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if any(map(is_sharded, types)):
            return NotImplemented  # the operation on the parts comes here too
        result = func(*args, **(kwargs or {}))
        for item in tree_iter(result):
            if isinstance(item, torch.Tensor) and item.device.type != "meta":
                if is_host_memory():
                    self._track_host(item)
                else:
                    self._track(item)
        return result

    def _track(self, tensor: torch.Tensor, size: int | None = None) -> None:
        storage = local(tensor).untyped_storage()
        if storage._cdata not in self._sizes:
            self._count(storage, storage.nbytes() if size is None else size)

    def _resized(self, storage: torch.UntypedStorage) -> None:
        if storage.device.type != "meta":
            self._count(storage, storage.nbytes())

    def _count(self, storage: torch.UntypedStorage, size: int) -> None:
        """Let the storage count `size` bytes from now on, until it is freed."""
        key = storage._cdata
        if key not in self._sizes:
            weakref.finalize(storage, self._free, key).atexit = False
        self.live += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        self.peak = max(self.peak, self.live)

    def _track_host(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._sizes:
            self._track(tensor, size=0)
            self._host_sizes[storage._cdata] = storage.nbytes()
            self.host += storage.nbytes()

    def _free(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)
        self.host -= self._host_sizes.pop(key, 0)
