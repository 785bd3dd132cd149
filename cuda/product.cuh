// How a block multiplies the two tiles that correlate.cuh and weight_acts.cu have brought to shared memory. A product says
// which of the block's kTileM x kTileN sums a thread holds and adds one step of the sum to them.
//
// Fma...     float32 multiply-adds.
// Tensor...  TF32 tensor cores, warps of kWarpM x kWarpN sums. kParts = 1 rounds both operands to TF32. kParts = 3 gives
//            float32's accuracy: v = high + low, both TF32, which is v to 21 bits or more, and a * b is high * high +
//            high * low + low * high. Tensor cores round sums toward zero, which would add up: so they sum only kChunk * 8
//            products at a time, and those sums are added to the thread's by rounding to nearest (Ootomo and Yokota
//            2022). An infinite operand gives NaN, since its low part is inf - inf. kParts = 2: an operand is a word of two
//            halves (halves.cu), adjacent in the sum, which are multiplied as they are; k counts words.
//
// Where multiply() or multiply_complex() takes between(), it calls it once the operands of the first products are under way to
// registers: copies to shared memory that are begun there take turns with the products, where before them they would hold these up.
//
// Tiles that lie as [k][m] and [k][n] (ByRows) are read four adjacent values at a time; which row of the tensor core's
// matrix such a value becomes is free, so that a thread's sums come out as four adjacent columns too. Rows of the tile
// would collide on shared memory's banks: swizzle(k) is to be xor-ed to the column in row k.
// Tiles that lie as [m][k] and [n][k] (ByColumns) are read four adjacent k at a time. kAdjacent of a thread's columns are
// adjacent. TensorMixed takes one tile of each kind.

// The parts of an operand. What a tensor core cuts off of a single part is made up for by the factor: it adds 0.35 to 0.7 of
// a unit of the last place before the cut, which leaves little bias and an error of at most 0.7 of a unit. Numbers that TF32
// holds stay what they are, and so do infinities and NaN; all in one instruction, where rounding takes four.
template <int kParts>
struct Tf32Parts {
  float high, low;
  __device__ __forceinline__ Tf32Parts(float value, unsigned mask) {
    high = kParts == 3   ? __uint_as_float(__float_as_uint(value) & mask)
           : kParts == 2 ? value
                         : value * (1.f + 0.35f / 1024);
    low = kParts == 3 ? value - high : 0.f;
  }
};

