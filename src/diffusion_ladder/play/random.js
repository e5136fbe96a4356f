// Standard normal numbers, the same for the same seed.
"use strict";

// 32 bits, well mixed: the finaliser of MurmurHash3.
function mixed(bits) {
  bits = Math.imul(bits ^ bits >>> 16, 0x85ebca6b);
  bits = Math.imul(bits ^ bits >>> 13, 0xc2b2ae35);
  return (bits ^ bits >>> 16) >>> 0;
}

// A generator of the noise of one sample: its own, so that no sample's noise depends on how many others there are.
function normals(seed, number) {
  let state = mixed(mixed(seed) + number + 1);
  const uniform = () => (mixed(state = state + 0x9e3779b9 | 0) + 0.5) / 2 ** 32; // in (0, 1)
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()); // Box and Muller 1958
}

// Noise (B, size), the next numbers of each sample's generator.
const draw = (generators, size) => Float32Array.from(
  { length: generators.length * size }, (_, at) => generators[Math.floor(at / size)]());
