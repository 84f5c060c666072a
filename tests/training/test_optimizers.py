import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.pretraining.config import default_config
from spanbert_jax.training.optimizers import adamw, decay_kernels, make_optimizer, optimizer_names

PARAMS = {"dense": {"kernel": np.array([[1.0, -2.0], [0.5, 3.0]], np.float32),
                    "bias": np.array([0.1, -0.4], np.float32)}}


def gradient(step: int):
    random = np.random.default_rng(step)
    return jax.tree.map(lambda p: random.normal(size=p.shape).astype(np.float32), PARAMS)


def run(optimizer, steps: int):
    params, state = PARAMS, optimizer.init(PARAMS)
    for step in range(steps):
        updates, state = optimizer.update(gradient(step), state, params)
        params = optax.apply_updates(params, updates)
    return params


def reference_adam(rate, decay, eps, steps, decayed=("kernel", "bias")):
    """The reference's update by its definition, in float64."""
    result = {}
    for name, value in PARAMS["dense"].items():
        p, m, v = value.astype(np.float64), 0.0, 0.0
        for step in range(steps):
            g = gradient(step)["dense"][name].astype(np.float64)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            if name in decayed:
                p = p - decay * rate * p  # before the Adam step
            size = rate * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            p = p - size * m / (np.sqrt(v) + eps)
        result[name] = p
    return result


@pytest.mark.parametrize("mask,decayed", [(None, ("kernel", "bias")), (decay_kernels, ("kernel",))])
def test_adamw_follows_the_reference_definition(mask, decayed):
    got = run(adamw(optax.constant_schedule(0.01), 0.9, 0.999, 1e-3, 0.1, mask), 7)["dense"]
    for name, expected in reference_adam(0.01, 0.1, 1e-3, 7, decayed).items():
        np.testing.assert_allclose(got[name], expected, rtol=2e-5)


def test_adamw_equals_optax_for_a_negligible_epsilon():
    ours = run(adamw(optax.constant_schedule(0.01), 0.9, 0.999, 1e-12, 0.1), 5)
    theirs = run(optax.adamw(0.01, eps=1e-12, weight_decay=0.1), 5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, theirs)


@pytest.mark.parametrize("name", optimizer_names())
def test_every_named_optimizer_steps_along_a_schedule(name):
    config = default_config().optimizer
    config.name, config.weight_decay = name, 0.0
    got = run(make_optimizer(config, optax.linear_schedule(0.1, 0.01, 5)), 3)
    changed = jax.tree.map(lambda a, b: bool(jnp.all(jnp.isfinite(a)) and jnp.any(a != b)), got, PARAMS)
    assert all(jax.tree.leaves(changed))


def stacked(random, layers: int):
    """Parameters of some layers, each layer ten times smaller than the one before."""
    scale = 10.0 ** -np.arange(layers)
    return {"dense": {"kernel": (random.normal(size=(layers, 2, 140, 130)) * scale[:, None, None, None])},
            "norm": {"bias": random.normal(size=(layers, 7)) * scale[:, None]}}


def unstacked(tree):
    """The same parameters with an entry for each layer, under names that no model has."""
    def layers(stack):
        return [jax.tree.map(lambda leaf: leaf[layer], stack) for layer in range(len(jax.tree.leaves(stack)[0]))]

    return {"head": tree["head"], **{part: layers(tree[part]["layers"]) for part in ("encoder", "decoder")}}


@pytest.mark.parametrize("name", [name for name in optimizer_names() if name not in ("noisy_sgd", "muon")])
def test_each_layer_of_a_stack_is_updated_like_a_parameter_of_its_own(name):
    random = np.random.default_rng(0)
    trees = [{"encoder": {"layers": stacked(random, 3)}, "decoder": {"layers": stacked(random, 2)},
              "head": {"kernel": random.normal(size=(3, 5))}} for _ in range(3)]
    start, *gradients = jax.tree.map(np.float32, trees)
    config = default_config().optimizer
    config.name, config.weight_decay, config.clip_norm = name, 0.0, 0.0
    optimizer = make_optimizer(config, optax.constant_schedule(0.1))

    @jax.jit
    def trained(params, gradients):
        def step(carry, gradient):
            updates, state = optimizer.update(gradient, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        gradients = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)
        return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[0][0]

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
                 unstacked(trained(start, gradients)), trained(unstacked(start), [*map(unstacked, gradients)]))


