/** Number of key groups: Flink's bounds and formula (KeyGroupRangeAssignment.computeDefaultMaxParallelism). */
export const lowestDefaultMaxParallelism = 128;
export const highestMaxParallelism = 32_768;

/** Half again the parallelism, up to the next power of two, at least 128, at most 32,768. */
export function defaultMaxParallelism(parallelism: number): number {
  const wanted = parallelism + Math.floor(parallelism / 2);
  const rounded = wanted <= 1 ? 1 : 2 ** Math.ceil(Math.log2(wanted));
  return Math.min(Math.max(rounded, lowestDefaultMaxParallelism), highestMaxParallelism);
}
