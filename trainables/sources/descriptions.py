"""What is known of published image sets beside their pixels: class names and named groups of classes."""

from collections.abc import Mapping, Sequence

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

GROUPS: Mapping[tuple[str, ...], Mapping[str, tuple[str, ...]]] = {
    CIFAR10_CLASSES: {
        "rigid": ("airplane", "automobile", "ship", "truck"),
        "deformable": ("bird", "cat", "deer", "dog", "frog", "horse"),
    },
    FASHION_MNIST_CLASSES: {
        "upper_body": ("T-shirt/top", "Pullover", "Dress", "Coat", "Shirt"),
        "footwear": ("Sandal", "Sneaker", "Ankle boot"),
    },
}


def find_groups(class_names: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the named groups of the published set that has exactly these classes; empty if there is none."""
    return GROUPS.get(tuple(class_names), {})