def test_the_trust_ratio_of_lamb_is_that_of_the_layer():
    random = np.random.default_rng(0)
    kernel, gradients = (random.normal(size=(3, 8, 8)).astype(np.float32) for _ in range(2))
    kernel *= np.array([10, 1, 0.1], np.float32)[:, None, None]
    params, gradients = ({"encoder": {"layers": {"kernel": value}}} for value in (kernel, gradients))
    config = default_config().optimizer
    config.name, config.weight_decay, config.clip_norm = "lamb", 0.0, 0.0
    optimizer = make_optimizer(config, optax.constant_schedule(1.0))
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    norms = np.linalg.norm(updates["encoder"]["layers"]["kernel"], axis=(1, 2))
    # At rate 1 the ratio makes every update as long as its parameter.
    np.testing.assert_allclose(norms, np.linalg.norm(kernel, axis=(1, 2)), rtol=1e-5)


def test_noise_differs_from_layer_to_layer():
    params = {"encoder": {"layers": {"kernel": np.zeros((2, 8, 8), np.float32)}}}
    config = default_config().optimizer
    config.name, config.weight_decay = "noisy_sgd", 0.0
    optimizer = make_optimizer(config, optax.constant_schedule(0.1))
    first, second = optimizer.update(params, optimizer.init(params), params)[0]["encoder"]["layers"]["kernel"]
    assert np.all(first != second)


@pytest.mark.parametrize("name", ["adamw", "bert_adam", "adam", "sgd", "lion", "lamb"])
def test_the_state_has_one_array_for_a_stack_and_one_count(name):
    config = default_config().optimizer
    config.name, config.weight_decay, config.decay_mask = name, 0.0, "all"
    shapes = {leaf.shape for leaf in jax.tree.leaves(
        make_optimizer(config, optax.constant_schedule(0.1)).init({"encoder": LAYERS["encoder"]}))}
    assert shapes <= {(), (3, 2), (4, 2)}


def test_gradients_are_clipped_by_the_global_norm():
    config = default_config().optimizer
    config.name, config.weight_decay, config.clip_norm = "sgd", 0.0, 0.5
    optimizer = make_optimizer(config, optax.constant_schedule(1.0))
    updates, _ = optimizer.update(gradient(0), optimizer.init(PARAMS), PARAMS)
    norm = np.sqrt(sum(np.sum(g ** 2) for g in jax.tree.leaves(gradient(0))))
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, -g * 0.5 / norm, rtol=1e-5), updates, gradient(0))


def test_options_reach_the_optimizer():
    config = default_config().optimizer
    config.name, config.weight_decay, config.options = "sgd", 0.0, "momentum=0.9,nesterov=True"
    config.clip_norm = 0.0
    ours = run(make_optimizer(config, optax.constant_schedule(0.1)), 4)
    jax.tree.map(np.testing.assert_array_equal, ours, run(optax.sgd(0.1, momentum=0.9, nesterov=True), 4))


SGD = dict(name="sgd", weight_decay=0.0)


@pytest.mark.parametrize("name,options", [
    ("sgd", "momentum=None,accumulator_dtype='bfloat16'"), ("adafactor", "clipping_threshold=None,decay_rate=2"),
    ("optimistic_gradient_descent", "alpha=2,beta=1.5"), ("noisy_sgd", "seed=3"), ("lars", "trust_ratio_mask=False"),
    ("adafactor", "weight_decay_mask=True,momentum=0")])
def test_allowed_options_make_an_optimizer(name, options):
    config = default_config().optimizer
    config.update(dict(SGD, name=name, options=options))
    assert all(jax.tree.leaves(jax.tree.map(lambda p: bool(jnp.all(jnp.isfinite(p))), run(
        make_optimizer(config, optax.constant_schedule(0.1)), 1))))


