/** Drills of etcd: members die, hang, restart, run out of space; the quorum is lost and comes back. */
import { MillraceError } from '../../lib/base/errors.js';
import type { Drill, DrillContext, DrillFindings } from './drill.js';
import { etcdLeaderName, leaderOf } from './observe.js';

async function killEtcdLeader({ cluster, run, did }: DrillContext): Promise<DrillFindings> {
  const { generation } = await run.details();
  const before = (await run.checkpoints()).counts.completed;
  const leader = await leaderOf(cluster);
  const victim = await etcdLeaderName(cluster);
  const deathAt = did(`${victim}, etcd's leader, killed (SIGKILL)`);
  cluster.signal(victim, 'SIGKILL');
  await run.waitFor(
    'three checkpoints without that etcd member',
    30_000,
    async () => (await run.checkpoints()).counts.completed >= before + 3,
  );
  const checkpointMs = Date.now() - deathAt;
  await cluster.restart(victim);
  const after = await run.details();
  if (after.generation !== generation)
    throw new MillraceError('INVARIANT', 'tasks were restarted although only an etcd member died');
  if ((await leaderOf(cluster)) !== leader)
    throw new MillraceError('INVARIANT', 'leadership changed although only an etcd member died');
  return { killed: victim, checkpointsGoOnMs: checkpointMs, generation: after.generation };
}

export const etcdDrills: readonly Drill[] = [
  {
    name: 'etcd-leader-kill',
    fault: "SIGKILL of etcd's leader",
    mustHold: 'no task restarts, leadership stays, checkpoints go on',
    inject: killEtcdLeader,
  },
];
