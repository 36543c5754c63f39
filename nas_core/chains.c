/* Depthwise and pointwise convolutions in one pass over each image; compiled.py builds and calls this.
 *
 * A stage takes a map (optionally: batch norm and ReLU of it), convolves it depthwise and then pointwise. Several ops of
 * one shape are done in one call. Maps are (n, h, w, c), dense; weights of a depthwise convolution (c, k, k), of a
 * pointwise one (oc, c). Inside, channels are filled up with zeros to whole vectors (`wide`). Images are shared out among
 * threads; what is summed over images is summed in the same order whenever the number of threads is the same.
 */
#ifndef T

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { X, MEAN, INVERSE, DEPTH, POINT, Y,        /* forward */
       G, G_OF, G_MEAN, G_INVERSE, G_SHIFT, G_SCALE, /* the gradient, or what a batch norm makes it of */
       DX, SHIFT, SCALE, D_DEPTH, D_POINT, POINTERS };

typedef struct {
    int32_t ops, n, h, w, c, oh, ow, oc, k, stride, padding, dilation, threads;
    int32_t learn;  /* whether gradients by the weights are wanted */
    int32_t add;    /* whether all ops share DX, which gets their sum */
} stage;

/* What OpenMP has: work for a team of threads, which of them one is, and how many there are. */
typedef void parallel(void (*)(void *), void *, unsigned, unsigned);
typedef int number(void);
typedef struct {
    parallel *start;
    number *me, *all;
} openmp;

/* Scratch memory of a thread, which it keeps. */
static __thread char *kept;
static __thread size_t size;

static char *scratch(size_t bytes) {
    if (bytes > size) {
        free(kept);
        kept = aligned_alloc(64, (bytes + 63) / 64 * 64);
        size = kept ? bytes : 0;
    }
    return kept;
}

#define JOINED(a, b) a##_##b
#define NAMED(a, b) JOINED(a, b)
#define T float
#include "chains.c"
#undef T
#define T double
#include "chains.c"

#else

#define N(name) NAMED(name, T)
#define LANES ((int)(32 / sizeof(T)))
#define INLINE static inline __attribute__((always_inline))
typedef T N(vec) __attribute__((vector_size(32), aligned(sizeof(T)), may_alias));
#define VEC N(vec)
#define BITS __typeof__((VEC){0} > 0)
#define AT(p) (*(VEC *)(p))
#define FROM(p) (*(const VEC *)(p))

typedef struct {
    const stage *s;
    void *const *pointers; /* (ops, POINTERS) */
    T *partial;            /* (threads, sums of a thread) */
    size_t sums;
    const openmp *team; /* NULL: one thread does it all */
    int failed;
} N(work);

/* `count` pixels of one block of channels: the taps of a k x k window, of `from` into `to`. */
INLINE void N(pixels)(const T *from, size_t line, size_t step, const T *taps, T *to, int c, int k, size_t apart,
                      int count) {
    VEC sums[8];
    for (int p = 0; p < count; p++) sums[p] = (VEC){0};
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) {
            const VEC tap = FROM(taps + (size_t)(i * k + j) * c);
            const T *here = from + i * line + j * apart;
            for (int p = 0; p < count; p++) sums[p] += tap * FROM(here + p * step);
        }
    for (int p = 0; p < count; p++) AT(to + (size_t)p * c) = sums[p];
}

INLINE void N(row_of)(const T *from, size_t line, int stride, const T *taps, T *to, int w, int c, int k, int dilation) {
    for (int b = 0; b < c; b += LANES) {
        const size_t step = (size_t)stride * c, apart = (size_t)dilation * c, down = dilation * line;
        int x = 0;
        for (; x + 8 <= w; x += 8)
            N(pixels)(from + x * step + b, down, step, taps + b, to + (size_t)x * c + b, c, k, apart, 8);
        for (; x < w; x++)
            N(pixels)(from + x * step + b, down, step, taps + b, to + (size_t)x * c + b, c, k, apart, 1);
    }
}

