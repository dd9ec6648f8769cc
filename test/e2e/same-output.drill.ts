/** One job file, the same output everywhere: in one process, on one TaskManager and on two, at parallelism 1, 2 and 4. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { accessLogInput, accessLogJob, AccessLogRun } from '../../bin/drills/access-log-run.js';
import { LocalCluster } from '../../bin/local/local-cluster.js';
import { verifyAccessLog } from '../../examples/access-log/verify.js';
import { millrace } from '../support/cli.js';

t.setTimeout(230_000);
const folder = mkdtempSync(join(tmpdir(), 'millrace-same-'));
t.teardown(() => {
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

for (const parallelism of [1, 2, 4]) {
  await t.test(`local, parallelism ${String(parallelism)}`, async (t) => {
    const output = join(folder, `local-${String(parallelism)}`);
    const args = ['--', '--input', accessLogInput, '--output', output, '--rate', '0'];
    const done = await millrace([
      'run',
      accessLogJob,
      '--target',
      'local',
      '-p',
      String(parallelism),
      '--no-type-check',
      ...args,
    ]);
    t.equal(done.code, 0, done.stderr);
    t.ok(verifyAccessLog(accessLogInput, output).exactlyOnce);
  });
}

for (const taskManagers of [1, 2]) {
  await t.test(`${String(taskManagers)} TaskManager(s)`, async (t) => {
    const cluster = await LocalCluster.start({
      folder,
      clusterId: `same-${String(taskManagers)}`,
      jobManagers: 1,
      taskManagers,
      slotsPerTaskManager: 4 / taskManagers,
      etcd: { members: 1 },
      settings: {},
    });
    t.teardown(() => cluster.stop());
    for (const parallelism of [1, 2, 4]) {
      const run = await AccessLogRun.submit(cluster, { rate: 0, parallelism });
      const result = await run.waitUntilEnd(60_000);
      t.equal(result.state, 'FINISHED', `parallelism ${String(parallelism)} finishes`);
      t.ok(run.verify().exactlyOnce, `parallelism ${String(parallelism)} has the expected output`);
      const { vertices } = await run.details();
      t.same(
        vertices.slice(1).map((vertex) => vertex.metrics['read-records']),
        [10_000, 10_000],
        'the last figures of its tasks are kept',
      );
      await run.close();
    }
  });
}
