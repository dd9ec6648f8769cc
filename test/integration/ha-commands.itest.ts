/** `millrace ha` and `millrace doctor` on real etcd, as an administrator runs them. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { createEtcdHighAvailability } from '../../ha/etcd/create-etcd-high-availability.js';
import type { Leadership } from '../../ha/services.js';
import type { JobId, JobManagerId } from '../../lib/base/ids.js';
import { millrace } from '../support/cli.js';
import { TestEtcd } from '../support/etcd.js';
import { testEnv } from '../support/test-env.js';

t.setTimeout(180_000);

const jobId = '0123456789abcdef0123456789abcdef' as JobId;

/** Leads for a moment: one job, and a pointer to a checkpoint that has no files. */
async function leadOnce(endpoints: readonly string[], storageDir: string): Promise<void> {
  const ha = await createEtcdHighAvailability(testEnv(), {
    endpoints,
    clusterId: 'old',
    storageDir,
  });
  const election = ha.createElection({
    jobManagerId: 'jm-1' as JobManagerId,
    rpcAddress: 'h:1',
    restAddress: 'http://h:2',
  });
  const leadership = await new Promise<Leadership>((resolve) => {
    election.start({
      grantLeadership: resolve,
      suspendLeadership: () => undefined,
      resumeLeadership: () => undefined,
      revokeLeadership: () => undefined,
    });
  });
  await leadership.jobs.put({
    jobId,
    submissionId: 's',
    name: 'orders',
    graph: Buffer.from('no graph'),
    desired: 'RUNNING',
    submittedAt: 1_000,
  });
  const checkpointId = await leadership.checkpointIds(jobId).next();
  await leadership.checkpointPointers(jobId).add(
    {
      checkpointId,
      metadataPath: join(storageDir, 'missing', '_metadata'),
      sha256: '0'.repeat(64),
      timestamp: 2_000,
      sizeBytes: 77,
      kind: 'checkpoint',
    },
    [],
  );
  await election.close();
  await ha.close();
}

t.test('a cluster is inspected, verified, taken out and brought in', async (t) => {
  const etcd = await TestEtcd.start(t);
  const folder = await mkdtemp(join(tmpdir(), 'millrace-ha-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const storageDir = join(folder, 'storage');
  await leadOnce(etcd.endpoints, storageDir);
  const at = (clusterId: string, endpoint = etcd.endpoints[0] ?? ''): string[] => [
    '-D',
    'high-availability.type=etcd',
    '-D',
    `high-availability.etcd.endpoints=${endpoint}`,
    '-D',
    `high-availability.cluster-id=${clusterId}`,
    '-D',
    `high-availability.storageDir=${storageDir}`,
  ];

  const inspected = await millrace(['ha', 'inspect', '--json', ...at('old')]);
  t.match(JSON.parse(inspected.stdout), {
    clusterId: 'old',
    era: 1,
    candidates: [],
    jobs: [
      {
        jobId,
        name: 'orders',
        desired: 'RUNNING',
        checkpoints: [{ checkpointId: 1, sizeBytes: 77 }],
      },
    ],
  });
  const job = await millrace(['ha', 'inspect', '--job', 'orders', ...at('old')]);
  t.match(job.stdout, /1 +checkpoint +1970-01-01 00:00:02 +77 B/);
  const nobody = await millrace(['ha', 'inspect', ...at('other')]);
  t.match(nobody, { code: 1, stderr: /CLUSTER_NOT_FOUND/ });

  const damaged = await millrace(['ha', 'verify', '--json', ...at('old')]);
  t.equal(damaged.code, 1, 'the checkpoint has no files and the graph is none');
  t.match(JSON.parse(damaged.stdout), { sound: false, jobs: 1, checkpoints: 1 });
  t.match(damaged.stdout, /_metadata/);

  const file = join(folder, 'export.json');
  t.equal((await millrace(['ha', 'export', file, ...at('old')])).code, 0);
  const again = await millrace(['ha', 'export', file, ...at('old')]);
  t.match(again, { code: 2, stderr: /never written over/ });
  const piped = await millrace(['ha', 'export', ...at('old')]);
  t.match(JSON.parse(piped.stdout), { kind: 'millrace-ha-archive', clusterId: 'old' });

  const inUse = await millrace(['ha', 'import', '--yes', file, ...at('new')]);
  t.match(inUse, { code: 2, stderr: /CLUSTER_MISMATCH.*lives under/s }, 'one uid, two clusters');
  const fresh = await TestEtcd.start(t);
  const target = at('new', fresh.endpoints[0]);
  const unasked = await millrace(['ha', 'import', file, ...target]);
  t.match(unasked, { code: 2, stderr: /--yes/ }, 'nobody can answer');
  const imported = await millrace(['ha', 'import', '--yes', '--json', file, ...target]);
  t.match(JSON.parse(imported.stdout), { clusterId: 'new', era: 2, resumed: false });
  const after = await millrace(['ha', 'inspect', '--json', ...target]);
  t.match(JSON.parse(after.stdout), { era: 2, jobs: [{ jobId, name: 'orders' }] });

  await writeFile(file, (await readFile(file, 'utf8')).slice(0, 40));
  const torn = await millrace(['ha', 'import', '--yes', file, ...target]);
  t.match(torn, { code: 2, stderr: /no archive/ });
});

t.test('the doctor finds a working etcd well, and says what a dead one needs', async (t) => {
  const etcd = await TestEtcd.start(t, { members: 3 });
  const folder = await mkdtemp(join(tmpdir(), 'millrace-doctor-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const args = [
    'doctor',
    '--json',
    '-D',
    'high-availability.type=etcd',
    '-D',
    `high-availability.etcd.endpoints=${etcd.endpoints.join(',')}`,
    '-D',
    `high-availability.storageDir=${join(folder, 'storage')}`,
    '-D',
    'rest.port=0',
  ];
  interface Report {
    readonly healthy: boolean;
    readonly findings: readonly { readonly check: string; readonly level: string }[];
  }
  const well = await millrace(args);
  const report = JSON.parse(well.stdout) as Report;
  t.equal(well.code, 0, well.stdout);
  for (const check of ['lease', 'etcd watch', 'cluster', 'storage']) {
    t.ok(
      report.findings.some((one) => one.check === check && one.level === 'ok'),
      check,
    );
  }
  await etcd.members[0]?.kill();
  await etcd.members[1]?.kill();
  const ill = await millrace(args);
  t.equal(ill.code, 1);
  t.match(JSON.parse(ill.stdout), { healthy: false });
  const people = await millrace(args.filter((one) => one !== '--json'));
  t.match(people.stdout, /✗ etcd: no majority .*\n {4}do: start the members/);
});