// One step of kChunk * 8 products, or words, of kTilesM x kTilesN matrices: a(i, step, j) and b(i, step, j) are element j of
// the operands, sum(i, j, e) the sums of one part, to which those of three parts are added by add(i, j, e, value).
template <int kTilesM, int kTilesN, int kChunk, int kParts, typename A, typename B, typename Sum, typename Add>
__device__ __forceinline__ void multiply_chunk(A a, B b, Sum sum, Add add) {
  const unsigned mask = tf32_mask();
  struct {
    float a_high[kTilesM][kChunk][4], a_low[kTilesM][kChunk][4], b_high[kTilesN][kChunk][2], b_low[kTilesN][kChunk][2];
  } operands;
#pragma unroll
  for (int c = 0; c < kChunk; ++c) {
#pragma unroll
    for (int i = 0; i < kTilesM; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const Tf32Parts<kParts> parts(a(i, c, e), mask);
        operands.a_high[i][c][e] = parts.high;
        operands.a_low[i][c][e] = parts.low;
      }
#pragma unroll
    for (int j = 0; j < kTilesN; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const Tf32Parts<kParts> parts(b(j, c, e), mask);
        operands.b_high[j][c][e] = parts.high;
        operands.b_low[j][c][e] = parts.low;
      }
  }
  begin_tf32(&operands);
#pragma unroll
  for (int i = 0; i < kTilesM; ++i)
#pragma unroll
    for (int j = 0; j < kTilesN; ++j) {
      float part[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) part[e] = kParts == 3 ? 0.f : sum(i, j, e);
#pragma unroll
      for (int c = 0; c < kChunk; ++c) {
        if (kParts == 3) {
          multiply_tf32(part, operands.a_low[i][c], operands.b_high[j][c]);
          multiply_tf32(part, operands.a_high[i][c], operands.b_low[j][c]);
        }
        if (kParts == 2)
          multiply_halves(part, operands.a_high[i][c], operands.b_high[j][c]);
        else
          multiply_tf32(part, operands.a_high[i][c], operands.b_high[j][c]);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (kParts == 3)
          add(i, j, e, part[e]);
        else
          sum(i, j, e) = part[e];
    }
  end_tf32();
}

template <int kTilesM, int kTilesN, int kChunk, int kParts, typename A, typename B, typename Sum>
__device__ __forceinline__ void multiply_chunk(A a, B b, Sum sum) {
  multiply_chunk<kTilesM, kTilesN, kChunk, kParts>(a, b, sum,
                                                   [&](int i, int j, int e, float value) { sum(i, j, e) += value; });
}

// The same with complex operands and sums, whose real parts are number 0 and whose imaginary ones number 1 of a(part, i, step,
// j), b(...) and sum(...). With three parts (x + iy)(u + iv) is made of three products (Gauss): p = x (u + v), q = u (y - x) and
// r = v (x + y) give p - r and p + q. Of operands rounded to TF32 it is made of four, which round no sums of theirs.
template <int kTilesM, int kTilesN, int kChunk, int kParts, typename A, typename B, typename Sum>
__device__ __forceinline__ void multiply_complex_chunk(A a, B b, Sum sum) {
  if (kParts == 3) {
#pragma unroll
    for (int product = 0; product < 3; ++product)
      multiply_chunk<kTilesM, kTilesN, kChunk, kParts>(
          [&](int i, int c, int e) {
            const float x = a(0, i, c, e), y = a(1, i, c, e);
            return product == 0 ? x : product == 1 ? y - x : x + y;
          },
          [&](int j, int c, int e) {
            const float u = b(0, j, c, e), v = b(1, j, c, e);
            return product == 0 ? u + v : product == 1 ? u : v;
          },
          [&](int i, int j, int e) -> float & { return sum(0, i, j, e); },
          [&](int i, int j, int e, float value) {
            if (product == 2)
              sum(0, i, j, e) -= value;
            else
              sum(1, i, j, e) += value;
            if (product == 0) sum(0, i, j, e) += value;
          });
    return;
  }
#pragma unroll
  for (int part = 0; part < 2; ++part)
#pragma unroll
    for (int of_b = 0; of_b < 2; ++of_b)
      multiply_chunk<kTilesM, kTilesN, kChunk, kParts>(
          [&](int i, int c, int e) {
            const float value = a(part ^ of_b, i, c, e);
            return part == 0 && of_b == 1 ? -value : value;
          },
          [&](int j, int c, int e) { return b(of_b, j, c, e); },
          [&](int i, int j, int e) -> float & { return sum(part, i, j, e); });
}

template <int kLanesM, int kWarpsM, int kWarpsN>
struct FmaByRows {
  static constexpr int kParts = 0;
  static constexpr int kLanesN = 32 / kLanesM;
  static constexpr int kTileM = 8 * kLanesM * kWarpsM;
  static constexpr int kTileN = 8 * kLanesN * kWarpsN;
  static constexpr int kThreads = 32 * kWarpsM * kWarpsN;
  // A thread has 8 x 8 sums in four pieces of 4 x 4, so that its reads are 16 bytes wide and conflict-free.
  static constexpr int kRows = 8;
  static constexpr int kPieces = 2;
  int m, n;

  __device__ __forceinline__ explicit FmaByRows(int thread) {
    const int warp = thread / 32, lane = thread % 32;
    m = warp / kWarpsN * 8 * kLanesM + lane / kLanesN * 4;
    n = warp % kWarpsN * 8 * kLanesN + lane % kLanesN * 4;
  }
  // The row of sums[i] and the first of the 4 columns of sums[i][piece], in the block's tile.
  __device__ __forceinline__ int row(int i) const { return m + i / 4 * 4 * kLanesM + i % 4; }
  __device__ __forceinline__ int column(int piece) const { return n + piece * 4 * kLanesN; }
  __device__ __forceinline__ static int swizzle_m(int) { return 0; }
  __device__ __forceinline__ static int swizzle_n(int) { return 0; }

  template <int kDepth, typename Between>
  __device__ __forceinline__ void multiply(const float (&a)[kDepth][kTileM], const float (&b)[kDepth][kTileN],
                                           float (&sum)[kRows][kPieces][4], Between between) const {
    between();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      __align__(16) float f[8];
      __align__(16) float v[8];
      *(float4 *)&f[0] = *(const float4 *)&a[k][m];
      *(float4 *)&f[4] = *(const float4 *)&a[k][m + 4 * kLanesM];
      *(float4 *)&v[0] = *(const float4 *)&b[k][n];
      *(float4 *)&v[4] = *(const float4 *)&b[k][n + 4 * kLanesN];
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[i][j / 4][j % 4] += f[i] * v[j];
    }
  }
};

