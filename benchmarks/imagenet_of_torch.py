"""The logits of timm's EfficientNet-Lite0, for `imagenet_agreement.py`. Needs torch, timm and scikit-image.

Run by an interpreter that has them: `python imagenet_of_torch.py WEIGHTS.pth IN.npz OUT.npz`. IN has arrays of images,
RGB, 0 to 255, of shape `(n, rows, columns, 3)`. OUT has their logits under the same names, the two photographs of
scikit-image under `photographs` with their logits under `of_photographs`, and the names of the classes under `classes`.
"""

from __future__ import annotations

import sys

import numpy as np
import skimage.data
import skimage.transform
import timm
import torch
from timm.data import ImageNetInfo

SIZE = 224


def square(photograph: np.ndarray) -> np.ndarray:
    """The middle of a photograph, as 224 x 224 pixels."""
    side = min(photograph.shape[:2])
    top, left = ((length - side) // 2 for length in photograph.shape[:2])
    middle = photograph[top : top + side, left : left + side]
    resized = skimage.transform.resize(middle, (SIZE, SIZE), anti_aliasing=True, preserve_range=True)
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)


def main() -> None:
    weights, given, wanted = sys.argv[1:]
    net = timm.create_model("tf_efficientnet_lite0").eval()
    state = torch.load(weights, weights_only=True)
    # Other names, the same order.
    renamed = dict(zip(net.state_dict(), state.values(), strict=True))
    net.load_state_dict(renamed, strict=True)

    def logits(images: np.ndarray) -> np.ndarray:
        x = (torch.tensor(images, dtype=torch.float32).permute(0, 3, 1, 2) - 127) / 128
        with torch.no_grad():
            return net(x).numpy()

    photographs = np.stack([square(skimage.data.chelsea()), square(skimage.data.coffee())])
    found = {name: logits(images) for name, images in np.load(given).items()}
    about = ImageNetInfo()
    classes = np.array([about.index_to_description(index) for index in range(len(next(iter(found.values()))[0]))])
    np.savez(wanted, photographs=photographs, of_photographs=logits(photographs), classes=classes, **found)
    print(f"torch {torch.__version__}, timm {timm.__version__}", flush=True)


if __name__ == "__main__":
    main()
