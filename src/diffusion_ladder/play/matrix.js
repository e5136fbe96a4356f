// Products of float32 matrices, row-major, in a memory that the kernel (kernel.wat) sees.
"use strict";

const ROWS = 4, COLUMNS = 8; // of the result, which the kernel works on at a time
const PART = 1 << 17; // numbers of a left matrix that are multiplied at once: few enough for the processor's cache

const roundedUp = (count, step) => Math.ceil(count / step) * step;

class Matrices {
  // A memory for right matrices of so many numbers in all. kernel: bytes of WebAssembly, or null for plain JavaScript.
  constructor(numbers, kernel) {
    this.memory = new WebAssembly.Memory({ initial: Math.ceil(4 * (numbers + 2 * PART) / 65536) });
    this.end = 0;
    this.left = this.allocate(PART);
    this.sums = this.allocate(PART);
    this.multiply = kernel && WebAssembly.validate(kernel) ? this.multiplierOf(kernel) : plainMultiply; // without SIMD
  }

  allocate(count) {
    const view = new Float32Array(this.memory.buffer, this.end, count);
    this.end += 4 * roundedUp(count, 4);
    return view;
  }

  multiplierOf(kernel) {
    const { multiply } = new WebAssembly.Instance(new WebAssembly.Module(kernel), { engine: this }).exports;
    return (A, B, C, ...sizes) => multiply(A.byteOffset, B.byteOffset, C.byteOffset, ...sizes);
  }

  // x W + b: (rows, inner) to (rows, outputs). write(A, first, count) puts so many rows of x into A, from the first on.
  affine({ matrix, bias, inner, outputs, columns }, rows, write) {
    const result = new Float32Array(rows * outputs);
    const most = Math.floor(PART / Math.max(inner, columns) / ROWS) * ROWS;
    for (let first = 0; first < rows; first += most) {
      const count = Math.min(most, rows - first), whole = roundedUp(count, ROWS);
      write(this.left, first, count);
      repeat(bias, whole, this.sums);
      this.multiply(this.left, matrix, this.sums, whole, inner, columns);
      withoutPadding(this.sums, count, columns, outputs, result.subarray(first * outputs));
    }
    return result;
  }
}

// A row, `count` times, at the start of an array.
function repeat(row, count, target) {
  const { length } = row;
  target.set(row);
  for (let done = 1; done < count; done *= 2) {
    target.copyWithin(done * length, 0, Math.min(done, count - done) * length);
  }
}

// (rows, columns) to (rows, outputs): the first columns alone.
function withoutPadding(padded, rows, columns, outputs, target) {
  if (columns === outputs) return target.set(padded.subarray(0, rows * columns));
  for (let row = 0, at = 0; row < rows; row++) {
    for (let output = 0; output < outputs; output++) target[at++] = padded[row * columns + output];
  }
}

// What the kernel does, slowly: C (rows, columns) += A (rows, inner) B (inner, columns).
function plainMultiply(A, B, C, rows, inner, columns) {
  for (let row = 0; row < rows; row++) {
    for (let k = 0; k < inner; k++) {
      const a = A[row * inner + k];
      for (let column = 0; column < columns; column++) C[row * columns + column] += a * B[k * columns + column];
    }
  }
}
