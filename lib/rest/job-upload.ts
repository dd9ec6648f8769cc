import type { MultipartFile, MultipartValue } from '@fastify/multipart';
import { MillraceError } from '../base/errors.js';
import { parseJobId } from '../base/ids.js';
import type { JobSubmission } from '../gateway/client-gateway.js';
import type { JobGraph } from '../graph/job-graph.js';

/** Largest bundle of a job. */
export const bundleLimitBytes = 64 * 1024 ** 2;
/** Largest `request` part: the JobGraph. */
export const graphLimitBytes = 16 * 1024 ** 2;

/**
 * A job from the parts of a multipart request: the field `request` with JSON `{submissionId, jobGraph}`, and the file
 * `bundle` when the graph names one.
 *
 * @throws REQUEST_INVALID, JOB_INVALID. Whether the graph makes sense is for the Dispatcher to say.
 */
export async function readJobUpload(
  parts: AsyncIterable<MultipartFile | MultipartValue>,
): Promise<JobSubmission> {
  let request: string | undefined;
  let bundle: Uint8Array | undefined;
  for await (const part of parts) {
    if (part.type === 'file' && part.fieldname === 'bundle') bundle = await part.toBuffer();
    else if (part.type === 'file') throw invalid(`unknown file '${part.fieldname}'`);
    else if (part.fieldname === 'request' && typeof part.value === 'string') {
      if (part.valueTruncated) throw invalid("the field 'request' is too large");
      request = part.value;
    } else throw invalid(`unknown field '${part.fieldname}'`);
  }
  if (request === undefined) throw invalid("the field 'request' is missing");
  return { ...parseRequest(request), ...(bundle !== undefined && { bundle }) };
}

function parseRequest(text: string): { submissionId: string; jobGraph: JobGraph } {
  const value = parseJson(text);
  const fields = (typeof value === 'object' && value !== null ? value : {}) as Record<
    string,
    unknown
  >;
  const { submissionId, jobGraph } = fields;
  if (typeof submissionId !== 'string' || !/^[\w-]{1,128}$/.test(submissionId)) {
    throw invalid("'submissionId' must be 1 to 128 letters, digits, - or _");
  }
  if (typeof jobGraph !== 'object' || jobGraph === null) throw invalid("'jobGraph' is missing");
  const graph = jobGraph as Partial<JobGraph>;
  if (typeof graph.jobId !== 'string' || parseJobId(graph.jobId) === undefined) {
    throw new MillraceError(
      'JOB_INVALID',
      "the job graph's 'jobId' is not 32 hexadecimal characters",
    );
  }
  if (graph.version !== 1) {
    const message = `the job graph has version ${String(graph.version)}; this cluster runs version 1: use the same Millrace for both`;
    throw new MillraceError('JOB_INVALID', message);
  }
  return { submissionId, jobGraph: jobGraph as JobGraph };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw invalid("the field 'request' is not JSON", cause);
  }
}

function invalid(problem: string, cause?: unknown): MillraceError {
  return new MillraceError('REQUEST_INVALID', `the submission is not valid: ${problem}`, {
    ...(cause !== undefined && { cause }),
  });
}