template <int kWarpM, int kWarpN, int kWarpsM, int kWarpsN, int kOperandParts, int kChunk>
struct TensorByRows {
  static constexpr int kParts = kOperandParts;
  static constexpr int kTileM = kWarpM * kWarpsM;
  static constexpr int kTileN = kWarpN * kWarpsN;
  static constexpr int kThreads = 32 * kWarpsM * kWarpsN;
  static constexpr int kRows = kWarpM / 8;
  static constexpr int kPieces = kWarpN / 16;
  static_assert(kWarpM % 16 == 0 && kWarpN % 16 == 0, "tiles of 16 x 8, read 16 or 32 rows and columns at a time");
  int warp_m, warp_n, g, t;

  __device__ __forceinline__ explicit TensorByRows(int thread) {
    const int warp = thread / 32, lane = thread % 32;
    warp_m = warp / kWarpsN * kWarpM;
    warp_n = warp % kWarpsN * kWarpN;
    g = lane / 4;
    t = lane % 4;
  }
  // Rows come in groups of 32, 4 a thread; a last half group has 2 a thread.
  __device__ __forceinline__ int row(int i) const {
    return warp_m + i / 4 * 32 + (i < kWarpM / 32 * 4 ? 4 : 2) * g + i % 4;
  }
  // The 4 lanes of a row store 16 adjacent columns at once: whole sectors of 32 bytes. Columns come in groups of 32, two pieces a
  // thread; a last half group has one.
  __device__ __forceinline__ int column(int piece) const { return warp_n + piece / 2 * 32 + piece % 2 * 16 + 4 * t; }
  // Rows k = 0 ... 3 of a tile on different banks, wherever 32 or 16 columns more begin on the same ones.
  __device__ __forceinline__ static int swizzle_m(int k) { return kTileM % 32 == 0 ? (k & 3) * 8 : (k & 2) * 4; }
  __device__ __forceinline__ static int swizzle_n(int k) { return (k & 3) * 4; }

  // Where sum e of the tensor core's matrix j of columns is among a thread's.
  static __device__ __forceinline__ int piece_of(int j, int e) { return j / 4 * 2 + (j < kWarpN / 32 * 4 ? e % 2 : 0); }
  static __device__ __forceinline__ int element_of(int j, int e) {
    return j < kWarpN / 32 * 4 ? j % 4 : 2 * (e % 2) + j % 4;
  }

