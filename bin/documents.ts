/**
 * Writes the documents that follow from tables in the code, `npm run docs`; a test fails when they are stale.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { renderMarkdown, renderYaml } from '../config/documents.js';
import { errorCodes } from '../lib/base/error-codes.js';
import { metricsReference } from '../lib/metrics/metrics-reference.js';
import { localRoutes, routes } from '../lib/rest/routes.js';
import { exitCodes } from './exit-codes.js';

const retryText = {
  now: 'at once',
  backoff: 'later',
  never: 'no: change something first',
} as const;
const domainText = {
  user: 'the job’s author or the administrator',
  system: 'Millrace itself',
  external: 'whoever runs what it depends on',
} as const;

function renderErrors(): string {
  const lines = [
    '# Errors',
    '',
    'Generated from `lib/base/error-codes.ts` by `npm run docs`.',
    '',
    'Every error has a code from this table. Match on the code, never on the text. "Retry" says whether trying again',
    'helps, "who acts" in whose hands the cause is.',
    '',
    '| code | meaning | who acts | retry |',
    '|---|---|---|---|',
  ];
  for (const [code, { meaning, domain, retry }] of Object.entries(errorCodes)) {
    lines.push(`| \`${code}\` | ${meaning} | ${domainText[domain]} | ${retryText[retry]} |`);
  }
  lines.push('', '## Exit codes', '', '| code | meaning |', '|---|---|');
  for (const { code, meaning } of Object.values(exitCodes)) lines.push(`| ${code} | ${meaning} |`);
  return `${lines.join('\n')}\n`;
}

function renderRest(): string {
  const lines = [
    '# REST',
    '',
    'Generated from `lib/rest/routes.ts` by `npm run docs`. Paths and field names are Flink’s. Every path is served as it',
    'stands and under `/v1`, by every JobManager; a standby forwards to the leader all but the first rows, which each',
    'answers itself. Without a leader the answer is 503 with `Retry-After`. An error is `{"errors": [...], "code": ..., "retry": ...}` with a code of',
    '[errors](errors.md). With `rest.token` set every request carries `Authorization: Bearer TOKEN`.',
    '',
    '| method | path | query | does |',
    '|---|---|---|---|',
  ];
  for (const { method, path, query, summary } of [...localRoutes, ...routes]) {
    const names = (query ?? []).map((name) => `\`${name}\``).join(', ');
    lines.push(`| ${method} | \`${path}\` | ${names} | ${summary} |`);
  }
  return `${lines.join('\n')}\n`;
}

/** Path from the repository's root, and content. */
export const generatedDocuments: readonly (readonly [string, () => string])[] = [
  ['config/millrace.yaml', renderYaml],
  ['docs/reference/configuration.md', renderMarkdown],
  ['docs/reference/errors.md', renderErrors],
  ['docs/reference/metrics.md', metricsReference],
  ['docs/reference/rest-api.md', renderRest],
];

export function writeDocuments(root: string): void {
  for (const [path, render] of generatedDocuments) writeFileSync(join(root, path), render());
}
