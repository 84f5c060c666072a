"""Optimisers: the two of the reference implementation, StableAdamW, Muon, and all of optax by name."""
import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.settings import Settings, require, setting
from spanbert_jax.common.types import is_of_type, kinds_of
from spanbert_jax.training.parameter_scales import parameter_scales
from spanbert_jax.training.stacked_layers import is_stacked, per_layer

# These need a constant learning rate or search for one, so they cannot follow a schedule.
_WITHOUT_SCHEDULE = ("lbfgs", "rprop", "sm3", "optimistic_adam")
# It adds noise to each element; mapped over the layers it would add the same noise to all of them.
_RANDOM = ("noisy_sgd",)
# Arguments of optax's optimizers: decay rates of running means, lower limits other than 0, and types by name.
_DECAY_RATES = ("b1", "b2", "b3", "beta", "decay", "momentum", "rho")
_LEAST = {"clipping_threshold": 1}
_DTYPES = ("float32", "bfloat16", "float16")


class AdamWState(NamedTuple):
    """Number of updates, and running means of the gradient and of its square."""
    count: jax.Array  # type: ignore[assignment]  # hides tuple.count
    mu: optax.Params
    nu: optax.Params


def adamw(learning_rate: optax.Schedule, b1: float, b2: float, eps: float, weight_decay: float,
          mask: Callable[[optax.Params], Any] | None = None, bias_correction: bool = True,
          ) -> optax.GradientTransformation:
    """AdamW as the reference implementation computes it in pretraining.

    It differs from optax.adamw in the place of epsilon: the step is lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) +
    eps), so that epsilon is not divided by the bias correction. Weight decay subtracts lr * weight_decay * parameter.

    Args:
      learning_rate: function of the number of updates done.
      mask: (params) -> booleans, True where decay applies; None decays all parameters, as the reference does.
      bias_correction: if False, the step is lr * m / (sqrt(v) + eps).
    """
    def init(params: optax.Params) -> AdamWState:
        zeros = functools.partial(jax.tree.map, jnp.zeros_like)
        return AdamWState(jnp.zeros((), jnp.int32), zeros(params), zeros(params))

    def update(gradients: optax.Updates, state: AdamWState, params: optax.Params) -> tuple[optax.Updates, AdamWState]:
        rate, count = learning_rate(state.count), optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, gradients)
        size = rate * jnp.sqrt(1 - b2 ** count) / (1 - b1 ** count) if bias_correction else rate
        decays = mask(params) if mask else jax.tree.map(lambda _: True, params)
        updates = jax.tree.map(
            lambda m, v, p, decay: -size * m / (jnp.sqrt(v) + eps) - (rate * weight_decay * p if decay else 0),
            mu, nu, params, decays)
        return updates, AdamWState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def bert_adam(learning_rate: optax.Schedule, b1: float, b2: float, eps: float, weight_decay: float,
              mask: Callable[[optax.Params], Any] | None = None, max_norm: float = 1.0) -> optax.GradientTransformation:
    """The reference's optimiser in fine-tuning: Adam without bias correction; each gradient tensor is clipped by norm.

    The reference's epsilon is 1e-6. Its first update has a learning rate of 0, which is corrected here.

    Args: max_norm: of the gradient of each tensor; the others as for `adamw`.
    """
    def clip(gradient: jax.Array) -> jax.Array:
        return gradient * jnp.minimum(1.0, max_norm / (jnp.sqrt(jnp.sum(jnp.square(gradient))) + 1e-6))

    clipped = optax.stateless(lambda updates, params: jax.tree.map(clip, updates))
    return optax.chain(clipped, adamw(learning_rate, b1, b2, eps, weight_decay, mask, bias_correction=False))