  // What this thread needs of rows `begin` and on of the tiles, for one chunk.
  struct Operands {
    __align__(16) float a[kChunk][2][(kRows + 3) / 4 * 4];
    __align__(16) float b[kChunk][2][(kWarpN / 8 + 3) / 4 * 4];
  };
  template <int kDepth>
  __device__ __forceinline__ void read(const float (&a)[kDepth][kTileM], const float (&b)[kDepth][kTileN], int begin,
                                       Operands &operands) const {
#pragma unroll
    for (int c = 0; c < kChunk; ++c)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int k = begin + 8 * c + 4 * half + t;
#pragma unroll
        for (int i = 0; i < kWarpM / 32; ++i)
          *(float4 *)&operands.a[c][half][4 * i] = *(const float4 *)&a[k][(warp_m + 32 * i + 4 * g) ^ swizzle_m(t)];
        if (kWarpM % 32 != 0)
          *(float2 *)&operands.a[c][half][kRows / 4 * 4] =
              *(const float2 *)&a[k][(warp_m + kWarpM / 32 * 32 + 2 * g) ^ swizzle_m(t)];
#pragma unroll
        for (int j = 0; j < kWarpN / 32; ++j)
          *(float4 *)&operands.b[c][half][4 * j] =
              *(const float4 *)&b[k][(warp_n + 32 * j + g % 2 * 16 + g / 2 * 4) ^ swizzle_n(t)];
        if (kWarpN % 32 != 0)
          *(float2 *)&operands.b[c][half][kWarpN / 32 * 4] =
              *(const float2 *)&b[k][(warp_n + kWarpN / 32 * 32 + 2 * g) ^ swizzle_n(t)];
      }
  }

  template <int kDepth, typename Between>
  __device__ __forceinline__ void multiply(const float (&a)[kDepth][kTileM], const float (&b)[kDepth][kTileN],
                                           float (&sum)[kRows][kPieces][4], Between between) const {
#pragma unroll
    for (int begin = 0; begin < kDepth; begin += 8 * kChunk) {
      Operands operands;
      read(a, b, begin, operands);
      if (begin == 0) between();
      multiply_chunk<kWarpM / 16, kWarpN / 8, kChunk, kParts>(
          [&](int i, int c, int e) { return operands.a[c][e / 2][2 * i + e % 2]; },
          [&](int j, int c, int e) { return operands.b[c][e][j]; },
          [&](int i, int j, int e) -> float & { return sum[2 * i + e / 2][piece_of(j, e)][element_of(j, e)]; });
    }
  }
  // Of complex numbers: element 0 of each tile and of the sums is the real part, element 1 the imaginary one.
  template <int kDepth, typename Between>
  __device__ __forceinline__ void multiply_complex(const float (&a)[2][kDepth][kTileM], const float (&b)[2][kDepth][kTileN],
                                                   float (&sum)[2][kRows][kPieces][4], Between between) const {
#pragma unroll
    for (int begin = 0; begin < kDepth; begin += 8 * kChunk) {
      Operands parts[2];
#pragma unroll
      for (int part = 0; part < 2; ++part) read(a[part], b[part], begin, parts[part]);
      if (begin == 0) between();
      multiply_complex_chunk<kWarpM / 16, kWarpN / 8, kChunk, kParts>(
          [&](int part, int i, int c, int e) { return parts[part].a[c][e / 2][2 * i + e % 2]; },
          [&](int part, int j, int c, int e) { return parts[part].b[c][e][j]; },
          [&](int part, int i, int j, int e) -> float & {
            return sum[part][2 * i + e / 2][piece_of(j, e)][element_of(j, e)];
          });
    }
  }
};

template <int kWarpsM, int kWarpsN>
struct FmaByColumns {
  static constexpr int kParts = 0;
  // A warp has 32 x 64 sums, its lanes laid out 4 x 8; a thread 8 x 8, rows 4 and columns 8 apart.
  static constexpr int kTileM = 32 * kWarpsM;
  static constexpr int kTileN = 64 * kWarpsN;
  static constexpr int kThreads = 32 * kWarpsM * kWarpsN;
  static constexpr int kRows = 8;
  static constexpr int kColumns = 8;
  static constexpr int kAdjacent = 1;
  // Rows of the tile are so much longer, which puts 8 adjacent ones on different banks.
  static constexpr int kPad = 4;
  int m, n;

