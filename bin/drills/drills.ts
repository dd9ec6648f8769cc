/** The drills, in the order they are run. One library for the command line, the tests and the benchmarks. */
import type { Drill } from './drill.js';
import { etcdDrills } from './etcd-drills.js';
import { jobDrills } from './job-drills.js';
import { leaderDrills } from './leader-drills.js';
import { networkDrills } from './network-drills.js';
import { taskManagerDrills } from './taskmanager-drills.js';

export const drills: readonly Drill[] = [
  ...leaderDrills,
  ...taskManagerDrills,
  ...jobDrills,
  ...etcdDrills,
  ...networkDrills,
];
