// Attention within segments on CPUs, fp32, forward and backward: two targets of XLA's foreign function interface.
//
// One head of one row is one piece of work, done by one thread from beginning to end: results do not depend on how many
// threads there are. Queries go through in blocks, so that the scores of a block stay in the second-level cache and are
// never written out whole. Of the keys only those between the first and the last that any query of the block sees are
// looked at: padding and other segments of a packed row cost nothing. All products are sums of kTile x (3 vectors).
// Forward keeps the logarithm of each softmax's denominator, from which backward computes the weights again (Dao et al.
// 2022, arXiv 2205.14135).

#include "heads.h"

namespace {

constexpr int kColumns = 3;                     // vectors of a tile
constexpr int64_t kStep = 16;                   // keys are counted in these: whole vectors, whole tiles
constexpr int64_t kScoreBytes = 512 * 1024;     // of a block of queries, weights and their gradients together
constexpr int64_t kMaxQueries = 64;             // of a block

// c[kTile][N vectors] = (c if Add) + a[kTile][depth] b[depth][N vectors]; a is read at row * a_row + depth * a_column.
template <int N, bool Add>
inline void Tile(int64_t depth, const float* a, int64_t a_row, int64_t a_column, const float* b, int64_t b_row,
                 float* c, int64_t c_row) {
  Vec sums[kTile][N];
#pragma GCC unroll 8
  for (int i = 0; i < kTile; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < N; ++j) sums[i][j] = Add ? Load(c + i * c_row + j * kLanes) : Vec{};
  for (int64_t k = 0; k < depth; ++k, a += a_column, b += b_row) {
    Vec right[N];
#pragma GCC unroll 3
    for (int j = 0; j < N; ++j) right[j] = Load(b + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kTile; ++i) {
      const Vec left = Fill(a[i * a_row]);
#pragma GCC unroll 3
      for (int j = 0; j < N; ++j) sums[i][j] += left * right[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kTile; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < N; ++j) Store(c + i * c_row + j * kLanes, sums[i][j]);
}

// The same of any number of rows (a multiple of kTile) and columns (a multiple of kLanes).
template <bool Add>
void Multiply(int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t a_row, int64_t a_column,
              const float* b, int64_t b_row, float* c, int64_t c_row) {
  for (int64_t left = columns / kLanes, at = 0; left > 0;) {
    const int64_t take = std::min<int64_t>(left, left == kColumns + 1 ? 2 : kColumns);  // 4 are 2 and 2
    for (int64_t i = 0; i < rows; i += kTile) {
      const float* from = a + i * a_row;
      float* to = c + i * c_row + at;
      if (take == 3) Tile<3, Add>(depth, from, a_row, a_column, b + at, b_row, to, c_row);
      if (take == 2) Tile<2, Add>(depth, from, a_row, a_column, b + at, b_row, to, c_row);
      if (take == 1) Tile<1, Add>(depth, from, a_row, a_column, b + at, b_row, to, c_row);
    }
    left -= take;
    at += take * kLanes;
  }
}

// Sizes of the arrays [rows, time, heads, dim] and of a thread's copies of one head.
struct Sizes {
  int64_t rows, queries, keys, heads, dim;
  int64_t padded_dim;   // whole vectors, and not below the next
  int64_t tiled_dim;    // whole tiles
  int64_t padded_keys;  // whole steps and an odd number of them, so that columns do not share the places of a cache
  int64_t block;  // queries
  bool causal;
  float scale;

  Sizes(int64_t rows, int64_t queries, int64_t keys, int64_t heads, int64_t dim, bool causal, float scale)
      : rows(rows), queries(queries), keys(keys), heads(heads), dim(dim), causal(causal), scale(scale) {
    padded_dim = Up(dim, std::max(kLanes, kTile));
    tiled_dim = Up(dim, kTile);
    padded_keys = (Up(keys, kStep) / kStep | 1) * kStep;
    block = kScoreBytes / (2 * 4 * padded_keys) / kTile * kTile;
    block = std::max<int64_t>(kTile, std::min(block, kMaxQueries));
  }
  // Where [row, 0, head, 0] of an array of so many places stands, and how far its places are apart.
  int64_t Start(int64_t row, int64_t head, int64_t places) const { return (row * places * heads + head) * dim; }
  int64_t Stride() const { return heads * dim; }
};

// [places, dim] of a head, each number times `factor` -> [padded places, padded dim]; zeros around, and for places of
// nobody (segment 0), whatever stands there.
void Pack(const float* from, const int32_t* segments, int64_t places, int64_t padded_places, const Sizes& s,
          float factor, float* to) {
  for (int64_t i = 0; i < padded_places; ++i, to += s.padded_dim) {
    int64_t d = 0;
    if (i < places && segments[i] > 0)
      for (; d < s.dim; ++d) to[d] = factor * from[i * s.Stride() + d];
    std::fill(to + d, to + s.padded_dim, 0.0f);
  }
}

// [keys, dim] of a head -> [dim, padded keys], zeros likewise.
void PackTransposed(const float* from, const int32_t* segments, const Sizes& s, float* to) {
  for (int64_t d = 0; d < s.dim; ++d) std::fill(to + d * s.padded_keys + s.keys, to + (d + 1) * s.padded_keys, 0.0f);
  for (int64_t i = 0; i < s.keys; ++i) {
    const bool someone = segments[i] > 0;
    for (int64_t d = 0; d < s.dim; ++d) to[d * s.padded_keys + i] = someone ? from[i * s.Stride() + d] : 0.0f;
  }
}

// What a block of queries sees: the keys of [first, last), of them those of the query's segment.
struct Block {
  int64_t start, count, rows;  // rows: count up to whole tiles
  int64_t first, last;

  int64_t width() const { return last - first; }
};

Block Look(const Sizes& s, int64_t start, const int32_t* query_segments, const int32_t* key_segments) {
  Block b;
  b.start = start;
  b.count = std::min(s.block, s.queries - start);
  b.rows = Up(b.count, kTile);
  int64_t first = s.keys, last = 0;
  const int64_t end = s.causal ? std::min(s.keys, start + b.count) : s.keys;
  int32_t before = 0;
  for (int64_t i = start; i < start + b.count; ++i) {
    const int32_t segment = query_segments[i];
    if (segment <= 0 || segment == before) continue;
    before = segment;
    int64_t from = 0, to = end;
    while (from < end && key_segments[from] != segment) ++from;
    while (to > from && key_segments[to - 1] != segment) --to;
    if (from == to) continue;
    first = std::min(first, from);
    last = std::max(last, to);
  }
  b.first = first < last ? first / kStep * kStep : 0;
  b.last = first < last ? Up(last, kStep) : 0;
  return b;
}

// Which of the keys from `at` on the query number `query` sees.
inline Ints Seen(bool causal, int64_t query, int32_t segment, const int32_t* key_segments, int64_t at) {
  Ints seen = Load(key_segments + at) == Fill(segment > 0 ? segment : -1);
  if (causal) {
    Ints place = {};
    for (int i = 0; i < kLanes; ++i) place[i] = i;
    seen &= place <= Fill(static_cast<int32_t>(query - at));
  }
  return seen;
}

struct Forward {
  Sizes sizes;
  const float *query, *key, *value;
  const int32_t *query_segments, *key_segments;
  float *mixed, *normaliser;

  int64_t Floats() const {
    const Sizes& s = sizes;
    return s.padded_keys * (s.dim + s.padded_dim + s.block + 1) + 2 * s.block * s.padded_dim;
  }

  void Run(int64_t row, int64_t head, Scratch& scratch) const {
    const Sizes& s = sizes;
    const float* q = query + s.Start(row, head, s.queries);
    const int64_t keys_at = s.Start(row, head, s.keys);
    float* keys = scratch.Take(s.dim * s.padded_keys);
    float* values = scratch.Take(s.padded_keys * s.padded_dim);
    float* scores = scratch.Take(s.block * s.padded_keys);
    float* queries = scratch.Take(s.block * s.padded_dim);
    float* sums = scratch.Take(s.block * s.padded_dim);
    int32_t* segments = reinterpret_cast<int32_t*>(scratch.Take(s.padded_keys));
    std::memset(segments, 0, s.padded_keys * sizeof(int32_t));
    std::memcpy(segments, key_segments + row * s.keys, s.keys * sizeof(int32_t));
    PackTransposed(key + keys_at, segments, s, keys);
    Pack(value + keys_at, segments, s.keys, s.padded_keys, s, 1.0f, values);
    const int32_t* mine = query_segments + row * s.queries;
    float* out = mixed + s.Start(row, head, s.queries);
    float* logs = normaliser + (row * s.heads + head) * s.queries;

    for (int64_t start = 0; start < s.queries; start += s.block) {
      const Block b = Look(s, start, mine, segments);
      Pack(q + start * s.Stride(), mine + start, b.count, b.rows, s, s.scale, queries);
      Multiply<false>(b.rows, b.width(), s.dim, queries, s.padded_dim, 1, keys + b.first, s.padded_keys, scores,
               s.padded_keys);
      float totals[kMaxQueries];
      for (int64_t i = 0; i < b.rows; ++i) {
        float* line = scores + i * s.padded_keys;
        const int32_t segment = i < b.count ? mine[start + i] : 0;
        Vec most = Fill(kFloor);
        for (int64_t j = 0; j < b.width(); j += kLanes) {
          const Ints seen = Seen(s.causal, start + i, segment, segments, b.first + j);
          const Vec score = Select(seen, Load(line + j), Fill(kMasked));
          Store(line + j, score);
          most = Select(most < score, score, most);
        }
        const float top = Largest(most);
        Vec total = {};
        for (int64_t j = 0; j < b.width(); j += kLanes) {
          const Vec weight = Exp(Load(line + j) - Fill(top));
          Store(line + j, weight);
          total += weight;
        }
        totals[i] = Sum(total);
        if (totals[i] == 0) totals[i] = 1;
        if (i < b.count) logs[start + i] = top + std::log(totals[i]);
      }
      Multiply<false>(b.rows, s.padded_dim, b.width(), scores, s.padded_keys, 1, values + b.first * s.padded_dim,
               s.padded_dim, sums, s.padded_dim);
      for (int64_t i = 0; i < b.count; ++i)
        for (int64_t d = 0; d < s.dim; ++d)
          out[(start + i) * s.Stride() + d] = sums[i * s.padded_dim + d] / totals[i];
    }
  }
};

struct Backward {
  Sizes sizes;
  const float *query, *key, *value;
  const int32_t *query_segments, *key_segments;
  const float *mixed, *normaliser, *d_mixed;
  float *d_query, *d_key, *d_value;

  int64_t Floats() const {
    const Sizes& s = sizes;
    return s.padded_keys * (2 * s.dim + s.padded_dim + 2 * s.tiled_dim + 2 * s.block + 1) + 3 * s.block * s.padded_dim;
  }

  void Run(int64_t row, int64_t head, Scratch& scratch) const {
    const Sizes& s = sizes;
    const int64_t queries_at = s.Start(row, head, s.queries), keys_at = s.Start(row, head, s.keys);
    float* keys_transposed = scratch.Take(s.dim * s.padded_keys);
    float* values_transposed = scratch.Take(s.dim * s.padded_keys);
    float* keys = scratch.Take(s.padded_keys * s.padded_dim);
    float* d_keys = scratch.Take(s.tiled_dim * s.padded_keys);  // both transposed: fewer zeros to pad than lanes
    float* d_values = scratch.Take(s.tiled_dim * s.padded_keys);
    float* weights = scratch.Take(s.block * s.padded_keys);
    float* d_scores = scratch.Take(s.block * s.padded_keys);
    float* queries = scratch.Take(s.block * s.padded_dim);
    float* d_outputs = scratch.Take(s.block * s.padded_dim);
    float* d_queries = scratch.Take(s.block * s.padded_dim);
    int32_t* segments = reinterpret_cast<int32_t*>(scratch.Take(s.padded_keys));
    std::memset(segments, 0, s.padded_keys * sizeof(int32_t));
    std::memcpy(segments, key_segments + row * s.keys, s.keys * sizeof(int32_t));
    PackTransposed(key + keys_at, segments, s, keys_transposed);
    PackTransposed(value + keys_at, segments, s, values_transposed);
    Pack(key + keys_at, segments, s.keys, s.padded_keys, s, s.scale, keys);
    std::memset(d_keys, 0, s.tiled_dim * s.padded_keys * sizeof(float));
    std::memset(d_values, 0, s.tiled_dim * s.padded_keys * sizeof(float));
    const int32_t* mine = query_segments + row * s.queries;
    const float* logs = normaliser + (row * s.heads + head) * s.queries;

    for (int64_t start = 0; start < s.queries; start += s.block) {
      const Block b = Look(s, start, mine, segments);
      const int64_t at = queries_at + start * s.Stride();
      Pack(query + at, mine + start, b.count, b.rows, s, s.scale, queries);
      Pack(d_mixed + at, mine + start, b.count, b.rows, s, 1.0f, d_outputs);
      Multiply<false>(b.rows, b.width(), s.dim, queries, s.padded_dim, 1, keys_transposed + b.first, s.padded_keys, weights,
               s.padded_keys);
      Multiply<false>(b.rows, b.width(), s.dim, d_outputs, s.padded_dim, 1, values_transposed + b.first, s.padded_keys,
               d_scores, s.padded_keys);
      for (int64_t i = 0; i < b.rows; ++i) {
        const bool real = i < b.count;
        const int32_t segment = real ? mine[start + i] : 0;
        // d softmax = weights * (d weights - correction)
        const float correction = real ? Dot(mixed + at + i * s.Stride(), d_outputs + i * s.padded_dim, s.dim) : 0;
        const float log = real ? logs[start + i] : 0;
        float *line = weights + i * s.padded_keys, *d_line = d_scores + i * s.padded_keys;
        for (int64_t j = 0; j < b.width(); j += kLanes) {
          const Ints seen = Seen(s.causal, start + i, segment, segments, b.first + j);
          const Vec weight = Select(seen, Exp(Load(line + j) - Fill(log)), Vec{});
          Store(line + j, weight);
          Store(d_line + j, weight * (Load(d_line + j) - Fill(correction)));
        }
      }
      Multiply<false>(b.rows, s.padded_dim, b.width(), d_scores, s.padded_keys, 1, keys + b.first * s.padded_dim,
               s.padded_dim, d_queries, s.padded_dim);
      Multiply<true>(s.tiled_dim, b.width(), b.rows, queries, 1, s.padded_dim, d_scores, s.padded_keys, d_keys + b.first,
               s.padded_keys);
      Multiply<true>(s.tiled_dim, b.width(), b.rows, d_outputs, 1, s.padded_dim, weights, s.padded_keys, d_values + b.first,
               s.padded_keys);
      for (int64_t i = 0; i < b.count; ++i)
        std::copy_n(d_queries + i * s.padded_dim, s.dim, d_query + at + i * s.Stride());
    }
    for (int64_t i = 0; i < s.keys; ++i)
      for (int64_t d = 0; d < s.dim; ++d) {
        d_key[keys_at + i * s.Stride() + d] = d_keys[d * s.padded_keys + i];
        d_value[keys_at + i * s.Stride() + d] = d_values[d * s.padded_keys + i];
      }
  }
};

Sizes SizesOf(const Floats& query, const Floats& key, bool causal, float scale) {
  const auto q = query.dimensions(), k = key.dimensions();
  return Sizes(q[0], q[1], k[1], q[2], q[3], causal, scale);
}

ffi::Error RunForward(ffi::ThreadPool pool, Floats query, Floats key, Floats value, Segments query_segments,
                      Segments key_segments, bool causal, float scale, ffi::Result<Floats> mixed,
                      ffi::Result<Floats> normaliser) {
  return ForEachHead(pool, Forward{SizesOf(query, key, causal, scale), query.typed_data(), key.typed_data(),
                                   value.typed_data(), query_segments.typed_data(), key_segments.typed_data(),
                                   mixed->typed_data(), normaliser->typed_data()});
}

ffi::Error RunBackward(ffi::ThreadPool pool, Floats query, Floats key, Floats value, Segments query_segments,
                       Segments key_segments, Floats mixed, Floats normaliser, Floats d_mixed, bool causal, float scale,
                       ffi::Result<Floats> d_query, ffi::Result<Floats> d_key, ffi::Result<Floats> d_value) {
  return ForEachHead(
      pool, Backward{SizesOf(query, key, causal, scale), query.typed_data(), key.typed_data(), value.typed_data(),
                     query_segments.typed_data(), key_segments.typed_data(), mixed.typed_data(),
                     normaliser.typed_data(), d_mixed.typed_data(), d_query->typed_data(), d_key->typed_data(),
                     d_value->typed_data()});
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxspeech_attention_forward, RunForward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Segments>()
                                  .Arg<Segments>()
                                  .Attr<bool>("causal")
                                  .Attr<float>("scale")
                                  .Ret<Floats>()
                                  .Ret<Floats>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxspeech_attention_backward, RunBackward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Segments>()
                                  .Arg<Segments>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Attr<bool>("causal")
                                  .Attr<float>("scale")
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
