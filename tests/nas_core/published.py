"""DARTS_V2 and others as published (quark0/darts and P-DARTS, cnn/genotypes.py), with counts made from the layer
definitions: C=36/L=20 for CIFAR-10 and C=48/L=14 for ImageNet, without auxiliary head."""

DARTS_V2 = {
    "normal": [
        ["sep_conv_3x3", 0],
        ["sep_conv_3x3", 1],
        ["sep_conv_3x3", 0],
        ["sep_conv_3x3", 1],
        ["sep_conv_3x3", 1],
        ["skip_connect", 0],
        ["skip_connect", 0],
        ["dil_conv_3x3", 2],
    ],
    "normal_concat": [2, 3, 4, 5],
    "reduce": [
        ["max_pool_3x3", 0],
        ["max_pool_3x3", 1],
        ["skip_connect", 2],
        ["max_pool_3x3", 1],
        ["max_pool_3x3", 0],
        ["skip_connect", 2],
        ["skip_connect", 2],
        ["max_pool_3x3", 1],
    ],
    "reduce_concat": [2, 3, 4, 5],
}
"""3,349,342 params and 528,359,040 macs on CIFAR-10; 4,718,752 and 529,911,552 on ImageNet, 544.59 M by counter B."""
