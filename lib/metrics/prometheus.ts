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
 * `tm_id` a TaskManager's, else the JobManager's. Metrics of user functions keep their name under the task's prefix.
 */
export function formatPrometheus(samples: readonly MetricSample[]): string {
  const families = new Map<string, Map<string, MetricSample>>();
  for (const sample of samples) {
    const name = toPrometheusName(sample);
    const familyName = familyOf(name);
    const family = families.get(familyName) ?? new Map<string, MetricSample>();
    families.set(familyName, family);
    // Prometheus refuses a page on which a series is twice: the first one counts.
    const series = name + formatLabels(sample.labels);
    if (!family.has(series)) family.set(series, sample);
  }
  let text = '';
  for (const [name, family] of [...families].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const definition = definitionsByName.get(name);
    const [first] = family.values();
    if (definition !== undefined) {
      text += `# HELP ${name} ${escapeHelp(definition.meaning)} Unit: ${definition.unit}.\n`;
    }
    text += `# TYPE ${name} ${definition?.type ?? first?.type ?? 'gauge'}\n`;
    for (const [series, { value }] of family) text += `${series} ${formatValue(value)}\n`;
  }
  return text;
}

/** `x_bucket`, `x_sum` and `x_count` are of the histogram `x`. */
function familyOf(name: string): string {
  const base = name.replace(/_(?:bucket|sum|count)$/, '');
  return definitionsByName.get(base)?.type === 'histogram' ? base : name;
}

export function toPrometheusName({ name, labels }: MetricSample): string {
  const valid = name.replace(/[^a-zA-Z0-9_:]/g, '_');
  if (valid.startsWith('flink_')) return valid;
  const scope: MetricScope =
    'task_id' in labels
      ? 'task'
      : 'job_id' in labels
        ? 'job'
        : 'tm_id' in labels
          ? 'taskmanager'
          : 'jobmanager';
  return prometheusName({ scope, name: valid });
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
