"""Convolutions by tiles, Winograd's or of Fourier transforms: tables of the kernels of cuda/winograd.cu and cuda/fft.cu.

FilterActs, ImageActs and WeightActs share them. Host code: c_code/tiles.h, and c_code/correlation_gpu.c for the first two.
"""

from convnet_ops.kernels import KernelFamily, Row

# Outputs and taps of a tile, in one direction.
WINOGRAD_TILES = ((4, 3), (3, 3), (2, 3))
# Pixels of a tile in one direction, tiles or filters of a block, blocks of a multiprocessor.
FFT_TILES = ((16, 32, 3), (32, 16, 2))


def tile_family(name, kernel, struct, files=("tiles.cuh", "winograd.cu", "fft.cu"), arguments=""):
    """One of the transforms, for every tile.

    A row's `window` is the taps of its tiles, 0 for those of fft.cu, which take any; its `stride` the outputs, for those of
    fft.cu the pixels; `tile_n` how many tiles, or filters, a block transforms. All families have the same rows.
    """
    rows = [
        Row(
            name="winograd_%dx%d_%dx%d" % (outputs, outputs, taps, taps),
            template="winograd_%s<WinogradTile<%d, %d>%s>" % (kernel, outputs, taps, arguments),
            threads=256,
            blocks_per_sm=2,
            tile_n=256,
            window=taps,
            stride=outputs,
        )
        for outputs, taps in WINOGRAD_TILES
    ]
    rows += [
        Row(
            name="fft_%dx%d" % (size, size),
            template="fft_%s<%d, %d%s>" % (kernel, size, lanes, arguments),
            threads=size // 2 * lanes,
            blocks_per_sm=blocks,
            tile_n=lanes,
            stride=size,
        )
        for size, lanes, blocks in FFT_TILES
    ]
    return KernelFamily(name, list(files), struct, rows)


PATCHES = tile_family("tile_patches", "patches", "TilePatchesArgs", arguments=", false")
GRADIENTS = tile_family("tile_gradients", "patches", "TilePatchesArgs", arguments=", true")
FILTERS = tile_family("tile_filters", "filters", "TileFiltersArgs")
OUTPUTS = tile_family("tile_outputs", "outputs", "TileOutputsArgs")
TAPS = tile_family("tile_taps", "taps", "TileTapsArgs")
