/**
 * Type errors are reported before a job is submitted, since bundling checks none. The compiler runs in a
 * worker thread beside bundling and capture: it takes a second or two of CPU.
 */
import { Worker } from 'node:worker_threads';
import { MillraceError } from '../base/errors.js';
import { isKnownGood, type CheckedFile } from './remembered-verdicts.js';

/** `file:line:column`, the file relative to the working directory, and the compiler's text. */
export interface TypeProblem {
  readonly place: string;
  readonly message: string;
}

export type TypeCheckRequest = CheckedFile;

const shownProblems = 20;

/** Rejects with JOB_TYPE_ERROR that lists the problems; JavaScript files are not checked. */
export async function typeCheckJob(request: TypeCheckRequest): Promise<void> {
  if (!/\.[cm]?tsx?$/.test(request.file) || isKnownGood(request)) return;
  const problems = await new Promise<readonly TypeProblem[]>((resolve, reject) => {
    const worker = new Worker(new URL('./type-check-worker.js', import.meta.url), {
      workerData: request,
    });
    worker.once('message', resolve);
    worker.once('error', reject);
    worker.once('exit', (code) => {
      reject(new MillraceError('CLOSED', `the type checker ended with code ${code}`));
    });
  });
  if (problems.length === 0) return;
  const lines = problems.slice(0, shownProblems).map(({ place, message }) => `${place} ${message}`);
  if (problems.length > shownProblems)
    lines.push(`... and ${problems.length - shownProblems} more`);
  const count = problems.length === 1 ? '1 type error' : `${problems.length} type errors`;
  throw new MillraceError('JOB_TYPE_ERROR', [`the job has ${count}:`, ...lines].join('\n  '), {
    details: { problems },
  });
}
