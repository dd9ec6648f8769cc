/**
 * The soft limit of a slot's memory, checked by its own thread between quanta: its tasks fail with a clear error
 * long before V8's own limit, which can end the whole process. Garbage is no reason to fail: over the limit a
 * collection shows what is really in use.
 */
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Clock } from '../base/clock.js';
import { MillraceError } from '../base/errors.js';

export interface HeapProbe {
  /** Bytes of the heap, of the arrays it holds and of the slot's channels, garbage included. */
  used(): number;
  collect(): void;
}

/** Collections are slow (100 ms for some 100 MB), so they have a pause between them... */
const collectPauseMs = 1_000;
/** ...unless the use has grown by this share of the limit since. */
const growthShare = 0.25;

export function createMemoryCheck(
  clock: Clock,
  limitBytes: number,
  probe: HeapProbe = heapProbe(),
): () => MillraceError | undefined {
  let lastCollection = -Infinity;
  let lastUsed = 0;
  return () => {
    const used = probe.used();
    if (used <= limitBytes) return undefined;
    const isDue =
      clock.now() - lastCollection >= collectPauseMs || used - lastUsed > limitBytes * growthShare;
    if (!isDue) return undefined;
    probe.collect();
    lastCollection = clock.now();
    lastUsed = probe.used();
    return lastUsed > limitBytes ? memoryError(limitBytes, lastUsed) : undefined;
  };
}

export function memoryError(limitBytes: number, usedBytes?: number): MillraceError {
  const used = usedBytes === undefined ? '' : `they use ${megabytes(usedBytes)}; `;
  return new MillraceError(
    'SLOT_MEMORY',
    `the tasks of the slot exceeded its memory limit of ${megabytes(limitBytes)} (taskmanager.memory.slot.heap.size): ${used}raise the limit, the parallelism, or keep less state`,
    { details: { limitBytes, ...(usedBytes !== undefined && { usedBytes }) } },
  );
}

/** `otherBytes`: memory V8 does not count, which is that of SharedArrayBuffers. */
export function heapProbe(otherBytes = 0): HeapProbe {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  return {
    used: () => {
      const { used_heap_size, external_memory } = getHeapStatistics();
      return used_heap_size + external_memory + otherBytes;
    },
    collect,
  };
}

function megabytes(bytes: number): string {
  return `${String(Math.round(bytes / 1024 ** 2))} MB`;
}
