"""Generated kernel text, the choice of a row, and the division constants: all without a GPU."""

import re

from convnet_ops import kernels, tiles
from convnet_ops.filter_acts import GpuFilterActs
from convnet_ops.opt import GPU_TWINS
from convnet_ops.weight_acts import GpuWeightActs

from tests.cpp import run_program

# Ops may share one: by name.
ALL_FAMILIES = [family for twin in GPU_TWINS.values() for family in twin.kernel_families]
FAMILIES = list({family.name: family for family in ALL_FAMILIES}.values())


def test_families_are_complete():
    for family in FAMILIES:
        assert family.arguments, family.name
        names = [row.name for row in family.rows]
        assert len(set(names)) == len(names), names
        for row in family.rows:
            text = family.cuda_text(row)
            assert text.count('extern "C"') == 1
            assert "__launch_bounds__(%d, %d)" % (row.threads, row.blocks_per_sm) in text
            assert re.search(r"\b%s\(args\);" % re.escape(row.template), text)


def test_families_of_a_name_are_the_same():
    # Tests and compile_kernels tell them apart by name.
    for family in ALL_FAMILIES:
        same = [other for other in FAMILIES if other.name == family.name]
        assert [other.digest() for other in same] == [family.digest()], family.name


def test_every_struct_member_is_an_argument():
    family = GpuFilterActs.kernel_families[0]
    body = re.search(r"struct CorrelateArgs \{(.*?)\n\};", family.source, re.DOTALL).group(1)
    members = re.findall(r"(\w+);", re.sub(r"//.*", "", body))
    assert [argument.name for argument in family.arguments] == members
    assert "by_n" in members and "images" in members


def test_texts_differ_by_row():
    # libgpuarray's cache of compiled kernels looks at the text alone.
    texts = [family.cuda_text(row) for family in FAMILIES for row in family.rows]
    assert len(set(texts)) == len(texts)


def test_c_string_survives_a_compiler():
    text = 'asm volatile("a\\n\\t%0;" :: "r"(x)); \\\n// two lines, a \t tab and a ?\n'
    assert run_program([], 'printf("%%s", %s);' % kernels.c_string(text)) == text
    assert run_program([], 'printf("%%s", %s);' % kernels.c_string("no newline at the end")) == "no newline at the end"


def test_digest_follows_the_text():
    assert kernels.text_digest("a", "b") != kernels.text_digest("ab", "")
    assert kernels.text_digest("a", "b") == kernels.text_digest("a", "b")


def rows_as_cpp(family, name="rows"):
    """The family's table as the host code sees it, under a name."""
    code = re.search(r"static const GpuRow rows\[\] = \{.*?\};", family.c_code(), re.DOTALL).group(0)
    return code.replace("rows[]", name + "[]")


H200 = (132, 90)


def choose(family, m, n, depth, batches=1, vec_n=4, card=H200, run=128, trimmed=1.0, splits=(1, 1), tf32=False):
    """The row that the host code chooses, and into how many splits."""
    body = """%s
  const GpuRows table = {"%s", rows, (int)(sizeof(rows) / sizeof(rows[0]))};
  const ProductShape shape = {atoll(argv[1]), atoll(argv[2]), atoll(argv[3]), 4, atoi(argv[4]), atoll(argv[5]),
    atof(argv[6]), 0, 0, atoll(argv[7]), atoll(argv[8]), atoll(argv[9]), atoi(argv[10]) != 0, 0, false};
  const Card card = {atoi(argv[11]), atoi(argv[12])};
  const Choice choice = cheapest_row(table, shape, card);
  printf("%%s %%lld", choice.row < 0 ? "none" : rows[choice.row].name, choice.splits);""" % (
        rows_as_cpp(family),
        family.name,
    )
    arguments = (m, n, batches, vec_n, run, trimmed, depth) + splits + (int(tf32),) + card
    row, count = run_program(["choose_row.h"], body, arguments).split()
    return row, int(count)


