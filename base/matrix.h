// MatView borrows a row-major matrix, Matrix owns one (64-byte aligned): the currency of kernels/ and engine/.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <type_traits>

namespace photon {

template <class T>
struct MatView {  // row-major [rows, cols]; borrows, never owns; passed by value
  T* data = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0;  // stride in elements, >= cols

  std::span<T> row(std::int64_t r) const {
    assert(0 <= r && r < rows);
    return {data + r * stride, static_cast<std::size_t>(cols)};
  }
  MatView slice(std::int64_t first, std::int64_t n) const {  // rows [first, first + n)
    assert(0 <= first && 0 <= n && first + n <= rows);
    return {data + first * stride, n, cols, stride};
  }
  MatView columns(std::int64_t first, std::int64_t n) const {  // [first, first + n)
    assert(0 <= first && 0 <= n && first + n <= cols);
    return {data + first, rows, n, stride};
  }
  operator MatView<const T>() const
    requires(!std::is_const_v<T>)
  {
    return {data, rows, cols, stride};
  }
};

/// Owner of a zero-initialised, contiguous, 64-byte aligned row-major matrix.  resize() keeps capacity, not contents.
template <class T>
class Matrix {
 public:
  Matrix() = default;
  Matrix(std::int64_t rows, std::int64_t cols) { resize(rows, cols); }

  void resize(std::int64_t rows, std::int64_t cols) {
    assert(rows >= 0 && cols >= 0);
    const auto n = static_cast<std::size_t>(rows * cols);
    if (n > capacity_) {
      data_.reset(new (std::align_val_t{64}) T[n]());
      capacity_ = n;
    }
    rows_ = rows, cols_ = cols;
  }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::span<T> row(std::int64_t r) { return view().row(r); }
  std::span<const T> row(std::int64_t r) const { return view().row(r); }
  MatView<T> view() { return {data_.get(), rows_, cols_, cols_}; }
  MatView<const T> view() const { return {data_.get(), rows_, cols_, cols_}; }
  operator MatView<T>() { return view(); }
  operator MatView<const T>() const { return view(); }

 private:
  struct Delete {
    void operator()(T* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  static_assert(std::is_trivially_destructible_v<T>);
  std::unique_ptr<T[], Delete> data_;
  std::size_t capacity_ = 0;
  std::int64_t rows_ = 0, cols_ = 0;
};

}  // namespace photon
