"""A fake GPU for Python code: real numbers on the CPU, no device mixes, counted waits.

Within `fake_gpu()` tensors made on or moved to `cuda` hold a CPU tensor and report `cuda:0`. An
operation that CUDA would refuse (a CPU operand with dimensions) fails, and each synchronisation
of a GPU is recorded. CPU kernels replace those of CUDA; streams, allocator, cuDNN and NCCL are
not tested.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_map

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
_aten = torch.ops.aten
_MAY_MIX = {_aten.copy_.default, _aten._to_copy.default, _aten.set_.source_Tensor}
_INDEXING = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default}
_INDEXING |= {_aten._index_put_impl_.default}
_WAITS = {
    _aten.nonzero.default: "nonzero",
    _aten._local_scalar_dense.default: "item",
    _aten.masked_select.default: "masked_select",
    _aten._unique2.default: "unique",
    _aten.unique_dim.default: "unique",
    _aten.unique_consecutive.default: "unique",
    _aten.bincount.default: "bincount",
    _aten.repeat_interleave.Tensor: "repeat_interleave",
    _aten.equal.default: "equal",
}


class Wait(NamedTuple):
    """A synchronisation with the GPU: its place as file:function, and the operation."""

    place: str
    what: str
    in_step: bool


_waits: Counter[Wait] = Counter()


class DeviceMixError(RuntimeError):
    """CUDA would refuse these operands."""


def _note(what: str) -> None:
    """Count a wait at the function of dmlray that caused it, and whether in a training step."""
    frame, place, step = sys._getframe(1), "", False
    while frame.f_back:
        _, found, file = frame.f_code.co_filename.rpartition("/dmlray/")
        if found:
            place = place or f"{file}:{frame.f_code.co_name}"
            step = step or (file, frame.f_code.co_name) == ("learn/step.py", "step")
        frame = frame.f_back
    _waits[Wait(place, what, step)] += 1


class FakeTensor(torch.Tensor):
    """Computes with `inner`, a tensor on the CPU."""

    inner: torch.Tensor  # type: ignore[assignment]  # in place of the product
    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @staticmethod
    def __new__(cls: Any, inner: torch.Tensor, requires_grad: bool | None = None) -> Any:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=CPU,
            requires_grad=inner.requires_grad if requires_grad is None else requires_grad,
        )
        made.inner = inner.detach() if inner.requires_grad else inner
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied: Any = FakeTensor(self.inner.clone(), requires_grad=self.requires_grad)
        if getattr(self, "_is_param", False):
            copied = torch.nn.Parameter(copied, requires_grad=self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __repr__(self) -> str:  # type: ignore[override]
        return f"FakeTensor({tuple(self.inner.shape)}, {self.inner.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") is not None:
            kwargs["device"] = CPU
        operands = [list(args[1]) if func in _INDEXING else [], list[torch.Tensor]()]
        rest = (args[0], [], *args[2:]) if func in _INDEXING else args

        def inside(part: Any) -> Any:
            if isinstance(part, torch.Tensor) and not isinstance(part, FakeTensor) and part.dim():
                operands[1].append(part)
            return _inside(part)

        inner, options = tree_map(inside, tuple(rest)), tree_map(inside, kwargs)
        if func in _INDEXING:
            for index in filter(lambda i: i is not None, operands[0]):
                if index.dtype in (torch.bool, torch.uint8):
                    _note("mask")
                if not isinstance(index, FakeTensor):
                    _note("index from the CPU")
            inner = (inner[0], [_inside(index) for index in operands[0]], *inner[2:])
        _check(func, args, operands[1])
        found = func(*inner, **options)
        if func is _aten._local_scalar_dense.default:
            return found
        wrapped = tree_map(_outside, found)
        try:
            return return_and_correct_aliasing(func, args, kwargs, wrapped)
        except Exception:  # of operations whose schema does not name their aliases
            return wrapped


def _check(func: Any, args: Any, on_cpu: list[torch.Tensor]) -> None:
    backward = torch._C._current_graph_task_id() != -1  # makes zeros in C++ on the CPU
    if on_cpu and func not in _MAY_MIX and not backward:
        raise DeviceMixError(f"{func}: an operand {tuple(on_cpu[0].shape)} is on the CPU")
    if on_cpu and func is _aten.copy_.default:
        _note("to the GPU" if isinstance(args[0], FakeTensor) else "to the CPU")
    if func in _WAITS:
        _note(_WAITS[func])


def _inside(part: Any) -> Any:
    return part.inner if isinstance(part, FakeTensor) else part


def _outside(part: Any) -> Any:
    real = isinstance(part, torch.Tensor) and not isinstance(part, FakeTensor)
    return FakeTensor(part) if real else part


def _is_gpu(device: Any) -> bool:
    return device is not None and (isinstance(device, int) or torch.device(device).type == "cuda")


def _target(args: Any, kwargs: Any) -> Any:
    if "device" in kwargs:
        return kwargs["device"]
    for part in args[1:]:
        if isinstance(part, torch.device | str):
            return part
        if isinstance(part, torch.Tensor):
            return part.device
    return None


def _dtype(args: Any, kwargs: Any) -> Any:
    found = kwargs.get("dtype")
    for part in args[1:]:
        if isinstance(part, torch.dtype):
            found = part
        elif isinstance(part, torch.Tensor):
            found = part.dtype
    return found or args[0].dtype


class _Mode(TorchFunctionMode):
    """Creates tensors for the fake device where a call names it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        fake, name = isinstance(first, FakeTensor), getattr(func, "__name__", "")
        pinned = kwargs.pop("pin_memory", False)
        if fake and func in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if fake and func is torch.Tensor.tolist:
            _note("tolist")
            return first.inner.tolist()
        if (func is torch.Tensor.cpu and fake) or (
            func is torch.Tensor.to and isinstance(first, torch.Tensor)
        ):
            return self._moved(func, args, kwargs)
        if func is torch.Tensor.copy_ and isinstance(args[1], FakeTensor) and not fake:
            if not kwargs.pop("non_blocking", False):
                _note("to the CPU")
            return first.copy_(args[1].inner)
        if func in (torch.tensor, torch.as_tensor) and _is_gpu(kwargs.get("device")):
            if fake:
                return first
            _note("to the GPU")
            return _outside(func(*args, **(kwargs | {"device": CPU})))
        if kwargs.get("device") is not None:
            gpu = _is_gpu(kwargs["device"])
            if fake and not gpu and not pinned:
                raise DeviceMixError(f"{name} makes a CPU tensor from one of the GPU")
            made = func(*map(_inside, args), **(kwargs | {"device": CPU}))
            return tree_map(_outside, made) if gpu else made
        return func(*args, **kwargs)

    def _moved(self, func: Any, args: Any, kwargs: Any) -> Any:
        first, target = args[0], CPU if func is torch.Tensor.cpu else _target(args, kwargs)
        fake, dtype = isinstance(first, FakeTensor), _dtype(args, kwargs)
        layout = kwargs.get("memory_format", torch.preserve_format)
        if fake and target is not None and not _is_gpu(target):
            _note("to the CPU")
            return first.inner.detach().clone().to(dtype)
        if not fake and _is_gpu(target):
            if not (kwargs.get("non_blocking") and getattr(first, "pinned", False)):
                _note("to the GPU")
            return FakeTensor(first.detach().to(dtype, memory_format=layout).clone())
        return func(first, dtype, memory_format=layout) if fake else func(*args, **kwargs)


