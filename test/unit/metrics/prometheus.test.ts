import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { MetricRegistry } from '../../../lib/base/metrics.js';
import type { MetricSample } from '../../../lib/base/metrics.js';
import { metricDefinitions, prometheusName } from '../../../lib/metrics/metric-names.js';
import { metricsReference } from '../../../lib/metrics/metrics-reference.js';
import { formatPrometheus } from '../../../lib/metrics/prometheus.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '../../../..');

const sample = (
  name: string,
  value: number,
  labels: Record<string, string> = {},
): MetricSample => ({
  name,
  type: 'gauge',
  labels,
  value,
});

t.test('samples become families under Flink’s names, with help and type from the table', (t) => {
  const task = { tm_id: 'tm-1', job_id: 'j', task_id: 'v', task_name: 'Map', subtask_index: '0' };
  const text = formatPrometheus([
    sample('numRecordsIn', 12, task),
    sample('numRestarts', 1, { job_id: 'j' }),
    sample('numRecordsIn', 13, { ...task, subtask_index: '1' }),
    sample('taskSlotsTotal', 4),
    sample('taskSlotsTotal', 99),
    sample('my.own metric', 7, task),
  ]);
  t.equal(
    text,
    [
      '# HELP flink_jobmanager_job_numRestarts Restarts of tasks under this leader. Unit: restarts.',
      '# TYPE flink_jobmanager_job_numRestarts counter',
      'flink_jobmanager_job_numRestarts{job_id="j"} 1',
      '# HELP flink_jobmanager_taskSlotsTotal Slots of all registered TaskManagers. Unit: slots.',
      '# TYPE flink_jobmanager_taskSlotsTotal gauge',
      'flink_jobmanager_taskSlotsTotal 4',
      '# TYPE flink_taskmanager_job_task_my_own_metric gauge',
      'flink_taskmanager_job_task_my_own_metric{tm_id="tm-1",job_id="j",task_id="v",task_name="Map",subtask_index="0"} 7',
      '# HELP flink_taskmanager_job_task_numRecordsIn Records the task took from its inputs; 0 for a source. Unit: records.',
      '# TYPE flink_taskmanager_job_task_numRecordsIn counter',
      'flink_taskmanager_job_task_numRecordsIn{tm_id="tm-1",job_id="j",task_id="v",task_name="Map",subtask_index="0"} 12',
      'flink_taskmanager_job_task_numRecordsIn{tm_id="tm-1",job_id="j",task_id="v",task_name="Map",subtask_index="1"} 13',
      '',
    ].join('\n'),
  );
  t.end();
});

t.test('labels are escaped and special values are written as Prometheus reads them', (t) => {
  const text = formatPrometheus([
    sample('a', NaN, { l: 'back\\slash "quote"\nline' }),
    sample('b', Infinity),
    sample('c', -Infinity),
    sample('flink_full_name', 0.25),
  ]);
  t.ok(text.includes('flink_jobmanager_a{l="back\\\\slash \\"quote\\"\\nline"} NaN\n'));
  t.ok(text.includes('b +Inf\n'));
  t.ok(text.includes('c -Inf\n'));
  t.ok(text.includes('\nflink_full_name 0.25\n'));
  t.equal(formatPrometheus([]), '');
  t.end();
});

t.test('names in the table are unique and valid', (t) => {
  const names = metricDefinitions.map(prometheusName);
  t.equal(new Set(names).size, names.length);
  t.ok(names.every((name) => /^flink_[a-zA-Z0-9_]+$/.test(name)));
  t.end();
});

t.test('the table has every metric the sources register or report, and no other', (t) => {
  const found = new Set<string>();
  for (const folder of ['lib', 'ha', 'checkpoint']) {
    for (const file of readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })) {
      if (!file.endsWith('.ts') || file.startsWith('metrics/')) continue;
      const text = readFileSync(join(root, folder, file), 'utf8');
      for (const [, name = ''] of text.matchAll(/\b(?:counter|gauge|histogram)\(\s*'(\w+)'/g))
        found.add(name);
    }
  }
  // One name may be of a JobManager and of a TaskManager.
  const names = new Set(metricDefinitions.map(({ name }) => name));
  t.strictSame([...found].sort(), [...names].sort());
  t.end();
});

t.test('docs/reference/metrics.md is what the table says (UPDATE=1 rewrites it)', (t) => {
  const path = join(root, 'docs/reference/metrics.md');
  if (process.env['UPDATE'] !== undefined) writeFileSync(path, metricsReference());
  t.equal(readFileSync(path, 'utf8'), metricsReference());
  t.end();
});

t.test('a histogram is one family of cumulative buckets, sum and count', async (t) => {
  const registry = new MetricRegistry();
  const slack = registry.histogram('leaseSlackAtRenewalMs', [500, 2_000]);
  for (const value of [400, 1_900, 2_100]) slack.observe(value);
  t.equal(registry.histogram('leaseSlackAtRenewalMs', []), slack);
  const name = 'flink_jobmanager_leaseSlackAtRenewalMs';
  t.strictSame(formatPrometheus(registry.samples()).split('\n').slice(1), [
    `# TYPE ${name} histogram`,
    `${name}_bucket{le="500"} 1`,
    `${name}_bucket{le="2000"} 2`,
    `${name}_bucket{le="+Inf"} 3`,
    `${name}_sum 4400`,
    `${name}_count 3`,
    '',
  ]);
});
