"""The same weights in three libraries give the same logits."""

import pytest
import timm
import torch
import transformers
from helpers import redraw
from torch.testing import assert_close

from rollout.demo.twins import hugging_face_config, hugging_face_state, torchvision_twin


@pytest.mark.parametrize("library", ["torchvision", "Hugging Face"])
def test_a_twin_gives_the_same_logits(library):
    network = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2, mlp_ratio=3, num_classes=5
    )
    redraw(network).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        if library == "torchvision":
            logits = torchvision_twin(network).eval()(images)
        else:
            config = transformers.ViTConfig(**hugging_face_config(network), num_labels=5)
            twin = transformers.ViTForImageClassification(config).eval()
            twin.load_state_dict(hugging_face_state(network))
            logits = twin(images).logits
        assert_close(logits, network(images), rtol=1e-4, atol=1e-4)