/* One row of a depthwise convolution; the sizes that are usual are compiled by themselves. */
static void N(depthwise)(const T *from, size_t line, int stride, const T *taps, T *to, int w, int c, int k, int dilation) {
    if (k == 3) N(row_of)(from, line, stride, taps, to, w, c, 3, dilation);
    else if (k == 5) N(row_of)(from, line, stride, taps, to, w, c, 5, dilation);
    else N(row_of)(from, line, stride, taps, to, w, c, k, dilation);
}

/* to (rows, columns) = from (rows, inner) * by (inner, columns), a block of it. */
INLINE void N(block)(const T *from, const T *by, T *to, int inner, int columns, int rows, int vecs) {
    VEC sums[4][2];
    for (int r = 0; r < rows; r++) for (int v = 0; v < vecs; v++) sums[r][v] = (VEC){0};
    for (int i = 0; i < inner; i++)
        for (int v = 0; v < vecs; v++) {
            const VEC b = FROM(by + (size_t)i * columns + v * LANES);
            for (int r = 0; r < rows; r++) sums[r][v] += from[(size_t)r * inner + i] * b;
        }
    for (int r = 0; r < rows; r++) for (int v = 0; v < vecs; v++) AT(to + (size_t)r * columns + v * LANES) = sums[r][v];
}

static void N(product)(const T *from, const T *by, T *to, int rows, int inner, int columns) {
    for (int b = 0; b < columns;) {
        const int two = b + 2 * LANES <= columns;
        int r = 0;
        for (; r + 4 <= rows; r += 4) {
            const T *f = from + (size_t)r * inner;
            T *t = to + (size_t)r * columns + b;
            if (two) N(block)(f, by + b, t, inner, columns, 4, 2);
            else N(block)(f, by + b, t, inner, columns, 4, 1);
        }
        for (; r < rows; r++) {
            const T *f = from + (size_t)r * inner;
            T *t = to + (size_t)r * columns + b;
            if (two) N(block)(f, by + b, t, inner, columns, 1, 2);
            else N(block)(f, by + b, t, inner, columns, 1, 1);
        }
        b += two ? 2 * LANES : LANES;
    }
}

/* to (left, right) += a (rows, left), transposed, * b (rows, right), a block of it. */
INLINE void N(outer)(const T *a, const T *b, T *to, int rows, int left, int right, int vecs) {
    VEC sums[4][2];
    for (int l = 0; l < 4; l++) for (int v = 0; v < vecs; v++) sums[l][v] = (VEC){0};
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++) {
            const VEC y = FROM(b + (size_t)r * right + v * LANES);
            for (int l = 0; l < 4; l++) sums[l][v] += a[(size_t)r * left + l] * y;
        }
    for (int l = 0; l < 4; l++) for (int v = 0; v < vecs; v++) AT(to + (size_t)l * right + v * LANES) += sums[l][v];
}

static void N(products)(const T *a, const T *b, T *to, int rows, int left, int right) {
    for (int l = 0; l < left; l += 4)
        for (int r = 0; r < right;) {
            const int two = r + 2 * LANES <= right;
            if (two) N(outer)(a + l, b + r, to + (size_t)l * right + r, rows, left, right, 2);
            else N(outer)(a + l, b + r, to + (size_t)l * right + r, rows, left, right, 1);
            r += two ? 2 * LANES : LANES;
        }
}

/* Gradient by one row of taps, for one block of channels; g (oh, ow, c), from: where that row of taps begins. */
INLINE void N(tap_row)(const T *g, const T *from, T *to, int oh, int ow, int c, int k, size_t line, size_t step,
                       size_t apart, size_t g_line) {
    VEC sums[2][8];
    for (int p = 0; p < 2; p++) for (int j = 0; j < k; j++) sums[p][j] = (VEC){0};
    for (int y = 0; y < oh; y++) {
        const T *gs = g + y * g_line, *fs = from + y * line;
        int x = 0;
        for (; x + 2 <= ow; x += 2)
            for (int p = 0; p < 2; p++) {
                const VEC one = FROM(gs + (size_t)(x + p) * c);
                for (int j = 0; j < k; j++) sums[p][j] += one * FROM(fs + (x + p) * step + j * apart);
            }
        if (x < ow) {
            const VEC one = FROM(gs + (size_t)x * c);
            for (int j = 0; j < k; j++) sums[0][j] += one * FROM(fs + x * step + j * apart);
        }
    }
    for (int j = 0; j < k; j++) AT(to + (size_t)j * c) += sums[0][j] + sums[1][j];
}

