/**
 * Imported first by the coordinator's thread: it begins while tasks are started, often on the same machine, and nothing
 * but further splits waits for it. On Linux a thread has a priority of its own; elsewhere it would be the process's.
 */
import { setPriority } from 'node:os';

const niceness = 5;

if (process.platform === 'linux') {
  try {
    setPriority(niceness);
  } catch {
    // Forbidden here: it works without.
  }
}
