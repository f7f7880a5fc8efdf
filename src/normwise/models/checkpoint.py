"""Reading and writing weights: safely, completely, or not at all."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from normwise.errors import CheckpointError, UsageError
from normwise.models.walk import norm_layers

_PICKLED = (".pt", ".pth", ".bin", ".ckpt")
_NESTED = ("state_dict", "model_state_dict", "model", "module", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_NORM_TABLES = (
    "running_mean", "running_var", "moving_mean", "moving_variance", "moving_var", "num_batches_tracked",
    "weight", "bias", "gamma", "beta",
)  # fmt: skip
_MEANS = ("running_mean", "moving_mean")
_AFFINE = ("weight", "bias", "gamma", "beta")
_SHOWN = 5


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint onto the CPU, without running code that is in it.

    Takes .safetensors, and .pt, .pth, .bin or .ckpt files that hold a state dict, possibly under "state_dict",
    "model_state_dict", "model", "module" or "net". Raises `CheckpointError`.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint: expected a file, found none at '{path}'; check the path")
    if path.suffix == ".safetensors":
        state = _read_safetensors(path)
    elif path.suffix in _PICKLED:
        state = _tensors_of(_read_pickle(path))
    else:
        raise CheckpointError(
            f"checkpoint: expected a .safetensors, {', '.join(_PICKLED)} file, got '{path.name}'; rename or re-save it"
        )
    if not state:
        raise CheckpointError(
            f"checkpoint: expected a state dict, found no tensors in '{path.name}'; save one with "
            "torch.save(model.state_dict(), ...)"
        )
    return state


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint into a model, in place; raise `CheckpointError`, the model as it was, if they do not fit.

    The prefixes `module.`, `_orig_mod.` and `model.` are stripped where that makes keys fit.
    """
    model_state = model.state_dict(keep_vars=True)
    before = {key: value.detach().clone() for key, value in model_state.items() if _has_values(value)}
    state = _fit(read_state_dict(path), set(model_state))
    try:
        outcome = model.load_state_dict(state, strict=False)
        problems = [
            _listing("missing", _not_aliases(outcome.missing_keys, model_state, state)),
            _listing("unexpected", outcome.unexpected_keys),
        ]
    except RuntimeError as error:
        problems = [_listing("of another shape", _misfits(model_state, state)) or " ".join(str(error).split())[:300]]
    if any(problems):
        with torch.no_grad():
            for key, value in before.items():
                model_state[key].copy_(value)
        raise CheckpointError(
            f"checkpoint: '{Path(path).name}' does not fit {type(model).__name__}: "
            f"{'; '.join(filter(None, problems))}; build the model the checkpoint was saved from"
        )


def checkpoint_skeleton(path: str | Path) -> nn.Module:
    """Return a tree of modules that hold a checkpoint's norms and nothing else, so that rules can read them.

    Statistics and counters are buffers, weight and bias parameters, under the names they have in the checkpoint.
    """
    state = read_state_dict(path)
    for prefix in _PREFIXES[:2]:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    root = nn.Module()
    norms = {key.rpartition(".")[0] for key in state if key.rpartition(".")[2] in _MEANS}
    for key, value in state.items():
        parent, _, name = key.rpartition(".")
        if parent not in norms or name not in _NORM_TABLES:
            continue
        module = _descend(root, parent)
        if name in _AFFINE and value.is_floating_point():
            module._parameters[name] = nn.Parameter(value)
        else:
            module._buffers[name] = value
    if not norm_layers(root):
        raise CheckpointError(
            f"checkpoint: expected layers with running statistics, found none in '{Path(path).name}'; audit the model "
            "itself: normwise audit pkg.module:model"
        )
    return root.eval()


def save_weights(state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a state dict as .safetensors: completely or not at all. Tensors that share memory are written each."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UsageError(f"output: expected a path that ends in .safetensors, got '{path}'; rename it")
    wrong = [key for key, value in state_dict.items() if not isinstance(value, Tensor)]
    if wrong:
        raise UsageError(f"state_dict: expected tensors, got another type under '{wrong[0]}'; drop it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = (path if path.exists() else temporary).stat().st_mode
        safetensors.torch.save_file(_separate(state_dict), temporary)
        temporary.chmod(mode)  # safetensors makes files that only their owner may read
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"output: cannot write '{path}' ({reason}); choose a writable folder") from error
    finally:
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)


def _separate(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous CPU tensors of which no two share memory."""
    seen: set[int] = set()
    separate = {}
    for key, value in state_dict.items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        separate[key] = tensor
    return separate


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        state = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    return {key: state[key] for key in sorted(state, key=_natural)}  # the format keeps no order


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint: '{path.name}' is a pickle that holds more than tensors, and opening it could run code; save "
            "the weights alone, torch.save(model.state_dict(), ...), and pass that file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:200]
    return CheckpointError(f"checkpoint: cannot read '{path.name}' ({reason}); it may be cut short or not a checkpoint")


def _tensors_of(content: Any) -> dict[str, Tensor]:
    """Return the tensors of a state dict, looking under the usual names where it is not one itself."""
    if not isinstance(content, Mapping):
        return {}
    for name in _NESTED:
        inner = _tensors_of(content.get(name))
        if inner:
            return inner
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _fit(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Return the state under the keys that fit best, prefixes stripped as often as that helps."""
    best, queue = state, [state]
    while queue:
        current = queue.pop(0)
        if len(wanted & set(current)) > len(wanted & set(best)):
            best = current
        for prefix in _PREFIXES:
            stripped = {_strip(key, prefix): value for key, value in current.items()}
            if len(stripped) == len(current) and stripped.keys() != current.keys():
                queue.append(stripped)
    return best


def _strip(key: str, prefix: str) -> str:
    """Strip a prefix; the one of compiled modules also inside the name."""
    return key.replace(prefix, "") if prefix == "_orig_mod." else key.removeprefix(prefix)


def _not_aliases(missing: Iterable[str], model_state: Mapping[str, Any], state: Mapping[str, Tensor]) -> list[str]:
    """Return the missing keys whose tensor was not loaded under another name (tied weights saved once)."""
    loaded = {id(value) for key, value in model_state.items() if key in state}
    return [key for key in missing if id(model_state.get(key)) not in loaded]


def _misfits(model_state: Mapping[str, Any], state: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{key} (expected {tuple(value.shape)}, got {tuple(state[key].shape)})"
        for key, value in model_state.items()
        if key in state and _has_values(value) and value.shape != state[key].shape
    ]


def _listing(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f", and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} key{'s' * (len(keys) > 1)} {what}: {', '.join(keys[:_SHOWN])}{more}"


def _has_values(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, (nn.UninitializedBuffer, nn.UninitializedParameter))


def _natural(key: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)|\.", key) if part]


def _descend(root: nn.Module, path: str) -> nn.Module:
    """Return the module at a path, making those on the way."""
    for part in path.split(".") if path else ():
        if part not in root._modules:
            root._modules[part] = nn.Module()
        child = root._modules[part]
        root = child if child is not None else root
    return root