static int N(wide)(int channels) { return (channels + LANES - 1) / LANES * LANES; }

/* Pixels of `c` channels, to pixels of `wide` ones and back; what is more is not touched. */
static void N(widened)(const T *from, T *to, int pixels, int c, int wide) {
    if (c == wide) memcpy(to, from, (size_t)pixels * c * sizeof(T));
    else
        for (int p = 0; p < pixels; p++)
            for (int i = 0; i < c; i++) to[(size_t)p * wide + i] = from[(size_t)p * c + i];
}

static void N(narrowed)(const T *from, T *to, int pixels, int c, int wide) {
    for (int p = 0; p < pixels; p++)
        for (int i = 0; i < c; i++) to[(size_t)p * c + i] = from[(size_t)p * wide + i];
}

/* A map with zeros around it: batch norm and ReLU of an image where there is a norm. The zeros are there already. */
static void N(padded)(const stage *s, const T *x, const T *mean, const T *inverse, T *to) {
    const int c = s->c, wide = N(wide)(c);
    const size_t line = (size_t)(s->w + 2 * s->padding) * wide;
    for (int y = 0; y < s->h; y++) {
        T *row = to + (y + s->padding) * line + (size_t)s->padding * wide;
        const T *from = x + (size_t)y * s->w * c;
        if (!mean) {
            N(widened)(from, row, s->w, c, wide);
            continue;
        }
        for (int p = 0; p < s->w; p++) {
            const T *f = from + (size_t)p * c;
            T *t = row + (size_t)p * wide;
            int b = 0;
            for (; b + LANES <= c; b += LANES) {
                const VEC z = (FROM(f + b) - FROM(mean + b)) * FROM(inverse + b);
                AT(t + b) = (VEC)((BITS)z & ~(z <= 0)); /* what is no number stays none */
            }
            for (; b < c; b++) {
                const T z = (f[b] - mean[b]) * inverse[b];
                t[b] = z <= 0 ? 0 : z;
            }
        }
    }
}

/* (c, k, k) -> (k, k, c), filled up; `flipped`: the taps in reversed order. */
static void N(taps_of)(const T *weight, T *to, int c, int wide, int k, int flipped) {
    memset(to, 0, (size_t)k * k * wide * sizeof(T));
    for (int t = 0; t < k * k; t++)
        for (int i = 0; i < c; i++) to[(size_t)t * wide + i] = weight[(size_t)i * k * k + (flipped ? k * k - 1 - t : t)];
}

/* (oc, c) -> the same, or transposed, filled up. */
static void N(points_of)(const T *weight, T *to, int oc, int c, int transposed) {
    const int wide = N(wide)(c), out = N(wide)(oc);
    memset(to, 0, (size_t)wide * out * sizeof(T));
    for (int o = 0; o < oc; o++)
        for (int i = 0; i < c; i++) to[transposed ? (size_t)i * out + o : (size_t)o * wide + i] = weight[(size_t)o * c + i];
}

static void N(share)(const N(work) *work, int *first, int *last, int *who) {
    const int me = work->team ? work->team->me() : 0, all = work->team ? work->team->all() : 1, n = work->s->n;
    *who = me;
    *first = (int)((int64_t)n * me / all);
    *last = (int)((int64_t)n * (me + 1) / all);
}

