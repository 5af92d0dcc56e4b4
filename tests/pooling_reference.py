"""The equations of dynamic token pooling, written down once more: one sequence, group by group, distance by distance."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.models.dynamic_pooling.config import DynamicPoolingConfig
from foveal.models.dynamic_pooling.model import DynamicPooling
from foveal.runtime.rows import Array

Weights = dict[str, Tensor]


def reference_logits(model: DynamicPooling, ids: Array) -> Array:
    """Logits `[B, L, V]` of ids `[B, L]` with the weights of a model, in float64."""
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        return np.stack([_sequence(model.config, weights, row).numpy() for row in torch.from_numpy(ids)])


def _sequence(config: DynamicPoolingConfig, w: Weights, ids: Tensor) -> Tensor:
    fine = _tower(config, w, "pre", w["embed.weight"][ids])
    if config.is_vanilla:
        return _linear(w, "head", fine)
    coarse, served, group = [w["middle.null"][0, 0]], [], []
    for place, (token, row) in enumerate(zip(ids.tolist(), fine, strict=True)):
        group.append(row)
        if _closes(config, w, place, token, row):
            coarse.append(torch.stack(group).mean(0))
            group = []
        served.append(len(coarse) - 1)
    rows = torch.stack(coarse)
    rows = _tower(config, w, "middle.tower", _norm(w, "middle.norm", rows))
    return _linear(w, "head", _tower(config, w, "post", rows[served] + fine))


def _closes(config: DynamicPoolingConfig, w: Weights, place: int, token: int, row: Tensor) -> bool:
    if config.boundaries == "fixed":
        return place % config.stride == 0
    if config.boundaries == "whitespaces":
        return token in config.ids
    return float(_linear(w, "predictor.out", _activate(config, _linear(w, "predictor.up", row)))) > 0


def _tower(config: DynamicPoolingConfig, w: Weights, tower: str, x: Tensor) -> Tensor:
    layer = 0
    while f"{tower}.layers.{layer}.up.weight" in w:
        name = f"{tower}.layers.{layer}."
        x = _norm(w, f"{name}norm", x + _attention(config, w, name, x))
        x = _norm(w, f"{name}norm_out", x + _linear(w, f"{name}down", _activate(config, _linear(w, f"{name}up", x))))
        layer += 1
    return x


def _attention(config: DynamicPoolingConfig, w: Weights, name: str, x: Tensor) -> Tensor:
    rows, heads = len(x), (config.heads, config.head_dim)
    query = _linear(w, f"{name}attention.attend.query", x).unflatten(-1, heads)
    key, value = (part.unflatten(-1, heads) for part in _linear(w, f"{name}key_value.projection", x).chunk(2, -1))
    context, location = (w[f"biases.{kind}"][:, 0] for kind in ("context", "location"))
    frequencies = 10_000 ** (-torch.arange(0, config.dim, 2, dtype=x.dtype) / config.dim)
    found = torch.zeros(rows, *heads, dtype=x.dtype)
    for i in range(rows):
        back = (i - torch.arange(i + 1, dtype=x.dtype))[:, None] * frequencies
        distance = _linear(w, f"{name}attention.position", torch.cat((back.sin(), back.cos()), -1)).unflatten(-1, heads)
        scores = torch.einsum("hd,jhd->hj", query[i] + context, key[: i + 1])
        scores += torch.einsum("hd,jhd->hj", query[i] + location, distance)
        found[i] = torch.einsum("hj,jhd->hd", (scores / config.head_dim**0.5).softmax(-1), value[: i + 1])
    return _linear(w, f"{name}attention.attend.out", found.flatten(1))


def _activate(config: DynamicPoolingConfig, x: Tensor) -> Tensor:
    return F.gelu(x) if config.activation == "gelu" else x.clamp(min=0)


def _linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(w: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]
