import { mkdir, mkdtemp, readdir, rm, utimes } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { encodeText } from '../../../ha/kv-store.js';
import type { JobId } from '../../../lib/base/ids.js';
import { LeaderSweeper } from '../../../lib/jobmanager/dispatcher/leader-sweeper.js';
import { settle } from '../../support/manual-clock.js';
import { MemoryCluster } from '../../support/memory-cluster.js';

t.test('a leader clears away what leaders before it left, period by period', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-sweeper-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const cluster = new MemoryCluster(t);
  const a = await cluster.candidate('a');
  const leadership = await a.contender.leads();
  const [running, ended] = ['a', 'b'].map((digit) => digit.repeat(32) as JobId) as [JobId, JobId];
  for (const jobId of [running, ended]) {
    const job = { jobId, submissionId: 's', name: 'a job', graph: encodeText('g'), submittedAt: 1 };
    await leadership.jobs.put({ ...job, desired: 'RUNNING' });
    await mkdir(join(folder, jobId, 'chk-1-e1.0'), { recursive: true });
    await utimes(join(folder, jobId, 'chk-1-e1.0'), 1, 1);
  }
  await leadership.results.createDirty({
    jobId: ended,
    name: 'a job',
    state: 'FINISHED',
    archive: '{}',
    finishedAt: cluster.clock.wallTime(),
  });
  const forgotten: JobId[] = [];
  const sweeper = new LeaderSweeper(
    a.env,
    {
      leadership,
      checkpointDirectory: (jobId) => join(folder, jobId),
      onForgotten: (jobId) => forgotten.push(jobId),
    },
    { orphanMinAgeMs: 60_000, resultMaxAgeMs: 60_000, resultMaxCount: 0 },
  );
  t.teardown(() => sweeper.close());
  const report = await sweeper.sweep();
  t.same(report, {
    checkpoints: [join(folder, running, 'chk-1-e1.0')],
    values: [],
    results: [],
  });
  t.same(await readdir(join(folder, ended)), ['chk-1-e1.0'], 'left to the cleanup of its job');

  await leadership.results.markClean(ended);
  sweeper.start();
  for (let i = 0; i < 120 && forgotten.length === 0; i += 1) {
    await cluster.clock.advance(100);
    await settle();
  }
  t.same(forgotten, [ended], 'after a sixth of the shorter age');
  t.same(await leadership.results.listIds(), []);
});