static void N(forward_part)(void *given) {
    N(work) *work = given;
    const stage *s = work->s;
    int first, last, me;
    N(share)(work, &first, &last, &me);
    if (first == last) return;
    const int c = N(wide)(s->c), oc = N(wide)(s->oc), narrow = oc != s->oc;
    const size_t line = (size_t)(s->w + 2 * s->padding) * c, map = line * (s->h + 2 * s->padding);
    const size_t taps = (size_t)s->k * s->k * c, points = (size_t)c * oc;
    T *image = (T *)scratch((map + (size_t)s->ow * (c + oc) + s->ops * (taps + points)) * sizeof(T));
    if (!image) {
        work->failed = 1;
        return;
    }
    T *between = image + map, *row = between + (size_t)s->ow * c, *weights = row + (size_t)s->ow * oc;
    memset(image, 0, map * sizeof(T));
    for (int o = 0; o < s->ops; o++) {
        void *const *p = work->pointers + o * POINTERS;
        N(taps_of)(p[DEPTH], weights + o * (taps + points), s->c, c, s->k, 0);
        N(points_of)(p[POINT], weights + o * (taps + points) + taps, s->oc, s->c, 1);
    }
    for (int n = first; n < last; n++)
        for (int o = 0; o < s->ops; o++) {
            void *const *p = work->pointers + o * POINTERS;
            const T *mine = weights + o * (taps + points);
            if (!o || p[MEAN] || p[X] != p[X - POINTERS])
                N(padded)(s, (const T *)p[X] + (size_t)n * s->h * s->w * s->c, p[MEAN], p[INVERSE], image);
            T *to = (T *)p[Y] + (size_t)n * s->oh * s->ow * s->oc;
            for (int y = 0; y < s->oh; y++) {
                T *there = to + (size_t)y * s->ow * s->oc;
                N(depthwise)(image + y * s->stride * line, line, s->stride, mine, between, s->ow, c, s->k, s->dilation);
                N(product)(between, mine + taps, narrow ? row : there, s->ow, c, oc);
                if (narrow) N(narrowed)(row, there, s->ow, s->oc, oc);
            }
        }
}

/* Of one row of the gradient by the (normed and rectified) input: where it goes. */
static void N(put)(const stage *s, void *const *p, const T *row, const T *z, int n, int y, int add, T *sums) {
    const int c = s->c, wide = N(wide)(c), whole = c - c % LANES;
    T *to = (T *)p[DX] + ((size_t)n * s->h + y) * s->w * c;
    if (p[MEAN]) {
        for (int b = 0; b < whole; b += LANES) {
            VEC shift = {0}, scale = {0};
            for (int x = 0; x < s->w; x++) {
                const VEC positive = FROM(z + (size_t)x * wide + b);
                const VEC g = (VEC)((BITS)FROM(row + (size_t)x * wide + b) & (positive > 0));
                AT(to + (size_t)x * c + b) = g;
                shift += g;
                scale += g * positive;
            }
            AT(sums + b) += shift;
            AT(sums + wide + b) += scale;
        }
        for (int b = whole; b < c; b++)
            for (int x = 0; x < s->w; x++) {
                const T positive = z[(size_t)x * wide + b], g = positive > 0 ? row[(size_t)x * wide + b] : 0;
                to[(size_t)x * c + b] = g;
                sums[b] += g;
                sums[wide + b] += g * positive;
            }
    } else if (!add) {
        if (c == wide) memcpy(to, row, (size_t)s->w * c * sizeof(T));
        else N(narrowed)(row, to, s->w, c, wide);
    } else {
        for (int x = 0; x < s->w; x++)
            for (int b = 0; b < c; b++) to[(size_t)x * c + b] += row[(size_t)x * wide + b];
    }
}

