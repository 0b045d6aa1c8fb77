// What the kernels share: vectors of this processor, memory of a thread, and work spread over threads by heads.

#ifndef JAXSPEECH_OPS_NATIVE_HEADS_H_
#define JAXSPEECH_OPS_NATIVE_HEADS_H_

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

// As many accumulators as fit the registers beside what they are made of: kTile x 3 of 32 (AVX-512, NEON) or 16.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kTile = 8;
#elif defined(__AVX__)
constexpr int kLanes = 8, kTile = 4;
#elif defined(__aarch64__)
constexpr int kLanes = 4, kTile = 8;
#else
constexpr int kLanes = 4, kTile = 4;
#endif
constexpr float kFloor = -1e20f;                // largest score of a query without any key
constexpr float kMasked = -1e30f;               // score of a key that is not seen

typedef float Vec __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

inline Vec Load(const float* from) { return *reinterpret_cast<const Vec*>(from); }
inline Ints Load(const int32_t* from) { return *reinterpret_cast<const Ints*>(from); }
inline void Store(float* to, Vec x) { *reinterpret_cast<Vec*>(to) = x; }
inline Vec Fill(float x) { return x - Vec{}; }  // not 0 + x: of -0 that would be a sum
inline Ints Fill(int32_t x) { return x - Ints{}; }
inline Vec Select(Ints mask, Vec yes, Vec no) { return mask ? yes : no; }

constexpr int64_t Up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// e^x to about 1e-7 of itself; 0 below -87, where fp32 ends. NaN stays NaN.
inline Vec Exp(Vec x) {
  const Ints gone = x < Fill(-87.0f);
  x = Select(gone, Fill(-87.0f), x);
  // x = n ln 2 + r, |r| <= ln 2 / 2: adding 1.5 * 2^23 rounds to the whole number n and leaves it in the last bits.
  const Vec magic = Fill(12582912.0f);
  const Vec shifted = x * Fill(1.44269504f) + magic;
  const Vec n = shifted - magic;
  Vec r = x - n * Fill(0.693359375f);  // ln 2 in two parts; the first times n is exact
  r = r - n * Fill(-2.12194440e-4f);
  Vec y = Fill(1.0f / 5040);  // Taylor's series: the next term is below 6e-9
  y = y * r + Fill(1.0f / 720);
  y = y * r + Fill(1.0f / 120);
  y = y * r + Fill(1.0f / 24);
  y = y * r + Fill(1.0f / 6);
  y = y * r + Fill(0.5f);
  y = y * r + Fill(1.0f);
  y = y * r + Fill(1.0f);
  const Ints bits = reinterpret_cast<Ints>(shifted) - reinterpret_cast<Ints>(magic);
  const Vec power = reinterpret_cast<Vec>((bits + 127) << 23);
  return Select(gone, Fill(0.0f), y * power);
}

inline float Sum(Vec x) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += x[i];
  return total;
}

inline float Dot(const float* a, const float* b, int64_t n) {
  Vec sums = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sums += Load(a + i) * Load(b + i);
  float total = Sum(sums);
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

inline float Largest(Vec x) {
  float most = x[0];
  for (int i = 1; i < kLanes; ++i) most = std::max(most, x[i]);
  return most;
}

// Memory of one thread, in pieces that begin at cache lines. Kept from call to call: fresh pages cost more than the sums.
class Scratch {
 public:
  static Scratch& OfThisThread(int64_t floats) {
    static thread_local Scratch scratch;
    const size_t bytes = Up(floats * 4 + 64 * kPieces, 64);
    if (scratch.bytes_ < bytes) {
      scratch.memory_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
      scratch.bytes_ = scratch.memory_ == nullptr ? 0 : bytes;
      if (scratch.memory_ == nullptr) throw std::bad_alloc();
    }
    scratch.next_ = scratch.memory_.get();
    return scratch;
  }
  float* Take(int64_t floats) {
    float* piece = next_;
    next_ += Up(floats, 16);
    return piece;
  }

 private:
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  static constexpr int64_t kPieces = 16;
  std::unique_ptr<float, Free> memory_;
  size_t bytes_ = 0;
  float* next_ = nullptr;
};

// Runs each head of each row once, on the caller's thread and on those of the pool that are free.
template <typename Work>
ffi::Error ForEachHead(ffi::ThreadPool& pool, const Work& work) {
  struct State {
    explicit State(const Work& work) : work(work), total(work.sizes.rows * work.sizes.heads) {}
    const Work work;
    const int64_t total;
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex mutex;
    std::condition_variable changed;
    int64_t done = 0;

    void Help() {
      for (int64_t i; (i = next.fetch_add(1)) < total;) {
        try {
          Scratch& scratch = Scratch::OfThisThread(work.Floats());
          // Rows first: two heads of a row share cache lines, in which two threads would get in each other's way.
          work.Run(i % work.sizes.rows, i / work.sizes.rows, scratch);
        } catch (const std::bad_alloc&) {
          failed = true;
        }
        std::lock_guard<std::mutex> lock(mutex);
        if (++done == total) changed.notify_all();
      }
    }
  };
  // Owned by whoever comes last: a task may begin when all is done, and finds nothing to do.
  auto state = std::make_shared<State>(work);
  const int64_t helpers = std::min(pool.num_threads(), state->total) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([state] { state->Help(); });
  state->Help();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->changed.wait(lock, [&] { return state->done == state->total; });
  if (state->failed) return ffi::Error(ffi::ErrorCode::kResourceExhausted, "attention: no memory for a head's scores");
  return ffi::Error::Success();
}

using Floats = ffi::Buffer<ffi::F32>;
using Segments = ffi::Buffer<ffi::S32>;

}  // namespace

#endif  // JAXSPEECH_OPS_NATIVE_HEADS_H_