@pytest.mark.parametrize("fields,message", [
    (dict(name="sgd"), "weight_decay=0.01: sgd takes none"),
    (dict(name="lamb", options="momentum=1"), "lamb takes no 'momentum'"),
    (dict(options="momentum"), "write it as"),
    (dict(options="b1=2"), r"options='b1=2': b1=2: must be a number, at least 0 and below 1"),
    (dict(options="b2=1.0"), r"b2=1.0: must be a number, at least 0 and below 1"),
    (dict(options="eps=True"), "eps=True: must be a number, at least 0"),
    (dict(SGD, options="momentum='x'"), "momentum='x': must be a number, at least 0 and below 1"),
    (dict(SGD, options="momentum=-0.1"), "momentum=-0.1: must be a number"),
    (dict(SGD, options="nesterov=1"), "nesterov=1: must be True or False"),
    (dict(SGD, options="accumulator_dtype='int'"), "accumulator_dtype='int': allowed are 'float32', 'bfloat16'"),
    (dict(SGD, name="signum", options="beta=1"), "beta=1: must be a number, at least 0 and below 1"),
    (dict(SGD, name="adafactor", options="clipping_threshold=0.5"), "must be a number, at least 1"),
    (dict(SGD, name="adafactor", options="min_dim_size_to_factor=1.5"), "must be a whole number, at least 0"),
    (dict(SGD, name="lion", options="b1=None"), "b1=None: must be a number"),
    (dict(name="adam", weight_decay=0.0, decay_mask="kernels"), "adam takes no mask")])
def test_arguments_that_the_optimizer_does_not_take_are_refused(fields, message):
    config = default_config().optimizer
    config.update(fields)
    with pytest.raises(UserError, match=message):
        make_optimizer(config, optax.constant_schedule(0.1))


LAYERS = {"encoder": {"embeddings": {"token": {"embedding": np.ones((4, 2), np.float32)}},
                      "layers": {"norm": {"scale": np.ones((3, 2), np.float32)}}},
          "head": {"kernel": np.ones((2, 2), np.float32)}}


def updates_of(**fields):
    """The first updates of gradient descent at learning rate 1 with gradients of 1."""
    config = default_config().optimizer
    config.update(dict(name="sgd", weight_decay=0.0, clip_norm=0.0) | fields)
    optimizer = make_optimizer(config, optax.constant_schedule(1.0))
    return optimizer.update(jax.tree.map(np.ones_like, LAYERS), optimizer.init(LAYERS), LAYERS)[0]


def test_layer_decay_slows_each_layer_more_than_the_one_above():
    updates = updates_of(layer_decay=0.5)
    assert (updates["head"]["kernel"] == -1).all()
    np.testing.assert_allclose(updates["encoder"]["layers"]["norm"]["scale"][:, 0], [-1 / 8, -1 / 4, -1 / 2])
    assert (updates["encoder"]["embeddings"]["token"]["embedding"] == -1 / 16).all()


def test_frozen_parameters_have_no_update_and_do_not_count_in_the_norm():
    updates = updates_of(freeze="encoder/embeddings, encoder/layers/[01]/", clip_norm=1.0)
    assert not np.any(updates["encoder"]["embeddings"]["token"]["embedding"])
    scale = np.asarray(updates["encoder"]["layers"]["norm"]["scale"])
    assert not scale[:2].any() and scale[2].all()
    assert float(optax.tree.norm(updates)) == pytest.approx(1.0)


def test_weight_decay_does_not_change_frozen_parameters():
    updates = updates_of(name="adamw", weight_decay=0.1, freeze="head")
    assert not np.any(updates["head"]["kernel"]) and np.all(updates["encoder"]["layers"]["norm"]["scale"])


@pytest.mark.parametrize("freeze,message", [
    ("encoder/layers/7/", "'encoder/layers/7/' matches no parameter"), ("encoder,head", "nothing is left to train"),
    ("enc(", "is not a regular expression")])
def test_invalid_freeze_patterns_are_refused(freeze, message):
    with pytest.raises(UserError, match=f"config.optimizer.freeze.*{message}"):
        updates_of(freeze=freeze)