  __device__ __forceinline__ explicit FmaByColumns(int thread) {
    const int warp = thread / 32, lane = thread % 32;
    m = warp / kWarpsN * 32 + lane / 8;
    n = warp % kWarpsN * 64 + lane % 8;
  }
  __device__ __forceinline__ int row(int i) const { return m + 4 * i; }
  __device__ __forceinline__ int column(int j) const { return n + 8 * j; }

  template <int kRow>
  __device__ __forceinline__ void multiply(const float (&a)[kTileM][kRow], const float (&b)[kTileN][kRow],
                                           float (&sum)[kRows][kColumns]) const {
#pragma unroll
    for (int k = 0; k < kRow - kPad; k += 4) {
      float4 w[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) w[j] = *(const float4 *)&b[column(j)][k];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float4 v = *(const float4 *)&a[row(i)][k];
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          sum[i][j] += v.x * w[j].x;
          sum[i][j] += v.y * w[j].y;
          sum[i][j] += v.z * w[j].z;
          sum[i][j] += v.w * w[j].w;
        }
      }
    }
  }
};

template <int kWarpM, int kWarpN, int kWarpsM, int kWarpsN, int kOperandParts>
struct TensorByColumns {
  static constexpr int kParts = kOperandParts;
  static constexpr int kTileM = kWarpM * kWarpsM;
  static constexpr int kTileN = kWarpN * kWarpsN;
  static constexpr int kThreads = 32 * kWarpsM * kWarpsN;
  static constexpr int kRows = kWarpM / 8;
  static constexpr int kColumns = kWarpN / 4;
  static constexpr int kAdjacent = 4;
  // Rows of 16 floats: 8 lanes read two whole ones, which are all the banks.
  static constexpr int kPad = 0;
  int warp_m, warp_n, g, t;

  __device__ __forceinline__ explicit TensorByColumns(int thread) {
    const int warp = thread / 32, lane = thread % 32;
    warp_m = warp / kWarpsN * kWarpM;
    warp_n = warp % kWarpsN * kWarpN;
    g = lane / 4;
    t = lane % 4;
  }
  __device__ __forceinline__ int row(int i) const { return warp_m + 8 * i + g; }
  // The 4 lanes of a row have 16 adjacent columns at once.
  __device__ __forceinline__ int column(int j) const { return warp_n + j / 4 * 16 + 4 * t + j % 4; }

  // What this thread needs of the tiles.
  struct Operands {
    __align__(16) float a[kRows][4];
    __align__(16) float b[kWarpN / 8][4];
  };
  template <int kRow>
  __device__ __forceinline__ void read(const float (&a)[kTileM][kRow], const float (&b)[kTileN][kRow],
                                       Operands &operands) const {
    static_assert(kRow == 16, "a step of 16: 4 of them a lane, two matrices of 8");
#pragma unroll
    for (int i = 0; i < kRows; ++i) *(float4 *)operands.a[i] = *(const float4 *)&a[warp_m + 8 * i + g][4 * t];
#pragma unroll
    for (int j = 0; j < kWarpN / 8; ++j)
      *(float4 *)operands.b[j] = *(const float4 *)&b[warp_n + j / 2 * 16 + g / 2 * 4 + j % 2 * 2 + g % 2][4 * t];
  }

