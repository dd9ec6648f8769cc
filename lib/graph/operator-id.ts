/**
 * Operator ids name state in snapshots, so they must not change when main is re-run or the program
 * grows elsewhere. With a uid the id depends on nothing else; without one on the operator's type and
 * on the ids it reads from, never on names, functions or parallelism.
 */
import { createHash } from 'node:crypto';
import type { OperatorId } from '../base/ids.js';

export interface StructuralInput {
  readonly id: OperatorId;
  readonly shipStrategy: string;
  readonly sideOutput: string | undefined;
}

export function operatorIdFromUid(uid: string): OperatorId {
  return digestId(['uid', uid]);
}

/** `occurrence` counts equal operators on equal inputs, in the order of the program. */
export function operatorIdFromStructure(
  type: string,
  inputs: readonly StructuralInput[],
  occurrence: number,
): OperatorId {
  const read = inputs.map(({ id, shipStrategy, sideOutput }) => [
    id,
    shipStrategy,
    sideOutput ?? null,
  ]);
  return digestId(['structure', type, read, occurrence]);
}

function digestId(value: unknown): OperatorId {
  const digest = createHash('sha256').update(JSON.stringify(value)).digest('hex');
  return digest.slice(0, 32) as OperatorId;
}
