// The matrix products inside training's attention, and the layouts that they read.  For the training files of the
// instruction sets alone: everything is internal to the file that includes it (see isa.h).
//
// All of them are C [m, n] (+)= A [m, k] · B [k, n] over 4-byte units along k: one float32, or two neighbouring bf16
// that an instruction multiplies and adds at once.  Units U have
//
//   V                        the vectors (training_vectors.h)
//   elements                 of a unit: 1 or 2
//   multiply_add             a unit of A in all lanes, a vector of B's
//   store store_some         elements as units, the latter from some element of a row on
//   zip                      if of two: units of the elements of two vectors in turn
#pragma once

#include "kernels/training_vectors.h"

namespace photon::training {
namespace {

// Units of one float32.
template <class Vectors>
struct Singles {
  using V = Vectors;
  static constexpr int elements = 1;
  static typename V::Floats multiply_add(u32 a, typename V::Words b, typename V::Floats sum) {
    return __builtin_bit_cast(float, a) * reinterpret_cast<typename V::Floats>(b) + sum;
  }
  static void store(u32* units, typename V::Floats x) { V::store(units, reinterpret_cast<typename V::Words>(x)); }
  static void store_some(u32* row, i64 element, typename V::Floats x, int n) {
    V::store_some(reinterpret_cast<float*>(row) + element, x, n);
  }
};

constexpr i64 group_rows = 8;  // rows are visited, padded and masked in groups
constexpr i64 tile_keys = 64;  // keys per tile: scores of a tile stay in the L1 cache
template <class V>
constexpr i64 block_queries = 2 * V::lanes;  // queries per block
template <class V>
constexpr i64 row_pad = V::lanes < 8 ? 8 : V::lanes;  // of rows of units

constexpr i64 round_up(i64 n, i64 multiple) { return (n + multiple - 1) / multiple * multiple; }

// Sizes in units of rows of one head.
template <class U>
struct HeadShape {
  i64 h, units, row, wide;  // elements; units of a row; its padded length; the padded length of a row of elements
  explicit HeadShape(i64 head_dim)
      : h(head_dim),
        units((h + U::elements - 1) / U::elements),
        row(round_up(units, row_pad<typename U::V>)),
        wide(round_up(h, row_pad<typename U::V>)) {}
};

// C [tile_rows, vectors·lanes] of the product above; strides in 4-byte units.
template <class U, int vectors, bool add>
void multiply_tile(const u32* a, i64 a_stride, const u32* b, i64 b_stride, i64 k, float* c, i64 c_stride) {
  using V = typename U::V;
  constexpr int rows = V::tile_rows, lanes = V::lanes;
  typename V::Floats sum[rows][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) sum[r][v] = add ? V::load(c + r * c_stride + v * lanes) : typename V::Floats{};
  }
  for (i64 u = 0; u < k; ++u) {
    typename V::Words row[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) row[v] = V::load(b + u * b_stride + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) sum[r][v] = U::multiply_add(a[r * a_stride + u], row[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) V::store(c + r * c_stride + v * lanes, sum[r][v]);
  }
}

// m a multiple of group_rows, n of lanes.
template <class U, bool add>
void multiply(i64 m, i64 n, i64 k, const u32* a, i64 a_stride, const u32* b, i64 b_stride, float* c, i64 c_stride) {
  constexpr i64 rows = U::V::tile_rows, lanes = U::V::lanes;
  static_assert(group_rows % rows == 0);
  for (i64 column = 0; column < n; column += 2 * lanes) {
    for (i64 r = 0; r < m; r += rows) {
      const auto tile = n - column > lanes ? multiply_tile<U, 2, add> : multiply_tile<U, 1, add>;
      tile(a + r * a_stride, a_stride, b + column, b_stride, k, c + r * c_stride + column, c_stride);
    }
  }
}

// dst [columns, rows] = src [rows, columns]ᵀ; both counts multiples of lanes.
template <class V>
void transpose(const u32* src, i64 src_stride, i64 rows, i64 columns, u32* dst, i64 dst_stride) {
  using Words = typename V::Words;
  constexpr int lanes = V::lanes;
  for (i64 row = 0; row < rows; row += lanes) {
    for (i64 column = 0; column < columns; column += lanes) {
      Words x[lanes];
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) x[i] = V::load(src + (row + i) * src_stride + column);
        // Each round rotates the bits of an element's (row, column) index by one.
#pragma GCC unroll 4
      for (int round = 1; round < lanes; round *= 2) {
        Words y[lanes];
#pragma GCC unroll 8
        for (int i = 0; i < lanes / 2; ++i) {
          y[2 * i] = V::zip_low(x[i], x[i + lanes / 2]);
          y[2 * i + 1] = V::zip_high(x[i], x[i + lanes / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) x[i] = y[i];
      }
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) V::store(dst + (column + i) * dst_stride + row, x[i]);
    }
  }
}

// n rows of `wide` floats, transposed from the lanes.
template <class V>
void queries_to_rows(const float* lanes, i64 n_lanes, i64 wide, float* rows) {
  transpose<V>(reinterpret_cast<const u32*>(lanes), block_queries<V>, wide, n_lanes, reinterpret_cast<u32*>(rows),
               wide);
}

// Rows of units [n, row] become the B operand of a product along n: [n/elements, wide], neighbouring rows zipped.
template <class U>
const u32* interleave(const u32* rows, i64 n, const HeadShape<U>& shape, u32* zipped) {
  using V = typename U::V;
  if constexpr (U::elements == 1) {
    return rows;
  } else {
    for (i64 s = 0; s < n; s += 2) {
      const u32 *even = rows + s * shape.row, *odd = even + shape.row;
      u32* to = zipped + s / 2 * shape.wide;
      for (i64 i = 0; 2 * i < shape.wide; i += V::lanes) {
        const typename V::Words a = V::load(even + i), b = V::load(odd + i);
        const typename V::Words low = (a & 0xffffu) | (b << 16), high = (a >> 16) | (b & 0xffff0000u);
        V::store(to + 2 * i, V::zip_low(low, high));
        if (2 * i + V::lanes < shape.wide) V::store(to + 2 * i + V::lanes, V::zip_high(low, high));
      }
    }
    return zipped;
  }
}

// Rows of units to the A operand of products along the rows: per tile of tile_keys rows one [wide, tile_keys/elements].
template <class U>
void transpose_tiles(const u32* rows, i64 n, const HeadShape<U>& shape, u32* zipped, u32* tiles) {
  constexpr i64 units = tile_keys / U::elements;
  for (i64 s = 0; s < n; s += tile_keys) {
    const i64 left = n - s < tile_keys ? n - s : tile_keys;
    const u32* operand = interleave<U>(rows + s * shape.row, left, shape, zipped);
    transpose<typename U::V>(operand, shape.wide, left / U::elements, shape.wide,
                             tiles + s / tile_keys * shape.wide * units, units);
  }
}

// Two neighbouring rows of the B operand of a product along the rows.
template <class U>
void store_two_rows(u32* b, i64 row, typename U::V::Floats even, typename U::V::Floats odd) {
  using V = typename U::V;
  constexpr i64 stride = block_queries<V>;
  if constexpr (U::elements == 1) {
    V::store(b + row * stride, reinterpret_cast<typename V::Words>(even));
    V::store(b + (row + 1) * stride, reinterpret_cast<typename V::Words>(odd));
  } else {
    V::store(b + row / 2 * stride, U::zip(even, odd));
  }
}

}  // namespace
}  // namespace photon::training
