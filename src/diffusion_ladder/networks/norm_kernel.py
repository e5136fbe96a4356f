"""Group norm, modulation and SiLU in C: all of it while an image lies in the processor's cache.

PyTorch has an operator for each of them, and each reads and writes all activations, in float32. The function below does
the three at once and is compiled at its first use, in about a second, where the machine has a C compiler; the library
is kept beside Python's own compiled files. Images are independent of each other, so that neither the batch size nor the
number of threads changes a result.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCE = r"""
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

/* Activations are kept as `number`, and computed with as float. */
#ifdef BFLOAT16
typedef uint16_t number;
static inline float read(number x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static inline number rounded(float value) { /* to the nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (number)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#else
typedef float number;
static inline float read(number x) { return x; }
static inline number rounded(float value) { return value; }
#endif

/* 1 / (1 + exp(-z)), with exp(x) = 2^n exp(r) and exp(r) by its Taylor series, |r| <= log(2) / 2: 1e-7. */
static inline float sigmoid(float z) {
    float x = -z < -87.0f ? -87.0f : -z > 87.0f ? 87.0f : -z; /* NaN stays NaN */
    float n = rintf(x * 1.44269504f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float series = 1 + r * (1 + r * (1 / 2.f + r * (1 / 6.f + r * (1 / 24.f + r * (1 / 120.f + r / 720)))));
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return 1 / (1 + power * series);
}

/* y = act(gain (x - mean) rstd + offset) for B images of P pixels with C channels, the channels next to each other.
   gain, offset: (B, C). statistics, written: (B, 2, C), mean and rstd of each channel's group. */
void forward(const number *restrict xs, const float *restrict gains, const float *restrict offsets, number *restrict ys,
             float *restrict statistics, long B, long P, long C, long G, float eps, int activate, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long b = 0; b < B; b++) {
        const number *restrict x = xs + b * P * C;
        number *restrict y = ys + b * P * C;
        const float *gain = gains + b * C, *offset = offsets + b * C;
        float *mean = statistics + 2 * b * C, *rstd = mean + C;
        float sum[C], slope[C], constant[C];
        long D = C / G;
        memset(sum, 0, sizeof sum);
        for (long p = 0; p < P; p++)
            for (long c = 0; c < C; c++) sum[c] += read(x[p * C + c]);
        for (long g = 0; g < G; g++) {
            double total = 0;
            for (long c = g * D; c < (g + 1) * D; c++) total += sum[c];
            for (long c = g * D; c < (g + 1) * D; c++) mean[c] = (float)(total / (D * P));
        }
        memset(sum, 0, sizeof sum);
        for (long p = 0; p < P; p++)
            for (long c = 0; c < C; c++) {
                float centred = read(x[p * C + c]) - mean[c];
                sum[c] += centred * centred;
            }
        for (long g = 0; g < G; g++) {
            double total = 0;
            for (long c = g * D; c < (g + 1) * D; c++) total += sum[c];
            for (long c = g * D; c < (g + 1) * D; c++) {
                rstd[c] = (float)(1 / sqrt(total / (D * P) + eps));
                slope[c] = gain[c] * rstd[c];
                constant[c] = offset[c] - slope[c] * mean[c];
            }
        }
        if (activate)
            for (long p = 0; p < P; p++)
                for (long c = 0; c < C; c++) {
                    float z = read(x[p * C + c]) * slope[c] + constant[c];
                    y[p * C + c] = rounded(z * sigmoid(z));
                }
        else
            for (long p = 0; p < P; p++)
                for (long c = 0; c < C; c++) y[p * C + c] = rounded(read(x[p * C + c]) * slope[c] + constant[c]);
    }
}

/* The gradients of x, gain and offset. With z = gain xhat + offset and <.> the mean over a group's channels and pixels:
   dx = rstd (gain dz - <gain dz> - xhat <gain dz xhat>). scratch: (threads, P, C), for dz of one image each. */
void backward(const number *restrict xs, const number *restrict dys, const float *restrict gains,
              const float *restrict offsets, const float *restrict statistics, number *restrict dxs,
              float *restrict d_gains, float *restrict d_offsets, float *restrict scratch, long B, long P, long C,
              long G, int activate, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long b = 0; b < B; b++) {
        const number *restrict x = xs + b * P * C, *restrict dy = dys + b * P * C;
        number *restrict dx = dxs + b * P * C;
        float *restrict dz = scratch + omp_get_thread_num() * P * C;
        const float *gain = gains + b * C, *offset = offsets + b * C;
        const float *mean = statistics + 2 * b * C, *rstd = mean + C;
        float slope[C], constant[C], sum[C], product[C];
        long D = C / G;
        for (long c = 0; c < C; c++) {
            slope[c] = gain[c] * rstd[c];
            constant[c] = offset[c] - slope[c] * mean[c];
        }
        memset(sum, 0, sizeof sum);
        memset(product, 0, sizeof product);
        for (long p = 0; p < P; p++)
            for (long c = 0; c < C; c++) {
                float value = read(x[p * C + c]), d = read(dy[p * C + c]);
                if (activate) {
                    float z = value * slope[c] + constant[c], s = sigmoid(z);
                    d *= s * (1 + z * (1 - s));
                }
                dz[p * C + c] = d;
                sum[c] += d;
                product[c] += d * (value - mean[c]);
            }
        for (long g = 0; g < G; g++) {
            double of_one = 0, of_xhat = 0;
            for (long c = g * D; c < (g + 1) * D; c++) {
                d_offsets[b * C + c] = sum[c];
                d_gains[b * C + c] = rstd[c] * product[c];
                of_one += gain[c] * sum[c];
                of_xhat += gain[c] * rstd[c] * product[c];
            }
            for (long c = g * D; c < (g + 1) * D; c++) {
                product[c] = -rstd[c] * rstd[c] * (float)(of_xhat / (D * P)); /* dx = slope dz + product x + sum */
                sum[c] = -rstd[c] * (float)(of_one / (D * P)) - product[c] * mean[c];
            }
        }
        for (long p = 0; p < P; p++)
            for (long c = 0; c < C; c++)
                dx[p * C + c] = rounded(slope[c] * dz[p * C + c] + product[c] * read(x[p * C + c]) + sum[c]);
    }
}
"""
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
WIDE = {"x86_64": ["-mprefer-vector-width=512"]}  # by machine
CACHE = Path(__file__).parent / "__pycache__"
POINTER, LENGTH = ctypes.c_void_p, ctypes.c_long


@functools.cache
def kernel(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The library for activations of a dtype, with its functions `forward` and `backward`; None where there is none."""
    compiler = shutil.which("cc")
    if dtype not in (torch.float32, torch.bfloat16) or compiler is None:
        return None
    switches = [*FLAGS, *(["-DBFLOAT16"] if dtype == torch.bfloat16 else []), *WIDE.get(platform.machine(), [])]
    try:
        library = ctypes.CDLL(str(compiled(compiler, switches)))  # OpenMP's threads are those that torch has loaded
    except (OSError, subprocess.SubprocessError):
        return None
    library.forward.argtypes = [POINTER] * 5 + [LENGTH] * 4 + [ctypes.c_float] + [ctypes.c_int] * 2
    library.backward.argtypes = [POINTER] * 9 + [LENGTH] * 4 + [ctypes.c_int] * 2
    return library


def compiled(compiler: str, switches: list[str]) -> Path:
    """The path of the compiled source; it is compiled where no earlier process has done it on such a processor.

    Raises:
        OSError, subprocess.SubprocessError: it can't be.
    """
    capabilities = sorted(torch.cpu.get_capabilities().items())
    key = hashlib.sha256(repr((SOURCE, switches, platform.machine(), capabilities)).encode()).hexdigest()[:16]
    path = CACHE / f"norm_kernel-{key}.so"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            result = Path(folder, "kernel.so")
            command = [compiler, *switches, "-x", "c", "-", "-o", str(result), "-lm"]
            subprocess.run(command, input=SOURCE, text=True, check=True, capture_output=True)
            os.replace(result, path)
    return path
