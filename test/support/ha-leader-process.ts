/**
 * A process that campaigns and, as long as it believes to lead, writes as fast as it can: for tests that
 * stop it with signals. Arguments: endpoint, cluster id, storage directory, its name, a job id. Prints one
 * JSON line per thing that happened.
 */
import type { JobId, JobManagerId } from '../../lib/base/ids.js';
import type { MillraceError } from '../../lib/base/errors.js';
import { createEtcdHighAvailability } from '../../ha/etcd/create-etcd-high-availability.js';
import { formatEpoch, type Leadership } from '../../ha/services.js';
import { testEnv } from './test-env.js';

const [endpoint, clusterId, storageDir, name, jobId] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string,
];

const say = (line: Record<string, unknown>): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};

async function write(leadership: Leadership): Promise<void> {
  const epoch = formatEpoch(leadership.epoch);
  const id = jobId as JobId;
  for (let i = 0; ; i += 1) {
    try {
      await leadership.jobs.setDesired(id, i % 2 === 0 ? 'CANCELED' : 'RUNNING');
      if (i % 50 === 0) say({ event: 'wrote', epoch });
    } catch (error) {
      say({ event: 'refused', epoch, code: (error as MillraceError).code });
      if ((error as MillraceError).code === 'LEADERSHIP_LOST') return;
    }
  }
}

const ha = await createEtcdHighAvailability(testEnv(), {
  endpoints: [endpoint],
  clusterId,
  storageDir,
});
const election = ha.createElection({
  jobManagerId: name as JobManagerId,
  rpcAddress: `${name}:1`,
  restAddress: `http://${name}:2`,
});
election.start({
  grantLeadership: (leadership) => {
    say({ event: 'granted', epoch: formatEpoch(leadership.epoch) });
    void write(leadership);
  },
  suspendLeadership: () => {
    say({ event: 'suspended' });
  },
  resumeLeadership: () => {
    say({ event: 'resumed' });
  },
  revokeLeadership: (leadership, reason) => {
    say({ event: 'revoked', epoch: formatEpoch(leadership.epoch), reason });
  },
});
