"""Winograd's tiles: tables of the kernels of cuda/winograd.cu, which FilterActs, ImageActs and WeightActs share.

Host code: c_code/winograd.h, and c_code/correlation_gpu.c for the first two.
"""

from convnet_ops.kernels import KernelFamily, Row

# Outputs and taps of a tile, in one direction.
TILES = ((4, 3), (3, 3), (2, 3))


def winograd_family(name, kernel, struct, files=("winograd.cu",), arguments=""):
    """One of the kernels of cuda/winograd.cu, for every tile.

    A row's `stride` is what its tiles are apart, their outputs, and its `window` the taps; all families have the same
    rows.
    """
    rows = [
        Row(
            name="%dx%d_%dx%d" % (outputs, outputs, taps, taps),
            template="%s<WinogradTile<%d, %d>%s>" % (kernel, outputs, taps, arguments),
            threads=256,
            blocks_per_sm=2,
            window=taps,
            stride=outputs,
        )
        for outputs, taps in TILES
    ]
    return KernelFamily(name, list(files), struct, rows)


PATCHES = winograd_family("winograd_patches", "winograd_patches", "WinogradPatchesArgs", arguments=", false")
GRADIENTS = winograd_family("winograd_gradients", "winograd_patches", "WinogradPatchesArgs", arguments=", true")
FILTERS = winograd_family("winograd_filters", "winograd_filters", "WinogradFiltersArgs")
OUTPUTS = winograd_family("winograd_outputs", "winograd_outputs", "WinogradOutputsArgs")
TAPS = winograd_family("winograd_taps", "winograd_taps", "WinogradTapsArgs")
