/** Chooses how records go through a chain: generated code, unless the job wants the interpreter. */
import type {
  SlotDeployment,
  TaskDeploymentDescriptor,
} from '../gateway/task-deployment-descriptor.js';
import { CompiledPath } from './chain-compiler/compiled-path.js';
import type { EdgeOutput } from './edge-output.js';
import { DirectInputChannel, RingInputChannel, type InputChannel } from './input-channel.js';
import type { OperatorChain } from './operator-chain.js';
import { InterpretedPath, type RecordPath, type RecordPathOwner } from './record-path.js';

export interface ChainSurroundings {
  readonly chain: OperatorChain;
  readonly inputs: readonly InputChannel[];
  readonly edges: readonly EdgeOutput[];
}

/** After all operators are open. */
export function createRecordPath(
  { jobGraph }: SlotDeployment,
  { vertex, subtaskIndex, outputs }: TaskDeploymentDescriptor,
  { chain, inputs, edges }: ChainSurroundings,
  owner: RecordPathOwner,
): RecordPath {
  if (!jobGraph.config.compile) return new InterpretedPath(owner, chain.head);
  return new CompiledPath({
    owner,
    chain,
    edges,
    edgeTargets: outputs.map(
      ({ edge }) => jobGraph.vertices.find(({ id }) => id === edge.target)?.name ?? edge.target,
    ),
    inputs: {
      direct: inputs.some((input) => input instanceof DirectInputChannel),
      ring: inputs.some((input) => input instanceof RingInputChannel),
    },
    name: vertex.name,
    subtaskIndex,
  });
}