def test_choice_fits_the_tile_to_the_filters():
    family = GpuFilterActs.kernel_families[0]
    many = 128 * 112 * 112
    assert choose(family, 384, many, 1728)[0] == "3xtf32_64x128_n4"
    assert choose(family, 64, many, 1728)[0] == "3xtf32_64x128_n4"
    assert choose(family, 96, many, 1728)[0] == "3xtf32_96x128_n4"
    assert choose(family, 32, many, 1728)[0] == "3xtf32_32x128_n4"
    assert choose(family, 16, many, 1728)[0] == "3xtf32_16x256_n4"
    # First layers, of LeNet and VGG: sums of 25 and 27 products, which leave little of one step or of two empty.
    assert choose(family, 32, 500 * 24 * 24, 25, run=500)[0] == "fma_32x128x28_n4"
    assert choose(family, 32, 129 * 24 * 24, 25, vec_n=1, run=129)[0] == "fma_32x256x14_n1"
    assert choose(family, 64, 64 * 224 * 224, 27, run=64)[0] == "fma_32x256x14_n4"
    # A step more for one product more.
    assert choose(family, 64, 64 * 224 * 224, 29, run=64)[0] == "fma_64x128_n4"


def test_choice_follows_precision_and_card():
    family = GpuFilterActs.kernel_families[0]
    many = 128 * 112 * 112
    assert choose(family, 384, many, 1728, tf32=True)[0] == "tf32_128x128_n4"
    assert choose(family, 384, many, 1728, card=(40, 75), tf32=True)[0].startswith("fma_")
    # Cards whose tensor cores multiply TF32 no faster than the others multiply float32.
    assert choose(family, 384, many, 1728, card=(84, 86))[0].startswith("fma_")
    assert choose(family, 384, many, 1728, card=(108, 80))[0].startswith("3xtf32_")


def halves_pay(channels, m, n, size, taps, card=(132, 90)):
    """Whether FilterActs takes halves, not TF32, for size x size outputs of stride 1."""
    families = {family.name: family for family in GpuFilterActs.kernel_families}
    half_rows, rows = families["filter_acts_f16"], families["filter_acts"]
    body = "".join(
        "%s\n  const GpuRows %s = {\"%s\", %s_rows, %d};\n"
        % (rows_as_cpp(family, table + "_rows"), table, family.name, table, len(family.rows))
        for table, family in (("halves", half_rows), ("floats", rows))
    )
    body += """
  const long long channels = atoll(argv[1]), m = atoll(argv[2]), n = atoll(argv[3]), columns = n * atoll(argv[4]);
  const long long taps = atoll(argv[5]), pairs = (channels + 1) / 2;
  const ProductShape of_floats = {m, columns, 1, 4, 4, n, 1, 0, 0, channels * taps, 1, 1, true, 0, false};
  const ProductShape of_words = {m, columns, 1, 4, 4, n, 1, 0, 0, pairs * taps, 1, 1, true, 0, false};
  const Card card = {atoi(argv[6]), atoi(argv[7])};
  const long long values = channels * (columns + taps * m), words = pairs * (columns + taps * m);
  printf("%d",
    cheapest_cost(halves, with_half_copies(of_words, values, words), card) < cheapest_cost(floats, of_floats, card));"""
    return run_program(["choose_row.h"], body, (channels, m, n, size**2, taps**2) + card) == "1"


def test_halves_pay_where_there_is_much_to_multiply():
    assert halves_pay(384, 256, 128, 13, 3)
    # Copies take longer than the products; one channel leaves half of each word empty; a card without tensor cores.
    assert not halves_pay(384, 16, 128, 13, 1)
    assert not halves_pay(1, 256, 128, 55, 5)
    assert not halves_pay(384, 256, 128, 13, 3, card=(40, 75))