/* The gradient by what a stage gave, filled up; through its batch norm where it has one. */
static const T *N(gradient_of)(const stage *s, void *const *p, int n, T *to) {
    const int oc = s->oc, wide = N(wide)(oc), pixels = s->oh * s->ow;
    const T *g = (const T *)p[G] + (size_t)n * pixels * oc;
    if (!p[G_OF]) {
        if (oc == wide) return g;
        N(widened)(g, to, pixels, oc, wide);
        return to;
    }
    const T *of = (const T *)p[G_OF] + (size_t)n * pixels * oc;
    const T *mean = p[G_MEAN], *inverse = p[G_INVERSE], *shift = p[G_SHIFT], *scale = p[G_SCALE];
    for (int q = 0; q < pixels; q++, g += oc, of += oc) {
        T *t = to + (size_t)q * wide;
        int b = 0;
        for (; b + LANES <= oc; b += LANES) {
            const VEC normed = (FROM(of + b) - FROM(mean + b)) * FROM(inverse + b);
            AT(t + b) = FROM(inverse + b) * (FROM(g + b) - FROM(shift + b) - normed * FROM(scale + b));
        }
        for (; b < oc; b++) t[b] = inverse[b] * (g[b] - shift[b] - (of[b] - mean[b]) * inverse[b] * scale[b]);
    }
    return to;
}

static void N(backward_part)(void *given) {
    N(work) *work = given;
    const stage *s = work->s;
    int first, last, me;
    N(share)(work, &first, &last, &me);
    const int c = N(wide)(s->c), oc = N(wide)(s->oc), k = s->k, pixels = s->oh * s->ow, straight = s->stride == 1;
    const size_t line = (size_t)(s->w + 2 * s->padding) * c, map = line * (s->h + 2 * s->padding);
    const int around = straight ? s->dilation * (k - 1) - s->padding : 0;
    const size_t g_line = (size_t)(s->ow + 2 * around) * c, g_map = g_line * (s->oh + 2 * around);
    const size_t taps = (size_t)k * k * c, points = (size_t)c * oc, own = taps + points + 2 * c;
    const size_t down = s->stride * line, step = (size_t)s->stride * c, apart = (size_t)s->dilation * c;
    if (first == last) return;
    const size_t all = 2 * map + g_map + (size_t)pixels * (c + oc) + (size_t)s->w * c + s->ops * (2 * taps + points);
    T *image = (T *)scratch(all * sizeof(T));
    if (!image) {
        work->failed = 1;
        return;
    }
    T *spread = image + map, *scattered = spread + g_map, *between = scattered + map;
    T *gradient = between + (size_t)pixels * c, *row = gradient + (size_t)pixels * oc, *weights = row + (size_t)s->w * c;
    T *partial = work->partial + me * work->sums;
    memset(image, 0, map * sizeof(T));
    memset(spread, 0, g_map * sizeof(T));
    memset(gradient, 0, (size_t)pixels * oc * sizeof(T));
    for (int o = 0; o < s->ops; o++) {
        void *const *p = work->pointers + o * POINTERS;
        T *mine = weights + o * (2 * taps + points);
        N(taps_of)(p[DEPTH], mine, s->c, c, k, 0);
        N(taps_of)(p[DEPTH], mine + taps, s->c, c, k, straight);
        N(points_of)(p[POINT], mine + 2 * taps, s->oc, s->c, 0);
    }
    for (int n = first; n < last; n++)
        for (int o = 0; o < s->ops; o++) {
            void *const *p = work->pointers + o * POINTERS;
            const T *forward = weights + o * (2 * taps + points), *back = forward + taps, *point = back + taps;
            T *by_taps = partial + o * own, *by_points = by_taps + taps, *sums = by_points + points;
            if (!o || p[MEAN] || p[X] != p[X - POINTERS])
                N(padded)(s, (const T *)p[X] + (size_t)n * s->h * s->w * s->c, p[MEAN], p[INVERSE], image);
            const T *g = N(gradient_of)(s, p, n, gradient);
            T *inner = spread + around * g_line + (size_t)around * c;
            for (int y = 0; y < s->oh; y++)
                N(product)(g + (size_t)y * s->ow * oc, point, inner + y * g_line, s->ow, oc, c);
            if (s->learn) {
                for (int y = 0; y < s->oh; y++)
                    N(depthwise)(image + y * down, line, s->stride, forward, between + (size_t)y * s->ow * c, s->ow, c, k,
                                 s->dilation);
                N(products)(g, between, by_points, pixels, oc, c);
                for (int b = 0; b < c; b += LANES)
                    for (int i = 0; i < k; i++) {
                        const T *from = image + i * s->dilation * line + b;
                        T *to = by_taps + (size_t)i * k * c + b;
                        if (k == 3) N(tap_row)(inner + b, from, to, s->oh, s->ow, c, 3, down, step, apart, g_line);
                        else if (k == 5) N(tap_row)(inner + b, from, to, s->oh, s->ow, c, 5, down, step, apart, g_line);
                        else N(tap_row)(inner + b, from, to, s->oh, s->ow, c, k, down, step, apart, g_line);
                    }
            }
            if (!p[DX]) continue;
            const T *z = image + s->padding * line + (size_t)s->padding * c;
            const int add = s->add && o;
            if (straight) {
                for (int y = 0; y < s->h; y++) {
                    N(depthwise)(spread + y * g_line, g_line, 1, back, row, s->w, c, k, s->dilation);
                    N(put)(s, p, row, z + y * line, n, y, add, sums);
                }
            } else {
                memset(scattered, 0, map * sizeof(T));
                for (int y = 0; y < s->oh; y++)
                    for (int i = 0; i < k; i++)
                        for (int x = 0; x < s->ow; x++)
                            for (int j = 0; j < k; j++) {
                                T *to = scattered + y * down + i * s->dilation * line + x * step + j * apart;
                                const T *tap = back + (size_t)(i * k + j) * c, *from = spread + y * g_line + (size_t)x * c;
                                for (int b = 0; b < c; b += LANES) AT(to + b) += FROM(tap + b) * FROM(from + b);
                            }
                for (int y = 0; y < s->h; y++) {
                    const size_t at = (y + s->padding) * line + (size_t)s->padding * c;
                    N(put)(s, p, scattered + at, z + y * line, n, y, add, sums);
                }
            }
        }
}