def _pin(tensor: torch.Tensor) -> torch.Tensor:
    pinned = tensor.clone(memory_format=torch.preserve_format)
    pinned.pinned = True  # type: ignore[attr-defined]
    return pinned


def _module_to(self: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
    """Move parameters and buffers as Module.to does, keeping those that are shared shared."""
    device = kwargs.get("device") or next(
        (a for a in args if isinstance(a, torch.device | str)), None
    )
    layout, memo = kwargs.get("memory_format"), dict[int, Any]()

    def moved(part: Any) -> Any:
        if part is None or id(part) in memo:
            return memo.get(id(part))
        inner = _inside(part).detach().clone()
        if layout is not None and inner.dim() == 4:
            inner = inner.contiguous(memory_format=layout)
        made = FakeTensor(inner) if _is_gpu(device) or isinstance(part, FakeTensor) else inner
        if isinstance(part, torch.nn.Parameter):
            made = torch.nn.Parameter(made, requires_grad=part.requires_grad)
        memo[id(part)] = made
        return made

    for module in self.modules():
        for held in (module._parameters, module._buffers):
            held.update({name: moved(part) for name, part in held.items()})
    return self


class _Stream:
    def __init__(self, *_: Any) -> None: ...
    def wait_stream(self, other: Any) -> None: ...
    def record_event(self) -> Any:
        return mock.Mock()


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


@contextlib.contextmanager
def fake_gpu() -> Iterator[Counter[Wait]]:
    """Install the fake GPU; yield the waits so far."""
    _waits.clear()
    cuda = {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "Stream": _Stream,
        "current_stream": lambda device=None: _Stream(),
        "stream": lambda stream: contextlib.nullcontext(),
        "synchronize": lambda device=None: _note("synchronize"),
        "mem_get_info": lambda device=None: (70 << 30, 80 << 30),
        "memory_reserved": lambda device=None: 1 << 30,
        "memory_allocated": lambda device=None: 1 << 29,
        "get_device_name": lambda device=None: "Fake GPU",
        "is_bf16_supported": lambda including_emulation=True: True,
    }
    others = [
        (torch.nn.Module, "to", _module_to),
        (torch.Tensor, "pin_memory", _pin),
        (torch.Tensor, "record_stream", lambda self, stream: None),
        (torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda self: None),
        (torch, "autocast", _Autocast),
        (torch.backends.cudnn, "version", lambda: 90000),
        (torch, "inference_mode", torch.no_grad),  # wrappers of tensors do not survive the former
    ]
    with contextlib.ExitStack() as stack:
        for name, value in cuda.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        for owner, name, value in others:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(_Mode())
        yield _waits
