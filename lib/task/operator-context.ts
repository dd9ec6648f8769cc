/** What an operator is given, put together from its job, its task and its place in the chain. */
import { childEnv } from '../base/env.js';
import type {
  SlotDeployment,
  TaskDeploymentDescriptor,
} from '../gateway/task-deployment-descriptor.js';
import type { OperatorContext, ProcessingTimeService } from '../operators/stream-operator.js';
import type { Clock } from '../base/clock.js';
import type { OperatorNode } from './operator-chain.js';
import type { TaskHost } from './task-host.js';

/** Longest delay a timer of Node takes; longer ones are armed again. */
const timerMaxMs = 2 ** 31 - 1;

/** The operator's way back into its task. */
export interface OperatorHooks {
  readonly node: OperatorNode;
  /** Runs it as mail of the task. */
  readonly postTimer: (run: () => void) => void;
  /** Cancellers of timers that are armed; called when the task ends. */
  readonly armedTimers: Set<() => void>;
  readonly shouldYield: () => boolean;
  readonly quantum: OperatorContext['quantum'];
  readonly inBackground: OperatorContext['inBackground'];
  readonly continueLater: (step: () => boolean) => void;
  readonly wakeUp: () => void;
}

export function createOperatorContext(
  host: TaskHost,
  job: SlotDeployment,
  descriptor: TaskDeploymentDescriptor,
  hooks: OperatorHooks,
): OperatorContext {
  const { node } = hooks;
  const { vertex, attemptId, subtaskIndex } = descriptor;
  const { clock } = host.env;
  const restore = descriptor.restore?.operators[node.id];
  const operator = vertex.operators.find(({ id }) => id === node.id);
  return {
    jobId: job.jobId,
    jobName: job.jobGraph.name,
    operatorId: node.id,
    operatorName: node.name,
    subtaskIndex,
    parallelism: vertex.parallelism,
    maxParallelism: operator?.maxParallelism ?? vertex.maxParallelism,
    generation: descriptor.generation,
    attemptId,
    output: node.output,
    processingTime: createProcessingTime(clock, hooks),
    clock,
    metrics: node.metrics,
    log: childEnv(host.env, 'operator', {
      jobId: job.jobId,
      operator: node.name,
      subtask: subtaskIndex,
    }).log,
    autoWatermarkIntervalMs: job.jobGraph.config.autoWatermarkIntervalMs,
    ...(restore !== undefined && { restore }),
    ...(descriptor.restore !== undefined && {
      restoreBaseDirectory: descriptor.restore.baseDirectory,
      restoredCheckpointId: descriptor.restore.checkpointId,
    }),
    storage: host.storage,
    shouldYield: hooks.shouldYield,
    quantum: hooks.quantum,
    inBackground: hooks.inBackground,
    continueLater: hooks.continueLater,
    wakeUp: hooks.wakeUp,
    sendOperatorEvent: (event) =>
      host.ports.report({ kind: 'operatorEvent', attemptId, operatorId: node.id, event }),
  };
}

function createProcessingTime(clock: Clock, hooks: OperatorHooks): ProcessingTimeService {
  return {
    now: () => clock.wallTime(),
    registerTimer: (timestamp, callback) => {
      let isCancelled = false;
      let disarm: () => void = () => undefined;
      const arm = (): void => {
        const delay = Math.max(0, timestamp - clock.wallTime());
        disarm = clock.setTimer(Math.min(delay, timerMaxMs), () => {
          // Too early when the delay was capped, or the wall clock was set back.
          if (clock.wallTime() < timestamp) {
            arm();
            return;
          }
          hooks.armedTimers.delete(cancel);
          hooks.postTimer(() => {
            if (!isCancelled) callback();
          });
        });
      };
      const cancel = (): void => {
        isCancelled = true;
        hooks.armedTimers.delete(cancel);
        disarm();
      };
      hooks.armedTimers.add(cancel);
      arm();
      return cancel;
    },
  };
}
