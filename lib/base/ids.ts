import type { Random } from './random.js';

declare const brand: unique symbol;
/** A string that must not be mixed up with another kind of string. */
export type Branded<T extends string> = string & { readonly [brand]: T };

/** 32 hexadecimal characters, as Flink's JobID. */
export type JobId = Branded<'JobId'>;
/** JobVertexID: 32 hexadecimal characters; the operator id of the chain's head. */
export type VertexId = Branded<'VertexId'>;
/** OperatorID: 32 hexadecimal characters, from the uid or the structure; the name of its state in snapshots. */
export type OperatorId = Branded<'OperatorId'>;
/** One execution of one subtask: `<vertexId>_<subtask>_<generation>_<nonce>`. */
export type AttemptId = Branded<'AttemptId'>;
/** A slot given to a job until it is freed. */
export type AllocationId = Branded<'AllocationId'>;
/** ResourceID of a TaskManager, new in every process. */
export type TaskManagerId = Branded<'TaskManagerId'>;
export type JobManagerId = Branded<'JobManagerId'>;
/** Lower-case hex SHA-256. */
export type Digest = Branded<'Digest'>;

const hex32 = /^[0-9a-f]{32}$/;

export const newJobId = (random: Random): JobId => random.hex(32) as JobId;
export const newAllocationId = (random: Random): AllocationId => random.hex(32) as AllocationId;
export const newTaskManagerId = (random: Random, host: string): TaskManagerId =>
  `${host}-${random.hex(8)}` as TaskManagerId;
export const newJobManagerId = (random: Random, host: string): JobManagerId =>
  `${host}-${random.hex(8)}` as JobManagerId;

/** `undefined` when the text is no job id. */
export function parseJobId(text: string): JobId | undefined {
  return hex32.test(text) ? (text as JobId) : undefined;
}

export function newAttemptId(
  random: Random,
  vertex: VertexId,
  subtask: number,
  generation: number,
): AttemptId {
  return `${vertex}_${String(subtask)}_${String(generation)}_${random.hex(8)}` as AttemptId;
}