def test_choice_splits_sums_where_tiles_are_few():
    family = GpuFilterActs.kernel_families[0]
    row, splits = choose(family, 384, 169, 1728, vec_n=1, run=1, splits=(1, 64))
    assert row.endswith("_n1") and 4 <= splits <= 27, (row, splits)
    assert choose(family, 384, 169, 1728, vec_n=1, run=1)[1] == 1
    assert choose(family, 384, 128 * 112 * 112, 1728, splits=(1, 64))[1] == 1
    weights = GpuWeightActs.kernel_families[0]
    assert choose(weights, 25, 32, 288000, splits=(36, 576))[1] >= 200


def test_choice_respects_alignment():
    family = GpuFilterActs.kernel_families[0]
    for vec_n in (1, 4):
        assert choose(family, 128, 100000, 1000, vec_n=vec_n)[0].endswith("_n%d" % vec_n)


PLAN_NAMES = "row chunk_rows step bytes images product".split()


def plan(
    gradient,
    groups,
    channels,
    m,
    n,
    size,
    taps,
    limit=-1,
    card=H200,
    tf32=False,
    environment=None,
    only="",
    rest=-1,
    arranged=False,
):
    """The plan of tiles for size x size outputs, by PLAN_NAMES, or None; with the row of its products.

    Images beside tiles take `rest` microseconds, if that is positive; else there are none. `arranged` as in tiles.h.
    """
    op = GpuWeightActs if gradient else GpuFilterActs
    families = {family.name: family for family in op.kernel_families}
    tables = (
        ("tiles", "tile_gradient_operands" if gradient else "tile_operands"),
        ("products", "weight_acts" if gradient else "filter_acts"),
        ("fft_products", "fft_gradient_products" if gradient else "fft_products"),
    )
    body = "".join(
        "%s\n  const GpuRows %s = {\"%s\", %s_rows, %d};\n"
        % (rows_as_cpp(families[name], table + "_rows"), table, name, table, len(families[name].rows))
        for table, name in tables
    )
    body += """
  const TileTables tables = {tiles, products, fft_products};
  const long long size = atoll(argv[5]), taps = atoll(argv[6]);
  const TileProblem p = {atoll(argv[1]), atoll(argv[2]), atoll(argv[3]), atoll(argv[4]), size, size, taps, taps,
    atoi(argv[10]) != 0, atoi(argv[14]) != 0};
  const bool gradient = atoi(argv[11]) != 0;
  const Card card = {atoi(argv[8]), atoi(argv[9])};
  int only = -1;
  for (int row = 0; row < tiles.count; ++row)
    if (strcmp(tiles.rows[row].name, argv[12]) == 0) only = row;
  const double rest = atof(argv[13]);
  const auto rest_us = [&](long long) { return rest; };
  const TilePlan plan = cheapest_plan(tables, p, gradient, atof(argv[7]), only, card, rest_us);
  if (plan.row < 0) return printf("none"), 0;
  const GpuRow &tile = tiles.rows[plan.row];
  const ProductShape shape = gradient ? tile_gradient_product(plan, tile, p) : tile_product(plan, tile, p);
  const GpuRows &rows = is_fft(tile) ? fft_products : products;
  const Choice choice = cheapest_row(rows, shape, card);
  const long long values = (p.channels + p.m) * plan.chunk_rows * plan.tile_cols;
  const long long bytes = 4 * plan.elements * p.groups * plan.n * values;
  const char *product = rows.rows[choice.row].name;
  printf("%s %lld %lld %lld %lld %s", tile.name, plan.chunk_rows, plan.step_y, bytes, plan.images, product);"""
    arguments = (groups, channels, m, n, size, taps, limit) + card
    arguments += (int(tf32), int(gradient), only, rest, int(arranged))
    answer = run_program(["tiles.h"], body, arguments, environment=environment)
    if answer == "none":
        return None
    values = answer.split()
    return dict(zip(PLAN_NAMES, values[:1] + [int(value) for value in values[1:5]] + values[5:]))


