// Attention of one query a row to a cache, fp32: a step of decoding. What it costs is reading the cache from memory, so
// nothing is read but the keys between the first and the last that the row sees: a row that has ended costs nothing.
//
// Keys lie as [rows, heads, dim, keys], values as [rows, heads, keys, dim]: both are read from front to back.

#include "heads.h"

namespace {

constexpr int kQuads = 4;  // components of a query at a time, vectors of a value at a time

struct Recall {
  struct {
    int64_t rows, heads, dim, keys;
  } sizes;
  const float *query, *key, *value;
  const int32_t* mask;
  float scale;
  float* mixed;

  int64_t Floats() const { return Up(sizes.keys, kLanes); }

  void Run(int64_t row, int64_t head, Scratch& scratch) const {
    const int64_t dim = sizes.dim, at = row * sizes.heads + head;
    const int32_t* seen = mask + row * sizes.keys;
    float* out = mixed + at * dim;
    std::fill_n(out, dim, 0.0f);
    int64_t first = 0, last = sizes.keys;
    while (first < last && seen[first] == 0) ++first;
    while (last > first && seen[last - 1] == 0) --last;
    if (first == last) return;
    const int64_t count = last - first;
    float* weights = scratch.Take(Up(count, kLanes));
    std::fill_n(weights, Up(count, kLanes), 0.0f);
    Score(query + at * dim, key + at * dim * sizes.keys + first, count, weights);
    const float total = Softmax(seen + first, count, weights);
    for (int64_t d = 0; d < dim; d += kQuads * kLanes)
      Mix(seen + first, weights, count, value + (at * sizes.keys + first) * dim + d,
          std::min<int64_t>(dim - d, kQuads * kLanes), out + d);
    for (int64_t d = 0; d < dim; ++d) out[d] /= total;
  }

 private:
  // scores[count] = scale * query[dim] keys[dim][count]
  void Score(const float* q, const float* keys, int64_t count, float* scores) const {
    int64_t d = 0;
    for (; d + kQuads <= sizes.dim; d += kQuads) Add<kQuads>(q + d, keys + d * sizes.keys, count, scores);
    for (; d < sizes.dim; ++d) Add<1>(q + d, keys + d * sizes.keys, count, scores);
  }

  template <int N>
  void Add(const float* q, const float* keys, int64_t count, float* scores) const {
    float left[N];
    for (int i = 0; i < N; ++i) left[i] = scale * q[i];
    int64_t j = 0;
    for (; j + kLanes <= count; j += kLanes) {
      Vec sum = Load(scores + j);
      for (int i = 0; i < N; ++i) sum += Fill(left[i]) * Load(keys + i * sizes.keys + j);
      Store(scores + j, sum);
    }
    for (; j < count; ++j)
      for (int i = 0; i < N; ++i) scores[j] += left[i] * keys[i * sizes.keys + j];
  }

  // Scores to weights that are not yet divided by their sum, which it returns; 0 where the mask is.
  static float Softmax(const int32_t* seen, int64_t count, float* weights) {
    const int64_t padded = Up(count, kLanes);
    for (int64_t j = 0; j < padded; ++j)
      if (j >= count || seen[j] == 0) weights[j] = kMasked;
    Vec most = Fill(kFloor);
    for (int64_t j = 0; j < padded; j += kLanes) {
      const Vec score = Load(weights + j);
      most = Select(most < score, score, most);
    }
    const Vec top = Fill(Largest(most));
    Vec total = {};
    for (int64_t j = 0; j < padded; j += kLanes) {
      const Vec weight = Exp(Load(weights + j) - top);
      Store(weights + j, weight);
      total += weight;
    }
    return Sum(total);
  }

  // out[width] = weights[count] values[count][width]; width is kQuads vectors at most. Values are whole rows of `dim`.
  void Mix(const int32_t* seen, const float* weights, int64_t count, const float* values, int64_t width,
           float* out) const {
    if (width > 3 * kLanes) return MixVectors<4>(seen, weights, count, values, width, out);
    if (width > 2 * kLanes) return MixVectors<3>(seen, weights, count, values, width, out);
    if (width > kLanes) return MixVectors<2>(seen, weights, count, values, width, out);
    MixVectors<1>(seen, weights, count, values, width, out);
  }

  template <int N>
  void MixVectors(const int32_t* seen, const float* weights, int64_t count, const float* values, int64_t width,
                  float* out) const {
    // Whole vectors may read into the rows behind; the last rows have none, and go through a copy.
    const int64_t safe = std::max<int64_t>(0, count - (N * kLanes + sizes.dim - 1) / sizes.dim);
    Vec sums[N] = {};
    float copy[N * kLanes] = {};
    for (int64_t j = 0; j < count; ++j) {
      if (seen[j] == 0) continue;
      const float* from = values + j * sizes.dim;
      if (j >= safe) from = std::copy_n(from, width, copy) - width;
      const Vec weight = Fill(weights[j]);
      for (int i = 0; i < N; ++i) sums[i] += weight * Load(from + i * kLanes);
    }
    for (int64_t d = 0; d < width; ++d) out[d] = sums[d / kLanes][d % kLanes];
  }
};

ffi::Error RunRecall(ffi::ThreadPool pool, Floats query, Floats key, Floats value, Segments mask, float scale,
                     ffi::Result<Floats> mixed) {
  const auto k = key.dimensions();
  return ForEachHead(pool, Recall{{k[0], k[1], k[2], k[3]}, query.typed_data(), key.typed_data(), value.typed_data(),
                                  mask.typed_data(), scale, mixed->typed_data()});
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxspeech_recall, RunRecall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Segments>()
                                  .Attr<float>("scale")
                                  .Ret<Floats>());
