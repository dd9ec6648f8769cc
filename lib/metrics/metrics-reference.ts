import {
  metricDefinitions,
  metricScopes,
  prometheusName,
  type MetricScope,
} from './metric-names.js';

const titles: Readonly<Record<MetricScope, string>> = {
  jobmanager: 'JobManager and cluster',
  taskmanager: 'TaskManager',
  job: 'Jobs',
  task: 'Tasks',
};

/** The text of docs/reference/metrics.md. A test keeps the file equal to it (UPDATE=1 rewrites it). */
export function metricsReference(): string {
  const lines = [
    '# Metrics',
    '',
    '`GET /metrics` gives them in the Prometheus text format; scrape every JobManager. Each gives the metrics of its own',
    'process; the leader also those of the cluster, its jobs and tasks (`?scope=cluster` asks a standby for the leader’s).',
    'Names are Flink’s wherever Flink has the metric. Generated from `lib/metrics/metric-names.ts`. Metrics user functions',
    `register appear under \`${metricScopes.task.prefix}<name>\` with the labels of their task.`,
    '',
  ];
  for (const scope of Object.keys(titles) as MetricScope[]) {
    const labels = metricScopes[scope].labels.map((label) => `\`${label}\``).join(', ');
    lines.push(
      `## ${titles[scope]}`,
      '',
      ...(labels === '' ? [] : [`Labels: ${labels}.`, '']),
      '| Metric | Type | Unit | Meaning |',
      '| --- | --- | --- | --- |',
    );
    for (const metric of metricDefinitions.filter((one) => one.scope === scope)) {
      lines.push(
        `| \`${prometheusName(metric)}\` | ${metric.type} | ${metric.unit} | ${metric.meaning} |`,
      );
    }
    lines.push('');
  }
  return lines.join('\n');
}