def stable_adamw(learning_rate: optax.Schedule, b1: float, b2: float, eps: float, weight_decay: float,
                 mask: Callable[[optax.Params], Any] | None = None) -> optax.GradientTransformation:
    """StableAdamW: the step of a tensor is divided by RMS(g / sqrt(v)) where that is above 1 (Wortsman et al., 2023).

    So a gradient that is larger than the running mean of squares expects makes no larger step, and gradients need no
    clipping. The division includes the weight decay, as in the paper. Args: as for `adamw`.
    """
    def init(params: optax.Params) -> AdamWState:
        return AdamWState(jnp.zeros((), jnp.int32), optax.tree.zeros_like(params), optax.tree.zeros_like(params))

    def update(gradients: optax.Updates, state: AdamWState, params: optax.Params) -> tuple[optax.Updates, AdamWState]:
        rate, count = learning_rate(state.count), optax.safe_increment(state.count)
        mu = optax.tree.update_moment(gradients, state.mu, b1, 1)
        nu = optax.tree.update_moment(gradients, state.nu, b2, 2)

        def step(gradient: jax.Array, m: jax.Array, v: jax.Array, parameter: jax.Array, decay: bool) -> jax.Array:
            rms = jnp.sqrt(jnp.mean(gradient * gradient / jnp.maximum(v, eps * eps)))
            direction = m / (jnp.sqrt(v) + eps) + (weight_decay * parameter if decay else 0)
            return -rate / jnp.maximum(1, rms) * direction

        decays = mask(params) if mask else jax.tree.map(lambda _: True, params)
        corrected = (optax.tree.bias_correction(mean, decay, count) for mean, decay in ((mu, b1), (nu, b2)))
        return jax.tree.map(step, gradients, *corrected, params, decays), AdamWState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def muon(learning_rate: optax.Schedule, b1: float, b2: float, eps: float, weight_decay: float,
         mask: Callable[[optax.Params], Any] | None = None, beta: float = 0.95, consistent_rms: float = 0.2,
         ) -> optax.GradientTransformation:
    """Muon for the kernels of layers, AdamW for all other parameters; both are optax's.

    Args:
      b1, b2: of AdamW; the others as for `adamw`, and for both.
      beta: decay rate of Muon's momentum.
      consistent_rms: root mean square of Muon's updates at rate 1. With 0.2 they are about as large as AdamW's, so
        that both use one learning rate and one weight decay (Liu et al., 2025).
    """
    def matrices(params: optax.Params) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: optax.contrib.MuonDimensionNumbers(-2, -1) if is_stacked(path) and path[-1].key == "kernel"
            else None, params)

    direction = optax.contrib.muon(
        -1.0,  # the direction itself: the sign of a learning rate is flipped
        beta=beta, eps=eps, adam_b1=b1, adam_b2=b2, muon_weight_dimension_numbers=matrices,
        consistent_rms=consistent_rms)
    return optax.chain(direction, optax.add_decayed_weights(weight_decay, mask),
                       optax.scale_by_learning_rate(learning_rate))