def test_bert_adam_is_adam_without_bias_correction_and_clips_each_tensor():
    random = np.random.default_rng(0)
    gradients = jax.tree.map(lambda p: (3 * random.normal(size=p.shape)).astype(np.float32), LAYERS)
    config = default_config().optimizer
    config.update(dict(name="bert_adam", eps=1e-6, weight_decay=0.01, decay_mask="kernels", clip_norm=0.0))
    optimizer = make_optimizer(config, optax.constant_schedule(0.1))
    params, state = LAYERS, optimizer.init(LAYERS)
    for _ in range(3):
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)

    def by_definition(value, gradient, decay):
        gradient, m, v = gradient * min(1, 1 / (np.linalg.norm(gradient) + 1e-6)), 0.0, 0.0
        for _ in range(3):
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient ** 2
            value = value - 0.1 * (m / (np.sqrt(v) + 1e-6) + decay * value)
        return value

    for layer in range(3):  # each layer of a stack is a separate tensor in the reference
        np.testing.assert_allclose(
            params["encoder"]["layers"]["norm"]["scale"][layer],
            by_definition(np.ones(2), gradients["encoder"]["layers"]["norm"]["scale"][layer], 0.0), rtol=1e-4)
    np.testing.assert_allclose(
        params["head"]["kernel"], by_definition(np.ones((2, 2)), gradients["head"]["kernel"], 0.01), rtol=1e-4)



def test_stable_adamw_shortens_the_step_where_gradients_exceed_their_running_mean():
    config = default_config().optimizer
    config.update(dict(name="stable_adamw", clip_norm=0.0, weight_decay=0.1, b1=0.9, b2=0.98, eps=1e-6))
    optimizer = make_optimizer(config, optax.constant_schedule(0.01))
    params, state = PARAMS, optimizer.init(PARAMS)
    expected = {name: (value.astype(np.float64), 0.0, 0.0) for name, value in PARAMS["dense"].items()}
    scales, ratios = (1, 1, 20, 1), []  # the third gradients are much larger
    for step, scale in enumerate(scales, 1):
        gradients = jax.tree.map(lambda g: g * scale, gradient(step))
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name, (p, m, v) in expected.items():  # algorithm 2 of Wortsman et al., in float64
            g = gradients["dense"][name].astype(np.float64)
            m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
            m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.98**step)
            ratios.append(np.sqrt(np.mean(g * g / np.maximum(v_hat, 1e-12))))
            rate = 0.01 / max(1, ratios[-1])
            expected[name] = p - rate * 0.1 * p - rate * m_hat / (np.sqrt(v_hat) + 1e-6), m, v
            np.testing.assert_allclose(params["dense"][name], expected[name][0], rtol=1e-5)
    assert max(ratios) > 1.5 and min(ratios) < 1


def test_muon_updates_the_kernel_of_each_layer_as_a_matrix_and_the_rest_by_adamw():
    random = np.random.default_rng(0)

    def tree(layers: int):
        kernel = random.normal(size=(layers, 6, 9)) * 10.0 ** -np.arange(layers)[:, None, None]
        return jax.tree.map(np.float32, {
            "encoder": {"layers": {"dense": {"kernel": kernel, "bias": random.normal(size=(layers, 9))}},
                        "embeddings": {"token": {"embedding": random.normal(size=(7, 6))}}},
            "head": {"kernel": random.normal(size=(6, 4))}})

    params, gradients = tree(3), [tree(3), tree(3)]
    config = default_config().optimizer
    config.update(dict(name="muon", clip_norm=0.0, weight_decay=0.1, decay_mask="kernels"))
    ours = make_optimizer(config, optax.constant_schedule(0.02))
    matrix = optax.contrib.muon(0.02, weight_decay=0.1, consistent_rms=0.2)
    others = optax.adamw(0.02, weight_decay=0.1, nesterov=True, mask=decay_kernels)

    def trained(optimizer, params, gradients):
        state = optimizer.init(params)
        for each in gradients:
            updates, state = optimizer.update(each, state, params)
            params = optax.apply_updates(params, updates)
        return params

    def kernels(tree):
        return tree["encoder"]["layers"]["dense"].pop("kernel")

    got = trained(ours, params, gradients)
    stacks = kernels(params), [kernels(each) for each in gradients]
    for layer, kernel in enumerate(kernels(got)):
        expected = trained(matrix, stacks[0][layer], [stack[layer] for stack in stacks[1]])
        np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, trained(others, params, gradients))
