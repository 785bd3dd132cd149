"""Convolutions by tiles, Winograd's or of Fourier transforms: the tables of their kernels.

FilterActs, ImageActs and WeightActs share them. Kernels: cuda/winograd.cu, cuda/fft.cu and cuda/fft_products.cu; host
code: c_code/tiles.h, and c_code/correlation_gpu.c for the first two ops.
"""

from convnet_ops.kernels import KernelFamily, Row

# Outputs and taps of a tile, in one direction; weight.
WINOGRAD_TILES = ((4, 3, 32), (2, 3, 27))
# Name, pixels of a tile in one direction, tiles or filters of a block, blocks of a multiprocessor, weight.
FFT_TILES = (
    ("fft_12x12", 12, 32, 5, 30),
    ("fft_16x16", 16, 32, 4, 31),
    ("fft_24x24", 24, 16, 4, 26),
    ("fft_32x32", 32, 16, 3, 25),
    ("fft_40x40", 40, 8, 3, 20),
)
# The same of outputs. Where 8 does not divide the batch, blocks share a sector of 32 bytes in every pixel, and
# wider ones share fewer; some are slower otherwise.
FFT_OUTPUT_TILES = (
    ("fft_12x12", 12, 32, 4, 30),
    ("fft_16x16", 16, 32, 3, 31),
    ("fft_24x24", 24, 32, 2, 26),
    ("fft_32x32", 32, 32, 1, 25),
    ("fft_40x40", 40, 8, 3, 20),
    ("fft_16x16_odd", 16, 64, 2, 31),
    ("fft_40x40_odd", 40, 24, 1, 20),
)
# Of the gradient of the filters: sums over splits take more registers.
FFT_TAPS_TILES = tuple((name, size, lanes, blocks - 1, weight) for name, size, lanes, blocks, weight in FFT_TILES)


def tile_family(name, kernel, struct, files=("tiles.cuh", "winograd.cu", "fft.cu"), fft_tiles=FFT_TILES):
    """One of the transforms, for every tile.

    A row's `window` is the taps of its tiles, 0 for those of fft.cu, which take any; its `stride` the outputs, for
    those of fft.cu the pixels; `tile_n` how many tiles, or filters, a block transforms; its `weight` the 0.1 TB/s that
    it moves. All families begin with the same rows, but for how many a block transforms.
    """
    rows = [
        Row(
            name="winograd_%dx%d_%dx%d" % (outputs, outputs, taps, taps),
            template="winograd_%s<WinogradTile<%d, %d>>" % (kernel, outputs, taps),
            threads=256,
            blocks_per_sm=2,
            tile_n=256,
            weight=weight,
            window=taps,
            stride=outputs,
        )
        for outputs, taps, weight in WINOGRAD_TILES
    ]
    rows += [
        Row(
            name=row,
            template="fft_%s<%d, %d>" % (kernel, size, lanes),
            threads=size // 2 * lanes,
            blocks_per_sm=blocks,
            tile_n=lanes,
            weight=weight,
            stride=size,
        )
        for row, size, lanes, blocks, weight in fft_tiles
    ]
    return KernelFamily(name, list(files), struct, rows)


def _products_family(name, struct, product, narrow=False):
    """The complex products of FFT_TILES, with `product` of cuda/product.cuh; `narrow`: by 48 columns too."""
    # warp_m, warp_n, warps_m, warps_n, stages, blocks_per_sm, weight; of three parts, then of one. A weight counts a
    # complex product as one; those of 64 x 64 are by what layers take, the others put beside them.
    three_parts = [
        (32, 32, 2, 2, 3, 2, 20),
        (32, 32, 4, 1, 2, 2, 19),
        (32, 32, 1, 4, 2, 2, 18),
        (16, 32, 1, 4, 2, 2, 14),
    ]
    one_part = [
        (32, 32, 2, 2, 3, 2, 46),
        (32, 32, 4, 1, 2, 2, 42),
        (32, 32, 1, 4, 2, 2, 41),
        (16, 32, 1, 4, 2, 3, 24),
    ]
    if narrow:
        three_parts += [(16, 48, 4, 1, 3, 2, 19), (16, 48, 2, 1, 3, 4, 16)]
        one_part += [(16, 48, 4, 1, 3, 3, 42), (16, 48, 2, 1, 3, 4, 27)]
    rows = []
    for kind, parts, tiles in (("3xtf32", 3, three_parts), ("tf32", 1, one_part)):
        for warp_m, warp_n, warps_m, warps_n, stages, blocks, weight in tiles:
            tile_m, tile_n = warp_m * warps_m, warp_n * warps_n
            numbers = (warp_m, warp_n, warps_m, warps_n, parts)
            rows.append(
                Row(
                    name="%s_%dx%d" % (kind, tile_m, tile_n),
                    template="%s<%s, %d>" % (name, product % numbers, stages),
                    threads=32 * warps_m * warps_n,
                    blocks_per_sm=blocks,
                    tile_m=tile_m,
                    tile_n=tile_n,
                    vec_m=4,
                    vec_n=4,
                    weight=weight,
                    capability=80,
                    tf32=int(parts == 1),
                )
            )
    return KernelFamily(name, ["product.cuh", "fft_products.cu"], struct, rows)


FFT_PRODUCTS = _products_family("fft_products", "FftProductsArgs", "TensorByRows<%d, %d, %d, %d, %d, 2>", narrow=True)
FFT_GRADIENT_PRODUCTS = _products_family(
    "fft_gradient_products", "FftGradientProductsArgs", "TensorByColumns<%d, %d, %d, %d, %d>"
)
OPERANDS = tile_family("tile_operands", "operands", "TileOperandsArgs")
GRADIENT_OPERANDS = tile_family("tile_gradient_operands", "operands", "TileGradientOperandsArgs")
OUTPUTS = tile_family("tile_outputs", "outputs", "TileOutputsArgs", fft_tiles=FFT_OUTPUT_TILES)
TAPS = tile_family("tile_taps", "taps", "TileTapsArgs", fft_tiles=FFT_TAPS_TILES)
