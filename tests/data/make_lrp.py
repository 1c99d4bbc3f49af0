"""Write lrp.safetensors: what the authors' code of CP-LRP computes on a small torchvision network.

    python tests/data/make_lrp.py CHECKOUT

CHECKOUT is a clone of github.com/rachtibat/LRP-eXplains-Transformers. Its rules run unchanged, in
float64; only arrays are kept.
"""

import importlib
import json
import sys
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file

NETWORK = {"image_size": 24, "patch_size": 8, "num_layers": 3, "num_heads": 2}
NETWORK |= {"hidden_dim": 16, "mlp_dim": 24, "num_classes": 4}


def random_network():
    network = torchvision.models.VisionTransformer(**NETWORK).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network.half().double()  # so that the stored float16 says it all


def main(checkout):
    torch.manual_seed(0)
    network = random_network()
    image = torch.randn(2, 3, 24, 24).half().double()
    # The package's own __init__ files import networks that need not be installed.
    for name in ("lxt", "lxt.efficient", "lxt.efficient.models"):
        package = type(sys)(name)
        package.__path__ = [str(Path(checkout, *name.split(".")))]
        sys.modules[name] = package
    rules = importlib.import_module("lxt.efficient.models.vit_torch").cp_LRP
    for kind, patch in rules.items():
        assert patch(kind)
    image.requires_grad_()
    logits = network(image)
    gradients = [
        torch.autograd.grad(logits[:, target].sum(), image, retain_graph=True)[0]
        for target in range(NETWORK["num_classes"])
    ]
    arrays = {f"weights.{name}": one.half() for name, one in network.state_dict().items()}
    arrays |= {"image": image.detach().half(), "logits": logits.detach()}
    arrays |= {"gradients": torch.stack(gradients)}  # (classes, batch, channels, height, width)
    said = {"network": json.dumps(NETWORK)}
    save_file(arrays, Path(__file__).with_name("lrp.safetensors"), said)


if __name__ == "__main__":
    main(sys.argv[1])