static void N(run)(N(work) *work, void (*part)(void *)) {
    if (work->team) work->team->start(part, work, (unsigned)work->s->threads, 0);
    else part(work);
}

/* 0, or 1 where there was no memory. */
int N(chains_forward)(const stage *s, void *const *pointers, const openmp *threads) {
    N(work) work = {s, pointers, NULL, 0, s->threads > 1 ? threads : NULL, 0};
    N(run)(&work, N(forward_part));
    return work.failed;
}

int N(chains_backward)(const stage *s, void *const *pointers, const openmp *threads) {
    const int c = s->c, wide = N(wide)(c), square = s->k * s->k;
    const size_t taps = (size_t)square * wide, points = (size_t)wide * N(wide)(s->oc), own = taps + points + 2 * wide;
    N(work) work = {s, pointers, NULL, s->ops * own, s->threads > 1 ? threads : NULL, 0};
    work.partial = calloc(s->threads * work.sums, sizeof(T)); /* the team may be smaller than asked for */
    if (!work.partial) return 1;
    N(run)(&work, N(backward_part));
    for (int t = 1; t < s->threads; t++)
        for (size_t i = 0; i < work.sums; i++) work.partial[i] += work.partial[t * work.sums + i];
    for (int o = 0; o < s->ops && !work.failed; o++) {
        void *const *p = pointers + o * POINTERS;
        const T *mine = work.partial + o * own;
        if (s->learn) {
            for (int t = 0; t < square; t++)
                for (int i = 0; i < c; i++) ((T *)p[D_DEPTH])[(size_t)i * square + t] = mine[(size_t)t * wide + i];
            N(narrowed)(mine + taps, p[D_POINT], s->oc, c, wide);
        }
        if (p[MEAN] && p[DX])
            for (int i = 0; i < c; i++) {
                const T all = (T)s->n * s->h * s->w;
                ((T *)p[SHIFT])[i] = mine[taps + points + i] / all;
                ((T *)p[SCALE])[i] = mine[taps + points + wide + i] / all;
            }
    }
    free(work.partial);
    return work.failed;
}

#undef N
#undef LANES
#undef INLINE
#undef VEC
#undef BITS
#undef AT
#undef FROM
#endif