def decay_kernels(params: optax.Params) -> Any:
    """True for kernels and embeddings, False for biases and layer norms, as is usual in fine-tuning."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in ("kernel", "embedding"), params)


_OWN = {"adamw": adamw, "bert_adam": bert_adam, "stable_adamw": stable_adamw, "muon": muon}


def optimizer_names() -> tuple[str, ...]:
    """Those of this module, and every optax optimiser that takes a learning-rate schedule."""
    return *_OWN, *(name for name, value in inspect.getmembers(optax, inspect.isfunction)
                    if "learning_rate" in inspect.signature(value).parameters
                    and not name.startswith(("scale_by", "_")) and name not in (*_OWN, *_WITHOUT_SCHEDULE))


@dataclasses.dataclass(frozen=True)
class OptimizerSettings(Settings):
    """Optimizer."""
    name: str = setting("adamw", "An optimizer of this package or of optax.", choices=optimizer_names)
    learning_rate: float = setting(1e-4, "Peak learning rate.", above=0)
    b1: float = setting(0.9, "Decay rate of the mean of gradients.", minimum=0, below=1)
    b2: float = setting(0.999, "Decay rate of the mean of squared gradients.", minimum=0, below=1)
    eps: float = setting(1e-8, "Added to the denominator.", minimum=0)
    weight_decay: float = setting(0.01, "Decoupled weight decay.", minimum=0)
    decay_mask: str = setting("all", "Parameters that decay: all, or kernels and embeddings without biases and norms.",
                              choices=("all", "kernels"))
    clip_norm: float = setting(1.0, "Global norm above which gradients are scaled down; 0 does not clip.", minimum=0)
    freeze: str = setting("", "Regular expressions of parameters that are not trained, separated by commas.")
    layer_decay: float = setting(1.0, "Factor on the learning rate from each layer to the one below it.", above=0)
    options: str = setting("", "Further arguments of an optax optimizer, such as 'momentum=0.9,nesterov=True'.")


def make_optimizer(config: OptimizerSettings, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Global-norm clipping and the optimiser of a config's `optimizer` section, both without frozen parameters.

    The optimiser treats each layer of stacked parameters by itself.
    b1, b2, eps and weight_decay are passed to optimisers that take them; `options` holds further arguments.

    Raises:
      UserError: the optimiser does not take an option, its value, or the weight decay.
    """
    factory = _OWN.get(config.name) or getattr(optax, config.name)
    takes = inspect.signature(factory).parameters
    options = _options(config.options)
    allowed = [name for name in takes if name not in ("learning_rate", "mask", "bias_correction")]
    unknown = [name for name in options if name not in allowed]
    if unknown:
        raise UserError(f"config.optimizer.options={config.options!r}: {config.name} takes no {unknown[0]!r}; "
                        f"allowed: {', '.join(allowed)}")
    for name, value in options.items():
        is_allowed, words = _allowed_option(takes[name], value)
        require(is_allowed, f"config.optimizer.options={config.options!r}: {name}", value, words)
    if config.weight_decay and "weight_decay" not in takes:
        raise UserError(f"config.optimizer.weight_decay={config.weight_decay}: {config.name} takes none; set it to 0")
    defaults: dict[str, Any] = {"weight_decay": config.weight_decay} if "weight_decay" in takes else {}
    if config.decay_mask == "kernels":
        if "mask" not in takes:
            raise UserError(f"config.optimizer.decay_mask='kernels': {config.name} takes no mask; set it to 'all'")
        defaults["mask"] = decay_kernels
    if "b1" in takes:  # the Adam family; elsewhere eps has another meaning
        defaults |= {name: getattr(config, name) for name in ("b1", "b2", "eps") if name in takes}
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    before, after = parameter_scales(config.freeze, config.layer_decay)
    optimizer = factory(schedule, **(defaults | options))
    return optax.chain(*before, *clip, optimizer if config.name in _RANDOM else per_layer(optimizer), *after)


def _options(text: str) -> dict[str, Any]:
    """Keyword arguments from "a=1,b=True"."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise UserError(f"config.optimizer.options={text!r}: write it as 'momentum=0.9,nesterov=True'") from None


def _allowed_option(parameter: inspect.Parameter, value: Any) -> tuple[bool, str]:
    """Whether an argument of an optimizer may have this value, and what is allowed, in words."""
    name, default = parameter.name, parameter.default
    if value is None and (default is None or type(None) in kinds_of(parameter.annotation)):
        return True, ""
    if isinstance(default, bool) or "mask" in name:
        return isinstance(value, bool), "must be True or False"
    if "dtype" in name:
        return value in _DTYPES, f"allowed are {', '.join(map(repr, _DTYPES))}"
    if parameter.annotation is int or name in ("seed", "key"):
        return type(value) is int and value >= 0, "must be a whole number, at least 0"
    least = _LEAST.get(name, 0)
    if name in _DECAY_RATES and default != 1:  # beta of optimistic optimizers, which is 1, is a factor
        return is_of_type(float, value) and least <= value < 1, f"must be a number, at least {least} and below 1"
    return is_of_type(float, value) and value >= least, f"must be a number, at least {least}"
