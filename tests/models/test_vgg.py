"""VGG-16: counts, shapes, and small images."""

import jax
import jax.numpy as jnp
import pytest

from bap_jax.errors import SettingError
from bap_jax.models import build, count_parameters


def shapes(images, name="vgg16", **options):
    model = build(name, num_classes=10, **options)
    images = jnp.zeros(images)
    params, state = jax.eval_shape(model.init, jax.random.key(0), images)
    outputs, _ = jax.eval_shape(lambda p, s, x: model.apply(p, s, x, train=False), params, state, images)
    return params, state, outputs


def test_counts_of_the_paper():
    params, state, outputs = shapes((1, 32, 32, 3))
    # convolutions 9·(3·64 + 64² + 64·128 + 128² + 128·256 + 2·256² + 256·512 + 5·512²) = 14,710,464;
    # dense 512·4096 + 4096² + 4096·1024 + 1024·10 = 23,078,912
    assert sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim > 1) == 14_710_464 + 23_078_912
    assert count_parameters(params) == 37_789_376 + 4_224 + 4_096 + 4_096 + 1_024 + 10
    assert state == {}
    assert outputs.taps["block1"].shape == (1, 32, 32, 64) and outputs.taps["fc3"].shape == (1, 1024)


def test_the_form_of_the_survey():
    params, _, outputs = shapes((1, 32, 32, 3), "vgg16_survey")
    # convolutions as above, BatchNorms, dense 2048·256 + 256 + 256² + 256 + 2560 + 10
    assert count_parameters(params) == 14_710_464 + 2 * 4_224 + 524_544 + 65_792 + 2_570
    assert outputs.taps["block5"].shape == (1, 2, 2, 512) and outputs.taps["fc2"].shape == (1, 256)
    assert shapes((1, 48, 40, 3), "vgg16_survey")[0]["fc1"]["kernel"].shape == (2048, 256)  # whatever the image's size
    with pytest.raises(SettingError, match="average"):
        shapes((1, 32, 32, 3), average=0)


def test_common_form_with_batch_norm():
    params, state, _ = shapes((1, 32, 32, 3), "vgg16_bn")
    assert count_parameters(params) == 14_728_266  # that of the widely used torch VGG-16-BN for CIFAR-10
    assert count_parameters(state) == 2 * 4_224


@pytest.mark.parametrize(("side", "last"), [(28, 1), (64, 4), (8, 1)])
def test_a_map_of_one_row_is_not_pooled_again(side, last):
    params, _, outputs = shapes((2, side, side, 1), hidden=(16,))
    assert outputs.taps["block5"].shape == (2, last, last, 512)
    assert params["fc1"]["kernel"].shape == (512 * max(1, last // 2) ** 2, 16)
