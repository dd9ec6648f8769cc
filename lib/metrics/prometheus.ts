/** The Prometheus text format, version 0.0.4, of metric samples. */
import type { MetricSample } from '../base/metrics.js';
import {
  metricDefinitions,
  prometheusName,
  type MetricDefinition,
  type MetricScope,
} from './metric-names.js';

export const prometheusContentType = 'text/plain; version=0.0.4; charset=utf-8';

const definitionsByName = new Map<string, MetricDefinition>();
for (const definition of metricDefinitions) {
  definitionsByName.set(prometheusName(definition), definition);
}

/**
 * Samples of one name become one family with its HELP and TYPE. A sample's name may be full
 * (`flink_jobmanager_job_numRestarts`) or short with labels that tell its scope: `task_id` a task's, `job_id` a job's,
 * `tm_id` a TaskManager's, else the cluster's. Metrics of user functions keep their name under the task's prefix.
 */
export function formatPrometheus(samples: readonly MetricSample[]): string {
  const families = new Map<string, MetricSample[]>();
  for (const sample of samples) {
    const name = toPrometheusName(sample);
    const family = families.get(name);
    if (family === undefined) families.set(name, [sample]);
    else family.push(sample);
  }
  let text = '';
  for (const [name, family] of [...families].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const definition = definitionsByName.get(name);
    const type = definition?.type ?? family[0]?.type ?? 'gauge';
    if (definition !== undefined) {
      text += `# HELP ${name} ${escapeHelp(definition.meaning)} Unit: ${definition.unit}.\n`;
    }
    text += `# TYPE ${name} ${type}\n`;
    for (const { labels, value } of family)
      text += `${name}${formatLabels(labels)} ${formatValue(value)}\n`;
  }
  return text;
}

export function toPrometheusName({ name, labels }: MetricSample): string {
  const full = name.replace(/[^a-zA-Z0-9_:]/g, '_');
  if (full.startsWith('flink_')) return full;
  const status: MetricScope = 'tm_id' in labels ? 'taskmanager' : 'jobmanager';
  const scope: MetricScope = 'task_id' in labels ? 'task' : 'job_id' in labels ? 'job' : 'cluster';
  // Process metrics are the only ones without a job; the table tells them from the cluster's.
  const candidates = scope === 'cluster' ? [scope, status] : [scope];
  const names = candidates.map((candidate) => prometheusName({ scope: candidate, name: full }));
  return names.find((candidate) => definitionsByName.has(candidate)) ?? names.at(-1) ?? full;
}

function formatLabels(labels: Readonly<Record<string, string>>): string {
  const entries = Object.entries(labels);
  if (entries.length === 0) return '';
  const pairs = entries.map(
    ([key, value]) => `${key.replace(/[^a-zA-Z0-9_]/g, '_')}="${escapeLabel(value)}"`,
  );
  return `{${pairs.join(',')}}`;
}

function escapeLabel(value: string): string {
  return value.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n');
}

function escapeHelp(text: string): string {
  return text.replace(/\\/g, '\\\\').replace(/\n/g, '\\n');
}

function formatValue(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (value === Infinity) return '+Inf';
  return value === -Infinity ? '-Inf' : String(value);
}
