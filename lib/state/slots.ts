/** What is kept by slot lies in chunks: nothing is ever copied as a whole when it grows. */
export const chunkBits = 12;
export const chunkSize = 1 << chunkBits;
export const chunkMask = chunkSize - 1;

/** The first chunk begins small. */
export const firstChunk = 16;

/** Slots the chunk of a slot has room for when it has to grow for it. */
export function sizeFor(slot: number): number {
  let size = slot >= chunkSize ? chunkSize : firstChunk;
  while (size <= (slot & chunkMask)) size *= 4;
  return size;
}
