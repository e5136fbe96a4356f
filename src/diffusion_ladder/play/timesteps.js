// Which of the T training timesteps a sampler visits: Table 2 of arXiv 2305.08891, as diffusion/timesteps.py has it.
"use strict";

// To whole numbers, halves to even ones: as NumPy rounds.
const rounded = x => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

// From 0 to `last` in equal parts.
const evenly = (last, count) => Array.from({ length: count }, (_, i) =>
  (count > 1 && i === count - 1 ? last : i * (last / (count - 1 || 1))));

// `steps` of the timesteps 0 ... T-1 in falling order.
function spacedTimesteps(spacing, T, steps) {
  switch (spacing) {
    case "linspace": return evenly(T - 1, steps).map(rounded).reverse();
    case "leading": return Array.from({ length: steps }, (_, i) => (steps - 1 - i) * Math.floor(T / steps));
    case "trailing": { // from T-1 down; the step is the difference of the first two, as in NumPy's arange
      const step = T - (T - T / steps);
      return Array.from({ length: steps }, (_, i) => rounded(T - i * step) - 1);
    }
    default: throw new Error(`unknown spacing ${spacing}`);
  }
}