def outputs_row(tile, n, size, environment=None):
    """The row of outputs for tiles of a row, by name."""
    body = """%s
  const GpuRows outputs = {"tile_outputs", rows, (int)(sizeof(rows) / sizeof(rows[0]))};
  const Card card = {132, 90};
  int tile = 0;
  while (strcmp(rows[tile].name, argv[1]) != 0) ++tile;
  const int row = choose_outputs_row(outputs, tile, atoll(argv[2]), atoll(argv[3]), card);
  printf("%%s", row < 0 ? "none" : rows[row].name);""" % rows_as_cpp(tiles.OUTPUTS)
    return run_program(["tiles.h"], body, (tile, n, size), environment=environment)


def test_odd_batches_have_wider_outputs():
    many = 132 * 64
    assert outputs_row("fft_16x16", 129, many) == "fft_16x16_odd"
    assert outputs_row("fft_16x16", 128, many) == "fft_16x16"
    # Wider blocks would leave multiprocessors without any.
    assert outputs_row("fft_16x16", 129, many - 1) == "fft_16x16"
    assert outputs_row("fft_40x40", 129, many) == "fft_40x40_odd"
    assert outputs_row("fft_32x32", 129, many) == "fft_32x32"
    assert outputs_row("winograd_4x4_3x3", 129, many) == "winograd_4x4_3x3"
    forced = {"CONVNET_OPS_VARIANT": "tile_outputs=fft_16x16_odd"}
    assert outputs_row("fft_16x16", 128, 1, forced) == "fft_16x16_odd"
    assert outputs_row("fft_40x40", 128, 1, forced) == "none"


def test_tiles_fit_the_images():
    for gradient in (False, True):
        # 13 and 24 outputs and their filters fill a transform; of 11 Winograd's tiles leave less empty.
        assert plan(gradient, 1, 192, 384, 128, 13, 3)["row"] == "fft_16x16"
        assert plan(gradient, 1, 128, 128, 128, 24, 9)["row"] == "fft_32x32"
        assert plan(gradient, 1, 384, 384, 128, 11, 3)["row"] == "winograd_4x4_3x3"
        # Transforms of the filters weigh more in small batches.
        assert plan(gradient, 1, 192, 384, 16, 13, 3)["row"] == "winograd_4x4_3x3"
        # Not within that time.
        assert plan(gradient, 1, 192, 384, 128, 13, 3, limit=10) is None


def test_tiles_wait_for_the_host():
    # lenet2 with 32 images: the card would take less than the host takes to start three kernels.
    assert plan(False, 1, 32, 64, 32, 8, 5, limit=13) is None
    assert plan(False, 1, 32, 64, 32, 8, 5, limit=14)["row"] == "fft_12x12"
    # Its gradient of the images has the filters' arrangement before it.
    assert plan(False, 1, 64, 32, 4, 12, 5, limit=14) is not None
    assert plan(False, 1, 64, 32, 4, 12, 5, limit=17, arranged=True) is None
    assert plan(False, 1, 64, 32, 4, 12, 5, limit=19, arranged=True) is not None


def test_tiles_leave_few_images():
    # Whether the last image has blocks of 64 to itself or the direct kernels.
    assert plan(False, 1, 192, 384, 129, 13, 3)["images"] == 129
    assert plan(False, 1, 192, 384, 129, 13, 3, rest=10)["images"] == 128
    assert plan(False, 1, 192, 384, 129, 13, 3, rest=1000)["images"] == 129
    assert plan(False, 1, 192, 384, 128, 13, 3, rest=1)["images"] == 128
    assert plan(False, 1, 192, 384, 63, 13, 3, rest=1)["images"] == 63
    # Not within that time.
    assert plan(False, 1, 192, 384, 129, 13, 3, rest=10, limit=20) is None
    forced = plan(False, 1, 192, 384, 129, 13, 3, rest=1000, environment={"CONVNET_OPS_VARIANT": "tile_images=3"})
    assert forced["images"] == 3


