/** Drills of the network and of processes that are cut off or late without being dead. */
import type { Drill } from './drill.js';

export const networkDrills: readonly Drill[] = [];
