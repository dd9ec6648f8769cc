/** Reports of drills as a Markdown document: the table, then each drill with its findings and its timeline. */
import type { Drill, DrillReport } from './drill.js';
import { spreads } from './soak.js';

export interface ReportFacts {
  /** Wall-clock ms. */
  readonly began: number;
  readonly ended: number;
  /** Such as `Node v20.19.0 on linux x64, 2 cores, etcd 3.4.23`. */
  readonly machine: string;
}

export function formatMarkdown(
  reports: readonly DrillReport[],
  known: readonly Drill[],
  facts: ReportFacts,
): string {
  const passed = reports.filter((one) => one.passed).length;
  const lines = [
    '# Drills',
    '',
    `${new Date(facts.began).toISOString()}, ${seconds(facts.ended - facts.began)}, ${facts.machine}.`,
    `${String(passed)} of ${String(reports.length)} passed. Every drill runs the access-log job on real processes, checks its committed`,
    'output against an independent computation, and reads from etcd that no deposed leader wrote after its successor.',
    '',
    '| drill | fault | must hold | verdict | exactly once | took |',
    '|---|---|---|---|---|---|',
  ];
  for (const one of reports) {
    const drill = known.find(({ name }) => name === one.drill);
    lines.push(
      row([
        one.drill,
        drill?.fault ?? 'random faults',
        drill?.mustHold ?? 'exactly once',
        one.passed ? 'passed' : '**FAILED**',
        one.exactlyOnce ? 'yes' : '**no**',
        seconds(one.durationMs),
      ]),
    );
  }
  if (new Set(reports.map(({ drill }) => drill)).size < reports.length)
    lines.push('', ...formatSpreads(reports));
  for (const one of reports) lines.push('', ...formatDrill(one));
  return `${lines.join('\n')}\n`;
}

function formatSpreads(reports: readonly DrillReport[]): string[] {
  const lines = [
    '## Spread over the rounds',
    '',
    '| drill | finding | rounds | p50 | p99 | worst |',
    '|---|---|---:|---:|---:|---:|',
  ];
  for (const { drill, findings } of spreads(reports))
    for (const { finding, rounds, p50, p99, worst } of findings)
      lines.push(row([drill, finding, rounds, p50, p99, worst]));
  return lines;
}

function formatDrill(report: DrillReport): string[] {
  const lines = [`## ${report.drill}: ${report.passed ? 'passed' : 'FAILED'}`, ''];
  if (report.failure !== undefined) lines.push('```', report.failure, '```', '');
  const findings = Object.entries(report.findings);
  if (findings.length > 0) {
    lines.push('| finding | |', '|---|---|');
    for (const [name, value] of findings) lines.push(row([name, value]));
    lines.push('');
  }
  if (report.timeline.length === 0) return lines;
  lines.push('| ms | process | event | |', '|---:|---|---|---|');
  for (const { ms, process, event, text } of report.timeline)
    lines.push(row([ms, process, event, process === 'drill' ? `**${text}**` : text]));
  return lines;
}

function row(cells: readonly (string | number)[]): string {
  const plain = cells.map((one) => String(one).replaceAll('|', '\\|').replaceAll('\n', ' '));
  return `| ${plain.join(' | ')} |`;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