def test_tiles_fit_the_filters():
    for gradient in (False, True):
        assert plan(gradient, 1, 192, 384, 128, 13, 9, only="fft_16x16")["step"] == 8
        assert plan(gradient, 1, 192, 384, 128, 13, 17, only="fft_16x16") is None
        assert plan(gradient, 1, 192, 384, 128, 13, 4, only="winograd_4x4_3x3") is None
        # A filter that leaves most of a large tile of Winograd's empty.
        assert plan(gradient, 1, 192, 384, 128, 13, 2, only="winograd_4x4_3x3") is None
        assert plan(gradient, 1, 192, 384, 128, 13, 2, only="winograd_2x2_3x3")["step"] == 2


def test_tiles_respect_precision_and_card():
    for gradient in (False, True):
        for only, tf32_allowed in (("fft_16x16", True), ("winograd_2x2_3x3", True), ("winograd_4x4_3x3", False)):
            assert plan(gradient, 1, 384, 256, 128, 13, 3, only=only)["product"].startswith("3xtf32")
            tf32 = plan(gradient, 1, 384, 256, 128, 13, 3, tf32=True, only=only)
            assert tf32["product"].startswith("tf32") == tf32_allowed, tf32
        # Without tensor cores the small tiles are left.
        old = plan(gradient, 1, 384, 256, 128, 13, 3, card=(40, 75))
        assert old["row"] == "winograd_2x2_3x3" and old["product"].startswith("fma"), old


def test_tiles_respect_limits():
    whole = plan(False, 1, 64, 64, 128, 13, 3)
    assert whole["chunk_rows"] == 1 and whole["bytes"] < 512 << 20, whole
    parts = plan(False, 1, 64, 64, 64, 224, 3, only="winograd_4x4_3x3")
    assert 1 <= parts["chunk_rows"] < 56 and parts["bytes"] <= 512 << 20, parts
    one = plan(False, 1, 64, 64, 64, 224, 3, environment={"CONVNET_OPS_TILE_BYTES": "1"}, only="winograd_4x4_3x3")
    assert one["chunk_rows"] == 1, one
    # A row of tiles beyond what an array may have; more products than a grid has places for.
    assert plan(False, 1, 4096, 4096, 4096, 32, 3) is None
    assert plan(False, 10000, 1, 1, 128, 13, 3) is None


def test_choice_never_takes_the_plain_row():
    family = GpuWeightActs.kernel_families[0]
    assert family.rows[-1].name == "plain"
    for m, n, depth in ((1, 1, 1), (25, 32, 1000), (10000, 384, 4)):
        assert choose(family, m, n, depth, vec_n=1)[0] != "plain"


def test_forced_rows_are_parsed():
    body = """printf("%d%d%d%d", row_is_forced("weight_acts", "plain"), row_is_forced("filter_acts", "plain"),
  row_is_forced("filter_acts", "128"), row_is_forced("acts", "plain"));"""
    environment = {"CONVNET_OPS_VARIANT": "filter_acts=128,weight_acts=plain"}
    assert run_program(["choose_row.h"], body, environment=environment) == "1010"
    assert run_program(["choose_row.h"], body, environment={"CONVNET_OPS_VARIANT": ""}) == "0000"


def test_divisor_is_exact():
    # At the multiples of the divisor and beside them, up to the largest dividend: where a rounded quotient would slip.
    body = """
  const long long last = 2147483647;
  long long wrong = 0, checked = 0;
  for (long long value = 1; value < 200000; value = value < 2000 ? value + 1 : value * 17 / 16) {
    const Divisor d = make_divisor(value);
    for (long long step = 0; step < 400; ++step) {
      const long long multiple = (step < 200 ? step : last / value - (step - 200)) * value;
      for (long long dividend = multiple - 1; dividend <= multiple + 1; ++dividend) {
        if (dividend < 0 || dividend > last) continue;
        const unsigned high = (unsigned)(((unsigned long long)dividend * d.multiplier) >> 32);
        const long long quotient = d.value == 1 ? dividend : high >> d.shift;
        wrong += quotient != dividend / value;
        ++checked;
      }
    }
  }
  printf("%lld %d", wrong, checked > 1000000);"""
    assert run_program(["divisor.h"], body) == "0 1"
