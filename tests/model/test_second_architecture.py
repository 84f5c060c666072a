"""A second architecture in one file: pre-norm layers without biases. Pretraining and every head work with it."""
import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.model import (
    ARCHITECTURES,
    ComputeConfig,
    EncoderModel,
    ModelConfig,
    PretrainingHeads,
    SpanBert,
    describe_model,
    head_names,
    make_head,
    read_description,
    train_step_flops,
)
from spanbert_jax.model.attention import AttentionInputs, get_backend
from spanbert_jax.model.dropout import drop, split_seed
from spanbert_jax.model.layers import Embed, layer_seeds, stack
from spanbert_jax.model.products import project
from tests.training.small import Trainer, losses, small_config


@dataclasses.dataclass(frozen=True)
class ToyConfig(ModelConfig):
    """Every layer multiplies its output by `gain`."""
    architecture = "toy"
    sizes: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "tiny": dict(num_layers=2, width=32, num_heads=2, feed_forward=48)}

    gain: float = 0.5

    def make_encoder(self, compute):
        return ToyEncoder(self, compute)

    def layer_multiply_adds(self, length):
        return length * 4 * self.width ** 2


class Linear(nn.Module):
    config: ToyConfig
    compute: ComputeConfig
    features: int
    axes: tuple

    @nn.compact
    def __call__(self, x):
        init = nn.with_logical_partitioning(nn.initializers.normal(self.config.initializer_range), self.axes)
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        return project(x.astype(self.compute.activation_dtype), kernel, jnp.dtype(self.compute.gradient_dtype))


def rms_norm(x):
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


class ToyLayer(nn.Module):
    config: ToyConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x, segments, seed):
        config, compute, normed = self.config, self.compute, rms_norm(x)
        seeds = (None, None) if seed is None else split_seed(seed, (2,))
        flat = tuple(Linear(config, compute, config.width, ("embed", "heads"), name=name)(normed)
                     for name in ("query", "key", "value"))
        attended = get_backend(compute.attention).attend(AttentionInputs(flat, segments, None), config.attention_spec)
        x += drop(config.gain * Linear(config, compute, config.width, ("heads", "embed"), name="output")(attended),
                  seeds[0], config.dropout)
        inner = nn.silu(Linear(config, compute, config.feed_forward, ("embed", "mlp"), name="inner")(rms_norm(x)))
        outer = Linear(config, compute, config.width, ("mlp", "embed"), name="outer")(inner)
        return x + drop(config.gain * outer, seeds[1], config.dropout), None


class ToyEncoder(nn.Module):
    config: ToyConfig
    compute: ComputeConfig

    def setup(self):
        config = self.config
        self.embedding = Embed(config, self.compute, config.padded_vocab_size, config.width, ("vocab", "embed"))
        self.layers = stack(ToyLayer, config, self.compute)

    def __call__(self, tokens, segments, token_types, *, deterministic, positions=None):
        _, seeds = layer_seeds(self.config, None if deterministic else self.make_rng("dropout"))
        x, _ = self.layers(self.embedding(tokens), segments, seeds)
        return rms_norm(x)

    def token_embedding(self):
        return self.embedding


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The toy architecture, registered while these tests run."""
    ARCHITECTURES.register("toy")(ToyConfig)
    yield
    del ARCHITECTURES._registered["toy"]


@pytest.fixture
def config():
    return ToyConfig.named("tiny", vocab_size=50, max_positions=16)


def test_pretraining_trains():
    run = small_config()
    run.model.architecture = "toy"
    trainer = Trainer(run)
    assert isinstance(trainer.model.config, ToyConfig)
    state, metrics = trainer.run(trainer.fresh(), range(2))
    assert int(state.step) == 2 and np.isfinite(losses(metrics)).all()


@pytest.mark.parametrize("name", head_names())
def test_every_head(config, name):
    model = EncoderModel(config, make_head(name, ("a", "b", "c")), ComputeConfig(dtype="float32"))
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), **model.dummy_inputs))["params"]
    outputs = jax.jit(model.apply)({"params": params}, np.arange(20).reshape(2, 10))
    assert outputs.last_hidden_state.shape == (2, 10, config.width)
    for output in model.head.outputs:
        value = getattr(outputs, output)
        assert value.shape[:1 if model.head.per_text else 2] == ((2,) if model.head.per_text else (2, 10))
        assert np.isfinite(value).all()


def test_checkpoints_describe_the_architecture(config):
    heads = PretrainingHeads(next_sentence=True)
    described = describe_model(SpanBert(config, heads))
    assert read_description(described) == (config, heads)
    for change in ({"num_layers": 10**9}, {"width": "32"}, {"num_heads": 0}, {"boundary_features": -1}, {"more": 1}):
        with pytest.raises(TypeError, match=next(iter(change))):
            read_description(described | change)
    assert train_step_flops(config, 1, 16) == 3 * 2.0 * 2 * 16 * 4 * 32 ** 2