  template <int kRow>
  __device__ __forceinline__ void multiply(const float (&a)[kTileM][kRow], const float (&b)[kTileN][kRow],
                                           float (&sum)[kRows][kColumns]) const {
    Operands operands;
    read(a, b, operands);
    multiply_chunk<kWarpM / 16, kWarpN / 8, 2, kParts>(
        [&](int i, int c, int e) { return operands.a[2 * i + e % 2][2 * c + e / 2]; },
        [&](int j, int c, int e) { return operands.b[j][2 * c + e]; },
        [&](int i, int j, int e) -> float & { return sum[2 * i + e / 2][2 * j + e % 2]; });
  }
  // Of complex numbers, as above.
  template <int kRow, typename Between>
  __device__ __forceinline__ void multiply_complex(const float (&a)[2][kTileM][kRow], const float (&b)[2][kTileN][kRow],
                                                   float (&sum)[2][kRows][kColumns], Between between) const {
    Operands parts[2];
#pragma unroll
    for (int part = 0; part < 2; ++part) read(a[part], b[part], parts[part]);
    between();
    multiply_complex_chunk<kWarpM / 16, kWarpN / 8, 2, kParts>(
        [&](int part, int i, int c, int e) { return parts[part].a[2 * i + e % 2][2 * c + e / 2]; },
        [&](int part, int j, int c, int e) { return parts[part].b[j][2 * c + e]; },
        [&](int part, int i, int j, int e) -> float & { return sum[part][2 * i + e / 2][2 * j + e % 2]; });
  }
};

// Of tiles that lie as [m][k] and [k][n]: read as those of TensorByColumns and of TensorByRows, with k in the order of the first.
template <int kWarpM, int kWarpN, int kWarpsM, int kWarpsN, int kParts>
struct TensorMixed {
  typedef TensorByColumns<kWarpM, kWarpN, kWarpsM, kWarpsN, kParts> ByColumns;
  typedef TensorByRows<kWarpM, kWarpN, kWarpsM, kWarpsN, kParts, 2> ByRows;
  static constexpr int kTileM = ByColumns::kTileM;
  static constexpr int kTileN = ByRows::kTileN;
  static constexpr int kThreads = ByRows::kThreads;
  static constexpr int kRows = ByColumns::kRows;
  static constexpr int kPieces = ByRows::kPieces;
  const ByColumns by_columns;
  const ByRows by_rows;

  __device__ __forceinline__ explicit TensorMixed(int thread) : by_columns(thread), by_rows(thread) {}
  __device__ __forceinline__ int row(int i) const { return by_columns.row(i); }
  __device__ __forceinline__ int column(int piece) const { return by_rows.column(piece); }
  // Lane t reads row 4 t and the three after it.
  __device__ __forceinline__ static int swizzle_n(int k) { return (k / 4 & 3) * 4; }

  __device__ __forceinline__ void multiply(const float (&a)[kTileM][16], const float (&b)[16][kTileN],
                                           float (&sum)[kRows][kPieces][4]) const {
    const int g = by_rows.g, t = by_rows.t;
    __align__(16) float a_values[kRows][4];
    __align__(16) float b_values[4][kWarpN / 8];
#pragma unroll
    for (int i = 0; i < kRows; ++i) *(float4 *)a_values[i] = *(const float4 *)&a[by_columns.warp_m + 8 * i + g][4 * t];
#pragma unroll
    for (int k = 0; k < 4; ++k)
#pragma unroll
      for (int j = 0; j < kWarpN / 32; ++j)
        *(float4 *)&b_values[k][4 * j] =
            *(const float4 *)&b[4 * t + k][(by_rows.warp_n + 32 * j + g % 2 * 16 + g / 2 * 4) ^ swizzle_n(4 * t)];
    multiply_chunk<kWarpM / 16, kWarpN / 8, 2, kParts>(
        [&](int i, int c, int e) { return a_values[2 * i + e % 2][2 * c + e / 2]; },
        [&](int j, int c, int e) { return b_values[2 * c + e][j]; },
        [&](int i, int j, int e) -> float & { return sum[2 * i + e / 2][j / 4 * 2 + e % 2][j % 4]; });
  }
};
